//! Deployments and replica sets.

use serde_json::Value;

use super::{Errors, is_empty, meta, text};
use crate::resource::error::FieldError;
use crate::resource::{names, path};
use crate::selector::LabelSelector;

/// A deployment's selector selects something, and the pods of its template.
pub(super) fn deployment_selector(_: &str, spec: &Value, errors: &mut Errors) {
    selector(spec, "deployment", errors);
}

/// A replica set's selector selects something, and the pods of its template.
pub(super) fn replica_set_selector(_: &str, spec: &Value, errors: &mut Errors) {
    selector(spec, "replicaset", errors);
}

/// A stateful set's selector selects something, and the pods of its template.
pub(super) fn stateful_set_selector(_: &str, spec: &Value, errors: &mut Errors) {
    selector(spec, "statefulset", errors);
}

/// A daemon set's selector selects something, and the pods of its template.
pub(super) fn daemon_set_selector(_: &str, spec: &Value, errors: &mut Errors) {
    selector(spec, "daemonset", errors);
}

/// A job's selector selects something, and the pods of its template.
pub(super) fn job_selector(_: &str, spec: &Value, errors: &mut Errors) {
    selector(spec, "job", errors);
}

/// A replication controller's selector, a mere map, selects the pods of its template.
pub(super) fn replication_controller_selector(_: &str, spec: &Value, errors: &mut Errors) {
    let Some(wanted) = path::get(spec, "selector").and_then(Value::as_object).filter(|map| !map.is_empty())
    else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    let labels = path::get(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    if wanted.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
    }
}

/// Pods of a stateful set are made one after the other, or all at once.
pub(super) fn pod_management(at: &str, policy: &Value, errors: &mut Errors) {
    if !matches!(policy.as_str(), Some("OrderedReady" | "Parallel" | "")) {
        errors.push(FieldError::invalid(at, policy, "must be 'OrderedReady' or 'Parallel'"));
    }
}

/// Pods of a stateful set are replaced one by one, or by whoever deletes them.
pub(super) fn stateful_strategy(at: &str, strategy: &Value, errors: &mut Errors) {
    if !matches!(strategy.as_str(), Some("RollingUpdate" | "OnDelete" | "")) {
        errors.push(FieldError::invalid(at, strategy, "must be 'RollingUpdate' or 'OnDelete'"));
    }
}

/// What of a stateful set's spec may change.
const STATEFUL_SET_MUTABLE: &[&str] = &[
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "revisionHistoryLimit",
    "template",
    "updateStrategy",
];

/// A stateful set keeps its name, its selector and its claims.
pub(super) fn stateful_set_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    let kept = |set: &Value| {
        let mut spec = set.get("spec").cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|field, _| !STATEFUL_SET_MUTABLE.contains(&field.as_str()));
        }
        spec
    };
    if kept(new) != kept(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

/// A daemon is replaced by stopping the old pod first, or by starting the new one first.
pub(super) fn daemon_strategy(at: &str, strategy: &Value, errors: &mut Errors) {
    let Some(rolling) = path::get(strategy, "rollingUpdate") else { return };
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    share(&format!("{at}.rollingUpdate.maxUnavailable"), unavailable, errors);
    share(&format!("{at}.rollingUpdate.maxSurge"), surge, errors);
    match (is_zero(unavailable), is_zero(surge)) {
        (true, true) => {
            let detail = "cannot be 0 when `maxSurge` is 0";
            let field = format!("{at}.rollingUpdate.maxUnavailable");
            errors.push(FieldError::invalid(field, unavailable.unwrap_or(&Value::Null), detail));
        }
        (false, false) => {
            let detail = "may not be set when `maxUnavailable` is non-zero";
            let field = format!("{at}.rollingUpdate.maxSurge");
            errors.push(FieldError::invalid(field, surge.unwrap_or(&Value::Null), detail));
        }
        _ => {}
    }
}

fn selector(spec: &Value, kind: &str, errors: &mut Errors) {
    let Some(found) = path::get(spec, "selector") else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    let parts = ["matchLabels", "matchExpressions"];
    if parts.iter().all(|part| path::get(found, part).is_none_or(is_empty)) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid("spec.selector", found, &detail));
        return;
    }
    let before = errors.len();
    label_selector("spec.selector", found, errors);
    let Ok(parsed) = LabelSelector::from_json(found) else { return };
    let labels = path::get(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    if errors.len() == before && !parsed.matches_labels(labels) {
        let shown = if labels.is_null() { Value::Object(serde_json::Map::new()) } else { labels.clone() };
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", &shown, detail));
    }
}

/// A `LabelSelector`: the keys, the operators, and as many values as they want.
pub(super) fn label_selector(at: &str, selector: &Value, errors: &mut Errors) {
    if let Some(labels) = selector.get("matchLabels") {
        meta::labels(&format!("{at}.matchLabels"), labels, errors);
    }
    for (index, expression) in super::items(selector, "matchExpressions") {
        let here = format!("{at}.matchExpressions[{index}]");
        let values = super::items(expression, "values").count();
        match text(expression, "operator") {
            "In" | "NotIn" if values == 0 => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{here}.values"), detail));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{here}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{here}.operator"), &Value::from(other), detail));
            }
        }
        let key = text(expression, "key");
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid(format!("{here}.key"), &Value::from(key), &problem));
        }
    }
}

/// Pods of a replica set are restarted, always.
pub(super) fn template_restart_policy(at: &str, policy: &Value, errors: &mut Errors) {
    if policy != "Always" {
        errors.push(FieldError::not_supported(at, policy, &["Always"]));
    }
}

/// The progress deadline leaves time for pods to become available.
pub(super) fn progress_deadline(_: &str, spec: &Value, errors: &mut Errors) {
    let number = |field| path::get(spec, field).and_then(Value::as_i64);
    if let Some(deadline) = number("progressDeadlineSeconds")
        && deadline <= number("minReadySeconds").unwrap_or_default()
    {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &Value::from(deadline), detail));
    }
}

/// A rolling update can make progress; recreating has no parameters.
pub(super) fn strategy(at: &str, strategy: &Value, errors: &mut Errors) {
    let here = format!("{at}.rollingUpdate");
    let rolling = path::get(strategy, "rollingUpdate");
    match (text(strategy, "type"), rolling) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(here, detail));
        }
        ("RollingUpdate", Some(rolling)) => {
            for field in ["maxUnavailable", "maxSurge"] {
                share(&format!("{here}.{field}"), rolling.get(field), errors);
            }
            if is_zero(rolling.get("maxUnavailable")) && is_zero(rolling.get("maxSurge")) {
                let value = rolling.get("maxUnavailable").unwrap_or(&Value::Null);
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(format!("{here}.maxUnavailable"), value, detail));
            }
        }
        _ => {}
    }
}

/// A number that is not negative, or a percentage.
pub(super) fn share(at: &str, value: Option<&Value>, errors: &mut Errors) {
    match value {
        Some(Value::String(text)) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if !valid {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(at, &Value::from(text.as_str()), detail));
            } else if at.ends_with("maxUnavailable") && digits.parse().is_ok_and(|percent: u32| percent > 100)
            {
                errors.push(FieldError::invalid(
                    at,
                    &Value::from(text.as_str()),
                    "must not be greater than 100%",
                ));
            }
        }
        Some(value) if value.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(at, value, "must be greater than or equal to 0"));
        }
        _ => {}
    }
}

fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => text.strip_suffix('%').is_some_and(|digits| digits.parse() == Ok(0)),
        Some(value) => value.as_i64() == Some(0),
        None => true,
    }
}
