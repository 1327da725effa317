//! Quotas, limits, budgets, autoscalers, volumes and claims.

use serde_json::{Value, json};

use super::{Errors, is_empty, items, text};
use crate::resource::error::FieldError;
use crate::resource::{names, path, quantity};

/// What a quota may bound, besides `count/RESOURCE`, extended resources and what is of a storage class.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// What a quota bounds can be bounded.
pub(super) fn hard(at: &str, hard: &Value, errors: &mut Errors) {
    for name in hard.as_object().into_iter().flat_map(serde_json::Map::keys) {
        let shown = Value::from(name.as_str());
        for problem in names::qualified_name(name) {
            errors.push(FieldError::invalid(format!("{at}[{name}]"), &shown, &problem));
        }
        let prefixed = ["requests.hugepages-", "limits.hugepages-", "hugepages-"];
        let known = STANDARD.contains(&name.as_str()) || prefixed.iter().any(|start| name.starts_with(start));
        if !name.contains('/') && !known {
            let detail = "must be a standard resource for quota";
            errors.push(FieldError::invalid(format!("{at}[{name}]"), &shown, detail));
        }
    }
}

/// Scopes that there are, and that fit together.
pub(super) fn scopes(at: &str, scopes: &Value, errors: &mut Errors) {
    let given: Vec<&str> = scopes.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for scope in given.iter().filter(|scope| !SCOPES.contains(scope)) {
        errors.push(FieldError::invalid(at, &json!(given), &format!("unsupported scope: {scope}")));
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| given.contains(scope)) {
            errors.push(FieldError::invalid(at, &json!(given), "conflicting scopes"));
        }
    }
}

/// The least is not above the greatest, and the defaults are between.
pub(super) fn limits(at: &str, limits: &Value, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, item) in items(&json!({ "limits": limits }), "limits") {
        let here = format!("{at}[{index}]");
        let kind = text(item, "type").to_owned();
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{here}.type"), ""));
        } else if seen.contains(&kind) {
            errors.push(FieldError::duplicate(format!("{here}.type"), &json!(kind)));
        }
        if kind == "Pod" {
            for field in ["default", "defaultRequest"] {
                if item.get(field).is_some_and(|value| !is_empty(value)) {
                    let detail = "may not be specified when `type` is 'Pod'";
                    errors.push(FieldError::forbidden(format!("{here}.{field}"), detail));
                }
            }
        }
        if kind == "PersistentVolumeClaim" {
            let has = |field| item.get(field).is_some_and(|map| map.get("storage").is_some());
            if !has("min") && !has("max") {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(FieldError::required(format!("{here}.limits"), detail));
            }
        }
        bounds(&here, item, errors);
        seen.push(kind);
    }
}

/// `(lower, its words, upper, its words)`: the first may not be greater than the second.
const BOUNDS: &[(&str, &str, &str, &str)] = &[
    ("min", "min value", "max", "max value"),
    ("min", "min value", "defaultRequest", "default request value"),
    ("min", "min value", "default", "default value"),
    ("defaultRequest", "default request value", "max", "max value"),
    ("defaultRequest", "default request value", "default", "default limit value"),
    ("default", "default value", "max", "max value"),
];

fn bounds(at: &str, item: &Value, errors: &mut Errors) {
    for field in ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for (name, value) in item.get(field).and_then(Value::as_object).into_iter().flatten() {
            if quantity::parse(value).is_none() {
                let detail = "must be a quantity such as 100m or 1Gi";
                errors.push(FieldError::invalid(format!("{at}.{field}[{name}]"), value, detail));
            }
        }
    }
    for (lower, lower_words, upper, upper_words) in BOUNDS {
        for (name, low) in item.get(*lower).and_then(Value::as_object).into_iter().flatten() {
            let Some(high) = item.get(*upper).and_then(|map| map.get(name)) else { continue };
            let (Some(a), Some(b)) = (quantity::parse(low), quantity::parse(high)) else { continue };
            if a > b {
                let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let detail =
                    format!("{lower_words} {} is greater than {upper_words} {}", shown(low), shown(high));
                errors.push(FieldError::invalid(format!("{at}.{lower}[{name}]"), low, &detail));
            }
        }
    }
}

/// A budget bounds what is available or what is not, as a number or a percentage.
pub(super) fn budget(at: &str, spec: &Value, errors: &mut Errors) {
    let given = ["minAvailable", "maxUnavailable"].map(|field| path::get(spec, field));
    if given.iter().all(Option::is_some) {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(at, spec, detail));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        super::apps::share(&format!("{at}.{field}"), path::get(spec, field), errors);
    }
}

