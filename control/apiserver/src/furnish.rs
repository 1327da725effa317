//! What every namespace has: the service account `default`, and what its pods trust the server by.
//!
//! Both are written in the transaction that makes the namespace, so there is never one without them. What a user removes
//! comes back with the next look at all namespaces.

use std::sync::Arc;
use std::time::Duration;

use fairlead_store::{ListRequest, StoreError, Write};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, key, prefix};
use crate::error::{ApiError, chain_of};
use crate::object;
use crate::resource::{Resource, find};

const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why the namespaces cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FurnishError {
    /// The store does not answer.
    #[error("cannot read the stored namespaces")]
    Store(#[from] StoreError),
    /// A stored object cannot be read.
    #[error("cannot read the stored namespaces: {0}")]
    Damaged(String),
}

/// What a new object brings with it.
pub(crate) async fn companions(
    api: &Api,
    resource: &Resource,
    object: &Value,
) -> Result<Vec<Write>, StoreError> {
    if !resource.group.is_empty() || resource.plural != "namespaces" {
        return Ok(Vec::new());
    }
    missing(api, object::meta(object, "name")).await
}

/// Looks after all namespaces until `shutdown`.
pub(crate) async fn run(api: Arc<Api>, shutdown: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        if let Err(error) = all(&api).await {
            tracing::warn!(error = chain_of(&error), "cannot look after the namespaces");
        }
    }
}

/// Gives every namespace what it lacks.
pub(crate) async fn all(api: &Api) -> Result<(), FurnishError> {
    let namespaces = find("", "v1", "namespaces").expect("namespaces are in the table of kinds");
    for entry in api.store.list(ListRequest::prefix(prefix(namespaces, None))).await?.entries {
        let namespace = object::decode(namespaces, &entry.value, entry.mod_revision)
            .map_err(|error: ApiError| FurnishError::Damaged(error.to_string()))?;
        if object::is_terminating(&namespace) {
            continue;
        }
        for write in missing(api, object::meta(&namespace, "name")).await? {
            match api.store.transact(vec![write]).await {
                // Another server does the same.
                Ok(_) | Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn missing(api: &Api, namespace: &str) -> Result<Vec<Write>, StoreError> {
    let trust = json!({ "data": { "ca.crt": api.root_ca } });
    let rows = [("serviceaccounts", "default", json!({})), ("configmaps", "kube-root-ca.crt", trust)];
    let mut writes = Vec::new();
    for (plural, name, content) in rows {
        let resource = find("", "v1", plural).expect("the kind is in the table of kinds");
        let key = key(resource, Some(namespace), name);
        if api.store.get(&key).await?.is_none() {
            let value = object::encode(resource, &furniture(resource, namespace, name, content));
            writes.push(Write::Create { key, value });
        }
    }
    Ok(writes)
}

fn furniture(resource: &Resource, namespace: &str, name: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    object["metadata"] = json!({
        "name": name,
        "namespace": namespace,
        "uid": uuid::Uuid::new_v4().to_string(),
        "creationTimestamp": object::time(Timestamp::now()),
    });
    if resource.plural == "configmaps" {
        object["metadata"]["annotations"] = json!({
            "kubernetes.io/description": "The authority by which the API server is recognized. It is made anew when it is \
                                          removed."
        });
    }
    object
}
