//! Carries plans out.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Hub;
use crate::{
    cache::{Caches, Key},
    plan::{Announce, Notice, Plan, Target, Write},
};

/// Creations and deletions of one plan that happen at the same time.
const PARALLEL: usize = 16;

/// Events that may wait to be written; more are dropped.
const EVENTS_MAX: usize = 1024;

/// A write that the API refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {kind} {key}")]
pub struct WriteError {
    verb: &'static str,
    kind: String,
    key: Key,
    #[source]
    source: Box<kube::Error>,
}

impl WriteError {
    /// Somebody else was faster: what is known is old, and looking again is all it takes.
    pub fn is_conflict(&self) -> bool {
        matches!(code(&self.source), Some(409))
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Writes in the name of one controller, and tells the hub what came of it.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    hub: Arc<Hub>,
    events: mpsc::Sender<Notice>,
}

impl Executor {
    /// An executor, and the task that writes its events.
    pub fn new(
        client: Client,
        hub: Arc<Hub>,
        name: &'static str,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (events, notices) = mpsc::channel(EVENTS_MAX);
        let reporter = Reporter { controller: name.into(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        (Self { client, hub, events }, record(recorder, notices))
    }

    /// What is known.
    pub fn caches(&self) -> &Caches {
        &self.hub.caches
    }

    /// Carries a plan out, up to the first failure.
    ///
    /// # Errors
    /// A write failed for another reason than that its object is gone or its namespace is being deleted.
    pub async fn execute(&self, plan: Plan) -> Result<(), WriteError> {
        let alike = |a: &Write, b: &Write| {
            let parallel = |write: &Write| matches!(write, Write::Create { .. } | Write::Delete { .. });
            parallel(a) && parallel(b)
        };
        for batch in plan.writes.chunk_by(alike) {
            // The first one shows whether the others stand a chance.
            let (first, rest) = batch.split_first().expect("a chunk is never empty");
            self.write(first).await?;
            stream::iter(rest.to_vec())
                .map(|write| {
                    let own = self.clone();
                    async move { own.write(&write).await }
                })
                .buffer_unordered(PARALLEL)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    async fn write(&self, write: &Write) -> Result<(), WriteError> {
        let (target, result) = match write {
            Write::Notify(notice) => {
                self.notify(notice.clone());
                return Ok(());
            }
            Write::Create { target, object, announce } => {
                let result = self.create(target, object).await;
                self.announce(announce.as_ref(), target, &result);
                (target, result)
            }
            Write::Patch { target, subresource, patch } => {
                (target, self.patch(target, *subresource, patch).await)
            }
            Write::Replace { target, object } => (target, self.replace(target, object).await),
            Write::Delete { target, uid, grace_secs, announce } => {
                let result = self.delete(target, uid, *grace_secs).await;
                self.announce(announce.as_ref(), target, &result);
                (target, result)
            }
        };
        let creating = matches!(write, Write::Create { .. });
        match result {
            Ok(object) => {
                tracing::debug!(verb = write.verb(), kind = target.kind, key = %target.key, "written");
                self.absorb(target, object);
                Ok(())
            }
            Err(error) if !creating && code(&error) == Some(404) => Ok(()),
            Err(error) if creating && is_terminating(&error) => Ok(()),
            Err(source) => {
                let (kind, key) = (target.kind.clone(), target.key.clone());
                Err(WriteError { verb: write.verb(), kind, key, source: Box::new(source) })
            }
        }
    }

    async fn create(&self, target: &Target, object: &Value) -> Result<Value, kube::Error> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = Request::new(&target.collection).create(&PostParams::default(), body);
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    async fn patch(
        &self,
        target: &Target,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Value, kube::Error> {
        let request = Request::new(&target.collection);
        let (name, params, patch) = (&target.key.name, PatchParams::default(), Patch::Merge(patch));
        let request = match subresource {
            Some(subresource) => request.patch_subresource(subresource, name, &params, &patch),
            None => request.patch(name, &params, &patch),
        };
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    async fn replace(&self, target: &Target, object: &Value) -> Result<Value, kube::Error> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request =
            Request::new(&target.collection).replace(&target.key.name, &PostParams::default(), body);
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    async fn delete(
        &self,
        target: &Target,
        uid: &str,
        grace_secs: Option<u32>,
    ) -> Result<Value, kube::Error> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let mut params = DeleteParams::background().preconditions(preconditions);
        params.grace_period_seconds = grace_secs;
        let request = Request::new(&target.collection).delete(&target.key.name, &params);
        let answer: Value = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        if answer["kind"] == "Status"
            && let Some(touched) = self.caches().absorb_deletion(&target.kind, &target.key, uid)
        {
            self.hub.publish(&touched);
        }
        Ok(answer)
    }

    fn absorb(&self, target: &Target, object: Value) {
        if object["kind"] != "Status"
            && let Some(touched) = self.caches().absorb(&target.kind, object)
        {
            self.hub.publish(&touched);
        }
    }

    fn announce(&self, announce: Option<&Announce>, target: &Target, result: &Result<Value, kube::Error>) {
        let Some(announce) = announce else { return };
        let regarding = announce.regarding.clone();
        let notice = match result {
            Ok(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or(&target.key.name);
                let related = ObjectReference {
                    kind: Some(target.kind.clone()),
                    namespace: Some(target.key.namespace.clone()),
                    name: Some(name.to_owned()),
                    ..ObjectReference::default()
                };
                let note = format!("{}: {name}", announce.what);
                Notice { regarding, related: Some(related), warning: false, reason: announce.done, note }
            }
            Err(error) if is_terminating(error) || code(error) == Some(404) => return,
            Err(error) => {
                let note = format!("Error: {error}");
                Notice { regarding, related: None, warning: true, reason: announce.failed, note }
            }
        };
        self.notify(notice);
    }

    fn notify(&self, notice: Notice) {
        if let Err(error) = self.events.try_send(notice) {
            tracing::debug!(%error, "an event was dropped: too many are waiting");
        }
    }
}

/// Whether an object cannot be created because its namespace is being deleted. Then nobody misses it.
fn is_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("being terminated"))
}

async fn record(recorder: Recorder, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.into(),
            note: Some(notice.note),
            action: notice.reason.into(),
            secondary: notice.related,
        };
        if let Err(error) = recorder.publish(&event, &notice.regarding).await {
            tracing::debug!(%error, reason = event.reason, "an event was not written");
        }
    }
}