/// The fewest replicas are not more than the most.
pub(super) fn replica_bounds(at: &str, spec: &Value, errors: &mut Errors) {
    let number = |field| spec.get(field).and_then(Value::as_i64);
    let (min, max) = (number("minReplicas"), number("maxReplicas").unwrap_or_default());
    if let Some(min) = min.filter(|min| *min < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(path::join(at, "minReplicas"), &json!(min), detail));
    }
    if max < 1 {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(path::join(at, "maxReplicas"), &json!(max), detail));
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(path::join(at, "maxReplicas"), &json!(max), detail));
    }
}

/// A metric says where it comes from, and one target.
pub(super) fn metric(at: &str, metric: &Value, errors: &mut Errors) {
    let source = match text(metric, "type") {
        "Resource" => "resource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => return,
    };
    let Some(given) = path::get(metric, source) else {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(format!("{at}.{source}"), detail));
        return;
    };
    let targets = ["averageUtilization", "averageValue", "value"];
    let set = targets.iter().filter(|field| path::get(given, &format!("target.{field}")).is_some()).count();
    if set == 0 {
        let detail = "must set either a target raw value or a target utilization";
        errors.push(FieldError::required(format!("{at}.{source}.target"), detail));
    }
    if let Some(share) = path::get(given, "target.averageUtilization").and_then(Value::as_i64)
        && share < 1
    {
        let field = format!("{at}.{source}.target.averageUtilization");
        errors.push(FieldError::invalid(field, &json!(share), "must be greater than 0"));
    }
}

/// The window and the policies of a direction.
pub(super) fn scaling_rules(at: &str, rules: &Value, errors: &mut Errors) {
    if let Some(window) = rules.get("stabilizationWindowSeconds").and_then(Value::as_i64)
        && !(0..=3600).contains(&window)
    {
        let detail = if window < 0 {
            "must be greater than or equal to zero"
        } else {
            "must be less than or equal to 3600"
        };
        errors.push(FieldError::invalid(format!("{at}.stabilizationWindowSeconds"), &json!(window), detail));
    }
    for (index, policy) in items(rules, "policies") {
        let here = format!("{at}.policies[{index}]");
        let number = |field| policy.get(field).and_then(Value::as_i64).unwrap_or_default();
        let (kind, value, period) = (text(policy, "type"), number("value"), number("periodSeconds"));
        if !matches!(kind, "Pods" | "Percent") {
            let kinds = ["Pods", "Percent"];
            errors.push(FieldError::not_supported(format!("{here}.type"), &json!(kind), &kinds));
        }
        if value <= 0 {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(format!("{here}.value"), &json!(value), detail));
        }
        if period <= 0 {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(format!("{here}.periodSeconds"), &json!(period), detail));
        } else if period > 1800 {
            let detail = "must be less than or equal to 1800";
            errors.push(FieldError::invalid(format!("{here}.periodSeconds"), &json!(period), detail));
        }
    }
}

/// What of a volume's spec is not where its data is.
const NOT_A_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// A volume is in one place.
pub(super) fn volume(at: &str, spec: &Value, errors: &mut Errors) {
    let fields = spec.as_object().into_iter().flatten();
    let mut sources =
        fields.filter(|(name, value)| !NOT_A_SOURCE.contains(&name.as_str()) && !value.is_null());
    if sources.next().is_none() {
        errors.push(FieldError::required(at, "must specify a volume type"));
    }
    for (name, _) in sources {
        let detail = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("{at}.{name}"), detail));
    }
    if let Some(capacity) = spec.get("capacity")
        && !is_empty(capacity)
        && capacity.get("storage").is_none()
    {
        errors.push(FieldError::not_supported(format!("{at}.capacity"), capacity, &["storage"]));
    }
}

/// A claim asks for space.
pub(super) fn claim(at: &str, spec: &Value, errors: &mut Errors) {
    let field = path::join(at, "resources[storage]");
    match path::get(spec, "resources.requests.storage") {
        None => errors.push(FieldError::required(field, "")),
        Some(amount) if quantity::parse(amount).is_some_and(|amount| amount <= 0) => {
            errors.push(FieldError::invalid(field, amount, "must be greater than zero"));
        }
        Some(_) => {}
    }
}

/// A claim stays as it is, but that it may grow, be bound, and get other attributes.
pub(super) fn claim_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    let bare = |claim: &Value| {
        let mut spec = claim.get("spec").cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            ["resources", "volumeAttributesClassName", "volumeName"]
                .iter()
                .for_each(|field| drop(fields.remove(*field)));
            if fields.get("storageClassName").is_none_or(Value::is_null) {
                fields.remove("storageClassName");
            }
        }
        spec
    };
    let rebound = !text(old, "spec.volumeName").is_empty()
        && text(new, "spec.volumeName") != text(old, "spec.volumeName");
    if bare(new) != bare(old) || rebound {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let storage = |claim| path::get(claim, "spec.resources.requests.storage").and_then(quantity::parse);
    if let (Some(now), Some(before)) = (storage(new), storage(old))
        && now < before
    {
        let detail = "field can not be less than previous value";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
}
