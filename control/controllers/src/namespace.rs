//! Namespaces that are being deleted: first everything in them, then they themselves.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Discovery,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::ApiResource,
    discovery::{Scope, verbs},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Caches, Key, Touched},
    driver::{Hub, Queue},
    meta::is_deleting,
};

/// The finalizer that this controller takes away at the end.
const FINALIZER: &str = "kubernetes";

/// How long to wait before looking again at what is still ending.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The keys of a change: a namespace that is being deleted, or that lost its last pods.
pub fn keys(view: &Caches, touched: &Touched) -> Vec<Key> {
    let key = match touched {
        Touched::Namespace(changed) => Key::of(changed.latest()),
        Touched::Pod(changed) if changed.new.is_none() => {
            Key::new("", changed.latest().metadata.namespace.clone().unwrap_or_default())
        }
        _ => return Vec::new(),
    };
    let namespace = view.namespaces.get(&key);
    namespace.filter(|namespace| is_deleting(&namespace.metadata)).map(|_| key).into_iter().collect()
}

/// Deletes the content of terminating namespaces until the shutdown.
pub async fn run(client: Client, hub: Arc<Hub>, queue: Arc<Queue>, shutdown: CancellationToken) {
    loop {
        let key = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            key = queue.next() => key,
        };
        let Some(namespace) = hub.caches.namespaces.get(&key) else { continue };
        if !is_deleting(&namespace.metadata) || finalizers(&namespace).iter().all(|one| one != FINALIZER) {
            continue;
        }
        match empty(&client, &namespace).await {
            Ok(true) => queue.succeeded(&key),
            Ok(false) => {
                queue.succeeded(&key);
                queue.push_after(key, LOOK_AGAIN);
            }
            Err(error) => {
                let pause = queue.retry(key.clone());
                tracing::warn!(namespace = key.name, %error, ?pause, "cannot delete the namespace yet; trying again");
            }
        }
    }
}

fn finalizers(namespace: &Namespace) -> Vec<String> {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default()
}

/// Deletes what is left; once nothing is, lets the namespace go and returns true.
async fn empty(client: &Client, namespace: &Namespace) -> Result<bool, kube::Error> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut kinds = kinds(client).await?;
    // Pods first: they take longest, and nothing should run without what it mounts.
    kinds.sort_by_key(|kind| kind.plural != "pods");
    let mut left = Vec::new();
    for kind in kinds {
        let count = delete_all(client, name, &kind).await?;
        if count > 0 {
            left.push(format!("{} has {count} resource instances", kind.plural));
        }
    }
    if left.is_empty() {
        finalize(client, namespace).await?;
        tracing::info!(namespace = name, "everything in the namespace is deleted");
        return Ok(true);
    }
    say_what_is_left(client, namespace, &left.join(", ")).await;
    Ok(false)
}

/// Everything that lives in namespaces and can be listed and deleted.
async fn kinds(client: &Client) -> Result<Vec<ApiResource>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let deletable = resources.filter(|(_, caps)| {
        caps.scope == Scope::Namespaced
            && caps.supports_operation(verbs::LIST)
            && caps.supports_operation(verbs::DELETE)
    });
    Ok(deletable.map(|(resource, _)| resource).collect())
}

/// Deletes all objects of a kind; returns how many are still there.
async fn delete_all(client: &Client, namespace: &str, kind: &ApiResource) -> Result<usize, kube::Error> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, kind);
    let list = match api.list_metadata(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => return Ok(0),
        list => list?,
    };
    let mut left = 0;
    for object in list.items {
        let name = object.metadata.name.unwrap_or_default();
        if object.metadata.deletion_timestamp.is_some() {
            left += 1;
            continue;
        }
        match api.delete(&name, &DeleteParams::background()).await {
            // Gone, or going: the next look tells.
            Ok(either) => left += usize::from(either.is_left()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

async fn finalize(client: &Client, namespace: &Namespace) -> Result<(), kube::Error> {
    let api = Api::<Namespace>::all(client.clone());
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut namespace = match api.get_opt(name).await? {
        Some(current) if current.metadata.uid == namespace.metadata.uid => current,
        _ => return Ok(()),
    };
    let finalizers = finalizers(&namespace).into_iter().filter(|one| one != FINALIZER).collect();
    namespace.spec.get_or_insert_default().finalizers = Some(finalizers);
    let body = serde_json::to_vec(&namespace).map_err(kube::Error::SerdeError)?;
    let request = kube::core::Request::new(api.resource_url()).replace_subresource(
        "finalize",
        name,
        &PostParams::default(),
        body,
    );
    match client.request::<serde_json::Value>(request.map_err(kube::Error::BuildRequest)?).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// Upstream's condition for `kubectl describe namespace`. It only informs, so that its failure delays nothing.
async fn say_what_is_left(client: &Client, namespace: &Namespace, left: &str) {
    let message = format!("Some resources are remaining: {left}");
    let mut conditions =
        namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let type_ = "NamespaceContentRemaining";
    if conditions.iter().any(|one| one.type_ == type_ && one.message.as_deref() == Some(&message)) {
        return;
    }
    conditions.retain(|one| one.type_ != type_);
    conditions.push(NamespaceCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some("SomeResourcesRemain".into()),
        message: Some(message),
        last_transition_time: Some(Time(Timestamp::now())),
    });
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    let api = Api::<Namespace>::all(client.clone());
    if let Err(error) = api.patch_status(name, &PatchParams::default(), &patch).await {
        tracing::debug!(namespace = name, %error, "the namespace's condition was not written");
    }
}
