//! What a write may carry: the server's own fields, and the split between the object and its status.

use serde_json::{Value, json};

use super::{Resource, default, path, text};

mod qos;

/// What happens to status when an object is created.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StatusOnCreate {
    /// It is kept, as for a node that registers itself.
    Keep,
    /// It starts as this.
    Start(fn(&Value) -> Value),
}

/// Most begin with nothing to tell.
pub(crate) fn empty_status(_: &Value) -> Value {
    json!({})
}

/// A replica set begins with no replicas, which upstream always tells.
pub(crate) fn replica_set_status(_: &Value) -> Value {
    json!({ "replicas": 0 })
}

/// A daemon set begins with four counts, which generated clients require.
pub(crate) fn daemon_set_status(_: &Value) -> Value {
    json!({
        "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
    })
}

/// A stateful set begins with no replicas.
pub(crate) fn stateful_set_status(_: &Value) -> Value {
    json!({ "replicas": 0, "availableReplicas": 0 })
}

/// An autoscaler wants nothing until it has measured.
pub(crate) fn autoscaler_status(_: &Value) -> Value {
    json!({ "desiredReplicas": 0 })
}

/// The same in the older version, which also always tells how many there are.
pub(crate) fn old_autoscaler_status(_: &Value) -> Value {
    json!({ "currentReplicas": 0, "desiredReplicas": 0 })
}

/// A budget allows no disruption until its pods have been counted.
pub(crate) fn disruption_budget_status(_: &Value) -> Value {
    json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 })
}

/// A volume and a claim begin unbound.
pub(crate) fn pending_status(_: &Value) -> Value {
    json!({ "phase": "Pending" })
}

/// A volume begins unattached.
pub(crate) fn attachment_status(_: &Value) -> Value {
    json!({ "attached": false })
}

/// A service begins without a load balancer, which upstream always tells.
pub(crate) fn service_status(_: &Value) -> Value {
    json!({ "loadBalancer": {} })
}

/// A pod begins pending, with the quality of service that its resources say.
pub(crate) fn pod_status(pod: &Value) -> Value {
    json!({ "phase": "Pending", "qosClass": qos::class(pod) })
}

/// The quality of service of a pod: `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn pod_quality(pod: &Value) -> &'static str {
    qos::class(pod)
}

/// A namespace begins active.
pub(crate) fn namespace_status(_: &Value) -> Value {
    json!({ "phase": "Active" })
}

/// Makes the object fit to be created: with its defaults, the status the kind begins with, generation 1, and for
/// namespaces the finalizer. The object must have passed the type check.
pub fn prepare_for_create(resource: &Resource, object: &mut Value) {
    default(resource, object);
    if resource.has_status {
        match resource.strategy.status_on_create {
            StatusOnCreate::Keep => {}
            StatusOnCreate::Start(status) => object["status"] = status(object),
        }
    }
    if resource.has_generation {
        object["metadata"]["generation"] = json!(1);
    } else if let Some(metadata) = object.get_mut("metadata") {
        remove(metadata, "generation");
    }
    if resource.subresources.contains(&"finalize") {
        add_finalizer(object);
    }
}

