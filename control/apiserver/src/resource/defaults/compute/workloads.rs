//! The computed defaults of workloads, quotas and policies.

use serde_json::{Map, Value, json};

use super::{Fields, quantities_as_text};

/// A replication controller selects the pods that it makes.
pub(in crate::resource::defaults) fn selector_from_template(spec: &Fields) -> Option<Value> {
    spec.get("template")?.pointer("/metadata/labels").filter(|labels| labels.is_object()).cloned()
}

/// An object without labels is found by those of its pods.
pub(in crate::resource::defaults) fn labels_from_template(object: &Fields) -> Option<Value> {
    let mut metadata = object.get("metadata")?.as_object()?.clone();
    let labels = object.get("spec")?.pointer("/template/metadata/labels")?.as_object()?;
    let unlabelled = metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty);
    // The labels that a job's selector adds are not the writer's.
    let own = |(key, _): &(&String, &Value)| !JOB_LABELS.iter().any(|(label, _)| label == key);
    let labels: Map<String, Value> =
        labels.iter().filter(own).map(|(key, value)| (key.clone(), value.clone())).collect();
    if !unlabelled || labels.is_empty() {
        return None;
    }
    metadata.insert("labels".to_owned(), Value::Object(labels));
    Some(Value::Object(metadata))
}

/// The labels of a job's pods, and what of the job's metadata they hold.
const JOB_LABELS: &[(&str, &str)] = &[
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
    // The names of old.
    ("controller-uid", "uid"),
    ("job-name", "name"),
];

/// A job selects its own pods, by labels that they get for that.
pub(in crate::resource::defaults) fn job_selector(job: &Fields) -> Option<Value> {
    let metadata = job.get("metadata")?;
    let mut spec = job.get("spec")?.as_object()?.clone();
    let manual = spec.get("manualSelector") == Some(&Value::Bool(true));
    let selected = spec.get("selector").is_some_and(|selector| !selector.is_null());
    let known = ["uid", "name"].iter().all(|field| metadata[field].is_string());
    if manual || selected || !known {
        return None;
    }
    let template = spec.get_mut("template")?.as_object_mut()?;
    let template_metadata = template.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    let labels = template_metadata.entry("labels").or_insert_with(|| json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    for (label, field) in JOB_LABELS {
        labels[label] = metadata[field].clone();
    }
    let (label, field) = JOB_LABELS[0];
    spec.insert("selector".to_owned(), json!({ "matchLabels": { label: metadata[field] } }));
    Some(Value::Object(spec))
}

/// A job of which nothing is said wants one pod to succeed.
pub(in crate::resource::defaults) fn completions(spec: &Fields) -> Option<Value> {
    spec.get("parallelism").is_none_or(Value::is_null).then(|| json!(1))
}

/// With a limit for each index there is none for all.
pub(in crate::resource::defaults) fn backoff_limit(spec: &Fields) -> Option<Value> {
    let per_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
    Some(json!(if per_index { i32::MAX } else { 6 }))
}

/// A job that looks at failures waits for them.
pub(in crate::resource::defaults) fn pod_replacement_policy(spec: &Fields) -> Option<Value> {
    let looks = spec.get("podFailurePolicy").is_some_and(|policy| !policy.is_null());
    Some(json!(if looks { "Failed" } else { "TerminatingOrFailed" }))
}

/// Autoscaling is by CPU unless something else is said.
pub(in crate::resource::defaults) fn metrics(_: &Fields) -> Option<Value> {
    Some(json!([{
        "type": "Resource",
        "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } },
    }]))
}

/// At most four pods, or as many again as there are, in 15 seconds.
pub(in crate::resource::defaults) fn scale_up(behavior: &Fields) -> Option<Value> {
    let policies = json!([
        { "type": "Pods", "value": 4, "periodSeconds": 15 },
        { "type": "Percent", "value": 100, "periodSeconds": 15 },
    ]);
    let mut rules = scaling_rules(behavior.get("scaleUp"), policies);
    if rules.get("stabilizationWindowSeconds").is_none_or(Value::is_null) {
        rules.insert("stabilizationWindowSeconds".to_owned(), json!(0));
    }
    Some(Value::Object(rules))
}

/// All pods in 15 seconds, but not before the metrics are stable.
pub(in crate::resource::defaults) fn scale_down(behavior: &Fields) -> Option<Value> {
    let policies = json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]);
    Some(Value::Object(scaling_rules(behavior.get("scaleDown"), policies)))
}

fn scaling_rules(given: Option<&Value>, policies: Value) -> Map<String, Value> {
    let mut rules = given.and_then(Value::as_object).cloned().unwrap_or_default();
    for (field, value) in [("selectPolicy", json!("Max")), ("policies", policies)] {
        if rules.get(field).is_none_or(Value::is_null) {
            rules.insert(field.to_owned(), value);
        }
    }
    rules
}

/// Quantities written as numbers are stored as text.
pub(in crate::resource::defaults) fn hard_as_text(spec: &Fields) -> Option<Value> {
    quantities_as_text(spec.get("hard")?)
}

/// Quantities written as numbers are stored as text.
pub(in crate::resource::defaults) fn capacity_as_text(spec: &Fields) -> Option<Value> {
    quantities_as_text(spec.get("capacity")?)
}

fn is_of_containers(item: &Fields) -> bool {
    item.get("type").is_some_and(|kind| kind == "Container")
}

fn quantities(item: &Fields, field: &str) -> Map<String, Value> {
    item.get(field).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A container without limits gets the greatest.
pub(in crate::resource::defaults) fn limit_default(item: &Fields) -> Option<Value> {
    let max = quantities(item, "max");
    (is_of_containers(item) && !max.is_empty()).then_some(Value::Object(max))
}

/// A container without requests gets its limits by default, or the least.
pub(in crate::resource::defaults) fn limit_default_request(item: &Fields) -> Option<Value> {
    let mut requests = quantities(item, "min");
    requests.extend(quantities(item, "default"));
    (is_of_containers(item) && !requests.is_empty()).then_some(Value::Object(requests))
}

/// A policy is about what comes in, and about what goes out when it says something of that.
pub(in crate::resource::defaults) fn policy_types(spec: &Fields) -> Option<Value> {
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    Some(if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) })
}

/// The volumes of a driver outlive their pods.
pub(in crate::resource::defaults) fn lifecycle_modes(_: &Fields) -> Option<Value> {
    Some(json!(["Persistent"]))
}
