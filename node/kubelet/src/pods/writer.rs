//! Writes a pod's status to the API, the newest one when several came meanwhile.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Writes every change until the sender is dropped and the last one is written, or the pod is gone. `written` is what
/// the API has.
pub(crate) async fn write(
    api: Api<Pod>,
    name: String,
    uid: String,
    mut written: PodStatus,
    mut statuses: watch::Receiver<PodStatus>,
) {
    let mut retry = RETRY_FIRST;
    loop {
        let wanted = statuses.borrow_and_update().clone();
        if wanted != written {
            let patch = json!({ "metadata": { "uid": uid }, "status": difference(&written, &wanted) });
            match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    written = wanted;
                    retry = RETRY_FIRST;
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    tracing::debug!(name, "the pod is gone; its status is not needed any more");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, name, "pod status not written; trying again");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                    continue;
                }
            }
        }
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

/// A merge patch of the fields that changed; a field that went away is null.
fn difference(old: &PodStatus, new: &PodStatus) -> Value {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    gone.chain(changed.map(|(key, value)| (key.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_written() {
        let old = PodStatus {
            phase: Some("Pending".into()),
            pod_ip: Some("1.1.1.1".into()),
            ..PodStatus::default()
        };
        let new = PodStatus { phase: Some("Running".into()), reason: None, ..PodStatus::default() };
        assert_eq!(difference(&old, &new), json!({ "phase": "Running", "podIP": null }));
        assert_eq!(difference(&new, &new), json!({}));
    }
}
