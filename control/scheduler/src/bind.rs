//! What the scheduler writes: bindings, the PodScheduled condition, events.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;

/// `spec.schedulerName` of the pods that are ours, and the name in events.
pub(crate) const SCHEDULER_NAME: &str = "default-scheduler";

/// How a write ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The pod is bound, or no longer there to be.
    Settled,
    /// The pod could not be bound and should be tried again.
    Failed(Arc<Pod>),
}

/// Writes to the API in the name of the scheduler.
#[derive(Clone)]
pub(crate) struct Binder {
    client: Client,
    recorder: Recorder,
}

impl Binder {
    pub(crate) fn new(client: Client) -> Self {
        let reporter = Reporter { controller: SCHEDULER_NAME.into(), instance: None };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"))
    }

    /// Binds a pod to a node.
    pub(crate) async fn bind(self, pod: Arc<Pod>, node: String) -> Outcome {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.clone()),
                ..ObjectReference::default()
            },
        };
        let bound = self
            .pods(&pod)
            .create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
            .await;
        match bound {
            Ok(_) => {
                tracing::debug!(namespace, name, node, "bound");
                let note = format!("Successfully assigned {namespace}/{name} to {node}");
                self.event(&pod, EventType::Normal, "Scheduled", note).await;
                Outcome::Settled
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(namespace, name, status.message, "the pod is gone or has a node already");
                Outcome::Settled
            }
            Err(error) => {
                tracing::warn!(namespace, name, node, %error, "cannot bind the pod; it is tried again");
                Outcome::Failed(pod)
            }
        }
    }

    /// Says on the pod, and by an event, why it has no node. Writes nothing that is there already.
    pub(crate) async fn report(self, pod: Arc<Pod>, message: String) {
        if let Some(conditions) = unscheduled(&pod, &message, Timestamp::now()) {
            let patch = json!({
                "metadata": {"resourceVersion": pod.metadata.resource_version},
                "status": {"conditions": conditions},
            });
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let pods = self.pods(&pod);
            let patched = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            if let Err(error) = patched {
                // A conflict means that the pod has changed: its next attempt reports again.
                tracing::debug!(name, %error, "the PodScheduled condition was not written");
            }
            self.event(&pod, EventType::Warning, "FailedScheduling", message).await;
        }
    }

    async fn event(&self, pod: &Pod, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note),
            action: "Binding".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &pod.object_ref(&())).await {
            tracing::debug!(%error, reason, "an event was not written");
        }
    }
}

/// The pod's conditions with `PodScheduled=False`; `None` when they say so already.
fn unscheduled(pod: &Pod, message: &str, now: Timestamp) -> Option<Vec<PodCondition>> {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let old = conditions.iter().position(|condition| condition.type_ == "PodScheduled");
    let old = old.map(|at| conditions.remove(at));
    let was_false = old.as_ref().filter(|old| old.status == "False");
    if was_false.is_some_and(|old| old.message.as_deref() == Some(message)) {
        return None;
    }
    let since = was_false.and_then(|old| old.last_transition_time.clone());
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    });
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_written_once_and_keeps_its_time() {
        let mut pod = Pod::default();
        let start = Timestamp::from_second(100).expect("a time");
        let first = unscheduled(&pod, "no", start).expect("not said yet");
        pod.status.get_or_insert_default().conditions = Some(first);
        let later = Timestamp::from_second(200).expect("a time");
        assert_eq!(unscheduled(&pod, "no", later), None);
        let second = unscheduled(&pod, "still no", later).expect("another message");
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].last_transition_time, Some(Time(start)));
    }
}
