//! The replica sets of a deployment: which is the new one, what it is called, what it says.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::meta::controller_reference;

/// Tells the pods of one replica set from those of its siblings.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// The position of a replica set in the history.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";

/// The deployment's number of replicas when the replica set was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";

/// The same with its surge.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a deployment that its replica sets do not get.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED,
    MAX,
];

/// Letters that make no words (apimachinery's `rand.SafeEncodeString`).
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The replica set with the deployment's template, the oldest if there are several.
pub(super) fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = comparable(deployment.spec.as_ref().map(|spec| &spec.template));
    let hash = hash(deployment);
    let matches = |set: &&Arc<ReplicaSet>| {
        let labels = set.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(HASH_LABEL)) == Some(&hash)
            || comparable(set.spec.as_ref().and_then(|spec| spec.template.as_ref())) == template
    };
    sets.iter().find(matches).cloned()
}

/// A template without the label that differs by design.
fn comparable(template: Option<&PodTemplateSpec>) -> Value {
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(meta) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        meta.remove("creationTimestamp");
    }
    value
}

/// The hash of the template and of the number of collisions so far; stable over restarts.
pub(super) fn hash(deployment: &Deployment) -> String {
    let template = comparable(deployment.spec.as_ref().map(|spec| &spec.template)).to_string();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    // FNV-1a, 32 bits.
    let mut hash = 0x811c_9dc5_u32;
    for byte in template.bytes().chain(collisions.to_le_bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let digits = hash.to_string();
    digits.bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

/// A new replica set of the deployment.
pub(super) fn build(
    deployment: &Deployment,
    replicas: i32,
    annotations: BTreeMap<String, String>,
) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let hash = hash(deployment);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The annotations of the new replica set: the deployment's, and our own.
pub(super) fn annotations(deployment: &Deployment, revision: i64, surge: i32) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    annotations.insert(REVISION.into(), revision.to_string());
    annotations.extend(scale_annotations(deployment, surge));
    annotations
}

/// How large the deployment was when a replica set was last scaled.
pub(super) fn scale_annotations(deployment: &Deployment, surge: i32) -> [(String, String); 2] {
    let wanted = wanted(deployment);
    [(DESIRED.into(), wanted.to_string()), (MAX.into(), wanted.saturating_add(surge).to_string())]
}

/// The deployment's number of replicas.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// A number in an annotation.
pub(super) fn number<T: std::str::FromStr>(meta: &ObjectMeta, key: &str) -> Option<T> {
    meta.annotations.as_ref()?.get(key)?.parse().ok()
}

/// Replicas that a set should have.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Replicas of a set that are available.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}