/// Makes the object fit to replace `old`: what the writer may not touch is taken from `old`, and the generation moves
/// if the desired state did. `subresource` is the one written through, if any. The object gets its defaults, and must
/// have passed the type check.
pub fn prepare_for_update(resource: &Resource, new: &mut Value, old: &Value, subresource: Option<&str>) {
    default(resource, new);
    match subresource {
        Some("status") => {
            keep_all_but_status(new, old);
            keep(&mut new["metadata"], &old["metadata"], "ownerReferences");
            if resource.group == "apps" {
                keep(&mut new["metadata"], &old["metadata"], "labels");
            }
            if resource.subresources.contains(&"approval") {
                keep_decisions(new, old);
            }
        }
        Some("approval") => {
            let conditions = new.pointer("/status/conditions").cloned();
            let metadata = new["metadata"].clone();
            *new = old.clone();
            new["metadata"] = metadata;
            if let Some(conditions) = conditions {
                new["status"]["conditions"] = conditions;
            }
        }
        Some("ephemeralcontainers") => {
            let containers = new.pointer("/spec/ephemeralContainers").cloned();
            keep_all_but_metadata(new, old);
            match containers {
                Some(containers) => new["spec"]["ephemeralContainers"] = containers,
                None => remove(&mut new["spec"], "ephemeralContainers"),
            }
        }
        Some("resize") => {
            let sizes = ["containers", "initContainers"].map(|list| new["spec"][list].clone());
            keep_all_but_metadata(new, old);
            for (list, sizes) in ["containers", "initContainers"].iter().zip(sizes) {
                let containers = new["spec"].get_mut(list).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    let same = |one: &&Value| one["name"] == container["name"];
                    if let Some(sized) = sizes.as_array().into_iter().flatten().find(same) {
                        let sized = sized.clone();
                        keep(container, &sized, "resources");
                        keep(container, &sized, "resizePolicy");
                    }
                }
            }
        }
        Some("finalize") => {
            let finalizers = new.pointer("/spec/finalizers").cloned();
            *new = old.clone();
            match finalizers {
                Some(finalizers) => new["spec"]["finalizers"] = finalizers,
                None => remove(&mut new["spec"], "finalizers"),
            }
        }
        _ => {
            if resource.has_status {
                keep(new, old, "status");
            }
            if resource.subresources.contains(&"finalize") {
                keep(&mut new["spec"], &old["spec"], "finalizers");
            }
        }
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        if field == "uid" && !text(new, "/metadata/uid").is_empty() {
            continue;
        }
        keep(&mut new["metadata"], &old["metadata"], field);
    }
    if resource.has_generation && desired(resource, new) != desired(resource, old) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
        new["metadata"]["generation"] = json!(generation + 1);
    }
}

fn desired<'v>(resource: &Resource, object: &'v Value) -> Vec<Option<&'v Value>> {
    resource.strategy.generation_of.iter().map(|place| path::get(object, place)).collect()
}

fn keep_all_but_status(new: &mut Value, old: &Value) {
    let (Some(written), Some(stored)) = (new.as_object_mut(), old.as_object()) else { return };
    let metadata = written.remove("metadata");
    let status = written.remove("status");
    written.clone_from(stored);
    written.remove("status");
    written.extend(metadata.map(|metadata| ("metadata".to_owned(), metadata)));
    written.extend(status.map(|status| ("status".to_owned(), status)));
}

fn keep_all_but_metadata(new: &mut Value, old: &Value) {
    let metadata = new["metadata"].clone();
    new.clone_from(old);
    new["metadata"] = metadata;
}

/// Whether a certificate is approved is decided through a subresource of its own.
fn keep_decisions(new: &mut Value, old: &Value) {
    let is_decision = |condition: &Value| condition["type"] == "Approved" || condition["type"] == "Denied";
    let conditions = |of: &Value| of["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut kept: Vec<Value> = conditions(old).into_iter().filter(is_decision).collect();
    kept.extend(conditions(new).into_iter().filter(|condition| !is_decision(condition)));
    if !kept.is_empty() || new["status"]["conditions"].is_array() {
        new["status"]["conditions"] = Value::Array(kept);
    }
}

/// Gives `field` of `new` the value it has in `old`, also if it has none there.
fn keep(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => remove(new, field),
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

fn add_finalizer(object: &mut Value) {
    if object.pointer("/spec/finalizers").is_none() {
        object["spec"]["finalizers"] = json!([]);
    }
    let finalizers = object.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut);
    if let Some(finalizers) = finalizers.filter(|all| !all.iter().any(|one| one == "kubernetes")) {
        finalizers.push(json!("kubernetes"));
    }
}

#[cfg(test)]
mod tests;
