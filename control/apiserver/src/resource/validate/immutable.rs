//! What an update may not change.

use serde_json::{Map, Value};

use super::{Errors, is_empty, text};
use crate::resource::error::FieldError;
use crate::resource::path;

/// One thing that an update may not change.
#[derive(Debug)]
pub(crate) enum Immutable {
    /// The field at this path, ever.
    Field(&'static str),
    /// The field at this path, ever; the text says so.
    Said(&'static str, &'static str),
    /// The field at this path, once it is set; the text says so.
    OnceSet(&'static str, &'static str),
    /// These fields, once the object's `immutable` is true.
    OnceFrozen(&'static [&'static str]),
    /// Anything else.
    With(fn(&Value, &Value, &mut Errors)),
}

/// What a pod's update may change of each container.
const CONTAINER_MUTABLE: &[&str] = &["image"];

impl Immutable {
    pub(super) fn check(&self, new: &Value, old: &Value, errors: &mut Errors) {
        match self {
            Self::Field(at) => {
                let (now, before) = (path::get(new, at), path::get(old, at));
                if now != before {
                    errors.push(FieldError::invalid(*at, now.unwrap_or(&Value::Null), "field is immutable"));
                }
            }
            Self::Said(at, detail) => {
                if path::get(new, at) != path::get(old, at) {
                    errors.push(FieldError::forbidden(*at, detail));
                }
            }
            Self::OnceSet(at, detail) => {
                let (now, before) = (path::get(new, at), path::get(old, at));
                if now != before && before.is_some_and(|before| !is_empty(before)) {
                    errors.push(FieldError::invalid(*at, now.unwrap_or(&Value::from("")), detail));
                }
            }
            Self::OnceFrozen(fields) => {
                if old.get("immutable") == Some(&Value::Bool(true)) {
                    for field in fields.iter().filter(|field| path::get(new, field) != path::get(old, field))
                    {
                        let detail = "field is immutable when `immutable` is set";
                        errors.push(FieldError::forbidden(*field, detail));
                    }
                }
            }
            Self::With(check) => check(new, old, errors),
        }
    }
}

/// A service keeps its address, unless it comes from or becomes a mere alias.
pub(super) fn cluster_ip(new: &Value, old: &Value, errors: &mut Errors) {
    let alias = |service| text(service, "spec.type") == "ExternalName";
    if !alias(new) && !alias(old) {
        Immutable::OnceSet("spec.clusterIP", "may not change once set").check(new, old, errors);
    }
}

/// A pod's spec stays as it is, but for the few fields that may change.
pub(super) fn pod_spec(new: &Value, old: &Value, errors: &mut Errors) {
    let empty = Map::new();
    let spec = |pod: &Value| pod.get("spec").and_then(Value::as_object).unwrap_or(&empty).clone();
    let (mut now, mut before) = (spec(new), spec(old));
    if !additions_only(before.get("tolerations"), now.get("tolerations")) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    let deadline = |spec: &Map<String, Value>| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (deadline(&before), deadline(&now)) {
        (Some(was), Some(is)) if is > was => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &Value::from(is), detail));
        }
        (Some(was), None) => {
            let detail = format!("must not update from a positive integer to nil value; it was {was}");
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &Value::Null, &detail));
        }
        _ => {}
    }
    if before.get("nodeName").is_none_or(is_empty) {
        // The binding sets it, once.
        before.remove("nodeName");
        now.remove("nodeName");
    }
    let grace = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(&before).is_some_and(|seconds| seconds < 0) && grace(&now) == Some(1) {
        before.remove("terminationGracePeriodSeconds");
        now.remove("terminationGracePeriodSeconds");
    }
    if gates_removed(before.get("schedulingGates"), now.get("schedulingGates")) {
        before.remove("schedulingGates");
        now.remove("schedulingGates");
    }
    for spec in [&mut before, &mut now] {
        spec.remove("tolerations");
        spec.remove("activeDeadlineSeconds");
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter_map(Value::as_object_mut) {
                CONTAINER_MUTABLE.iter().for_each(|field| drop(container.remove(*field)));
            }
        }
    }
    if now != before {
        let mut changed: Vec<&str> = now
            .keys()
            .chain(before.keys())
            .filter(|key| now.get(*key) != before.get(*key))
            .map(String::as_str)
            .collect();
        changed.sort_unstable();
        changed.dedup();
        let detail = format!(
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n\
             changed: spec.{}",
            changed.join(", spec.")
        );
        errors.push(FieldError::forbidden("spec", &detail));
    }
}

fn additions_only(before: Option<&Value>, now: Option<&Value>) -> bool {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let but_seconds = |mut toleration: Value| {
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let now: Vec<Value> = list(now).into_iter().map(but_seconds).collect();
    list(before).into_iter().map(but_seconds).all(|toleration| now.contains(&toleration))
}

fn gates_removed(before: Option<&Value>, now: Option<&Value>) -> bool {
    let empty = Vec::new();
    let before = before.and_then(Value::as_array).unwrap_or(&empty);
    now.and_then(Value::as_array).unwrap_or(&empty).iter().all(|gate| before.contains(gate))
}
