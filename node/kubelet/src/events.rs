//! Events about pods and the node: `kubectl describe` shows them.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events waiting to be written; more are dropped and counted.
const QUEUE_LEN_MAX: usize = 256;
/// Remembered for counting repetitions.
const SERIES_MAX: usize = 1024;

/// Writes events in the background.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Entry>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    object: Object,
    warning: bool,
    reason: &'static str,
    message: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Object {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field_path: Option<String>,
}

impl Recorder {
    /// A recorder and the future that writes, until `shutdown`.
    pub(crate) fn new(
        client: Client,
        node: String,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, entries) = mpsc::channel(QUEUE_LEN_MAX);
        (Self { queue }, write(client, node, entries, shutdown))
    }

    /// About a pod, or one of its containers.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let metadata = &pod.metadata;
        let object = Object {
            kind: "Pod",
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
        };
        if self.queue.try_send(Entry { object, warning, reason, message }).is_err() {
            tracing::debug!(reason, "event dropped: the queue is full");
        }
    }
}

async fn write(
    client: Client,
    node: String,
    mut entries: mpsc::Receiver<Entry>,
    shutdown: CancellationToken,
) {
    let mut series: HashMap<Entry, (String, i32)> = HashMap::new();
    loop {
        let entry = tokio::select! {
            entry = entries.recv() => entry,
            () = shutdown.cancelled() => return,
        };
        let Some(entry) = entry else { return };
        if series.len() > SERIES_MAX {
            series.clear();
        }
        let api: Api<Event> = Api::namespaced(client.clone(), &entry.object.namespace);
        let now = Timestamp::now();
        let repeated = series.get_mut(&entry).map(|(name, count)| {
            *count += 1;
            (name.clone(), *count)
        });
        let result = match repeated {
            Some((name, count)) => {
                let patch = serde_json::json!({ "count": count, "lastTimestamp": Time(now) });
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
            }
            None => {
                let event = event(&entry, &node, now);
                let name = event.metadata.name.clone().unwrap_or_default();
                let created = api.create(&PostParams::default(), &event).await.map(|_| ());
                series.insert(entry.clone(), (name, 1));
                created
            }
        };
        if let Err(error) = result {
            series.remove(&entry);
            tracing::debug!(%error, reason = entry.reason, "event not written");
        }
    }
}

fn event(entry: &Entry, node: &str, now: Timestamp) -> Event {
    let object = &entry.object;
    let name = format!("{}.{:x}", object.name, now.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(object.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(object.kind.to_owned()),
            namespace: Some(object.namespace.clone()),
            name: Some(object.name.clone()),
            uid: Some(object.uid.clone()),
            field_path: object.field_path.clone(),
            ..ObjectReference::default()
        },
        reason: Some(entry.reason.to_owned()),
        message: Some(entry.message.clone()),
        type_: Some(if entry.warning { "Warning" } else { "Normal" }.to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
