//! Autoscalers of `autoscaling/v1` are stored as those of `v2`. What `v1` has no field for is in annotations, as JSON
//! (upstream `pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::{Map, Value, json};

use super::Conversion;
use crate::resource::{default, find, path};

/// Both directions.
pub(crate) const AUTOSCALERS: Conversion = Conversion { to_storage: to_v2, from_storage: to_v1 };

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// One source of a metric: the field that it is in, and what its own fields are called in `v2` and in `v1`.
struct Source {
    name: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

/// What is wanted.
const WANTED: &[Source] = &[
    Source {
        name: "resource",
        fields: &[
            ("name", "name"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
    },
    Source {
        name: "containerResource",
        fields: &[
            ("name", "name"),
            ("container", "container"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
    },
    Source {
        name: "pods",
        fields: &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.averageValue", "targetAverageValue"),
        ],
    },
    Source {
        name: "object",
        fields: &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "averageValue"),
        ],
    },
    Source {
        name: "external",
        fields: &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "targetAverageValue"),
        ],
    },
];

/// What was measured.
const CURRENT: &[Source] = &[
    Source {
        name: "resource",
        fields: &[
            ("name", "name"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    },
    Source {
        name: "containerResource",
        fields: &[
            ("name", "name"),
            ("container", "container"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    },
    Source {
        name: "pods",
        fields: &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("current.averageValue", "currentAverageValue"),
        ],
    },
    Source {
        name: "object",
        fields: &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "averageValue"),
        ],
    },
    Source {
        name: "external",
        fields: &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "currentAverageValue"),
        ],
    },
];

/// The type of a target by the field that it has.
const TARGET_TYPES: &[(&str, &str)] =
    &[("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];

fn to_v1(mut scaler: Value) -> Value {
    scaler["apiVersion"] = json!("autoscaling/v1");
    if let Some(spec) = scaler.get_mut("spec").and_then(Value::as_object_mut) {
        let (processor, others): (Vec<Value>, Vec<Value>) = list(spec.remove("metrics"))
            .into_iter()
            .partition(|metric| utilization(metric, "target").is_some());
        let behavior = spec.remove("behavior");
        if let Some(share) = processor.first().and_then(|metric| utilization(metric, "target")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), share.clone());
        }
        let others = others.iter().map(|metric| metric_to_v1(metric, WANTED)).collect();
        note(&mut scaler, METRICS, Value::Array(others));
        note(&mut scaler, BEHAVIOR, behavior.unwrap_or_default());
    }
    if let Some(status) = scaler.get_mut("status").and_then(Value::as_object_mut) {
        let current = list(status.remove("currentMetrics"));
        let conditions = list(status.remove("conditions"));
        if let Some(share) = current.iter().find_map(|metric| utilization(metric, "current")) {
            status.insert("currentCPUUtilizationPercentage".to_owned(), share.clone());
        }
        let current = current.iter().map(|metric| metric_to_v1(metric, CURRENT)).collect();
        note(&mut scaler, CURRENT_METRICS, Value::Array(current));
        note(&mut scaler, CONDITIONS, Value::Array(conditions));
    }
    scaler
}

fn to_v2(mut scaler: Value) -> Value {
    scaler["apiVersion"] = json!("autoscaling/v2");
    let [metrics, behavior, current, conditions] =
        [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS].map(|name| take_note(&mut scaler, name));
    if let Some(spec) = scaler.get_mut("spec").and_then(Value::as_object_mut) {
        let share = spec.remove("targetCPUUtilizationPercentage");
        let processor = share
            .map(|share| processor("target", json!({ "type": "Utilization", "averageUtilization": share })));
        let others = list(metrics).into_iter().map(|metric| metric_to_v2(&metric, WANTED));
        insert_list(spec, "metrics", processor.into_iter().chain(others).collect());
        spec.extend(behavior.map(|behavior| ("behavior".to_owned(), behavior)));
    }
    if let Some(status) = scaler.get_mut("status").and_then(Value::as_object_mut) {
        let share = status.remove("currentCPUUtilizationPercentage");
        let mut current: Vec<Value> =
            list(current).iter().map(|metric| metric_to_v2(metric, CURRENT)).collect();
        if let Some(share) = share.filter(|_| current.is_empty()) {
            current.push(processor("current", json!({ "averageUtilization": share })));
        }
        insert_list(status, "currentMetrics", current);
        insert_list(status, "conditions", list(conditions));
    }
    if let Some(resource) = find("autoscaling", "v2", "horizontalpodautoscalers") {
        default(resource, &mut scaler);
    }
    scaler
}

/// The share of the requested processor time, if it is what a metric is about.
fn utilization<'m>(metric: &'m Value, amount: &str) -> Option<&'m Value> {
    let resource = metric.get("resource").filter(|resource| resource["name"] == "cpu")?;
    resource.get(amount)?.get("averageUtilization")
}

fn processor(amount: &str, value: Value) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu", amount: value } })
}

fn metric_to_v1(metric: &Value, sources: &[Source]) -> Value {
    let mut old = json!({ "type": metric["type"] });
    for Source { name, fields } in sources {
        let Some(given) = metric.get(name) else { continue };
        for (new_name, old_name) in *fields {
            if let Some(value) = path::get(given, new_name) {
                old[name][old_name] = value.clone();
            }
        }
    }
    old
}

fn metric_to_v2(metric: &Value, sources: &[Source]) -> Value {
    let mut new = json!({ "type": metric["type"] });
    for Source { name, fields } in sources {
        let Some(given) = metric.get(name).filter(|given| given.is_object()) else { continue };
        for (new_name, old_name) in *fields {
            if let Some(value) = path::get(given, old_name) {
                let place = new_name.split('.').fold(&mut new[name], |place, step| &mut place[step]);
                *place = value.clone();
            }
        }
        if let Some(target) = new[name].get_mut("target") {
            let kind = TARGET_TYPES.iter().find(|(field, _)| target.get(field).is_some());
            target["type"] = json!(kind.map_or("Value", |(_, kind)| kind));
        }
    }
    new
}

/// Writes a value that is not empty into an annotation.
fn note(scaler: &mut Value, name: &str, value: Value) {
    let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if !is_empty && scaler["metadata"].is_object() {
        scaler["metadata"]["annotations"][name] = json!(value.to_string());
    }
}

/// Removes an annotation that [`note`] wrote; what cannot be read says nothing.
fn take_note(scaler: &mut Value, name: &str) -> Option<Value> {
    let metadata = scaler.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn insert_list(into: &mut Map<String, Value>, name: &str, items: Vec<Value>) {
    if !items.is_empty() {
        into.insert(name.to_owned(), Value::Array(items));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_of_version_2_survives_the_way_through_version_1() {
        let selector = json!({ "matchLabels": { "a": "b" } });
        let target = json!({ "kind": "Service", "name": "s" });
        let scaler = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "a", "namespace": "d", "annotations": { "mine": "x" } },
            "spec": {
                "scaleTargetRef": { "kind": "Deployment", "name": "w" }, "minReplicas": 1, "maxReplicas": 9,
                "metrics": [
                    { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } } },
                    { "type": "Resource", "resource": { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } },
                    { "type": "ContainerResource", "containerResource": {
                        "name": "cpu", "container": "c", "target": { "type": "Utilization", "averageUtilization": 5 } } },
                    { "type": "Pods", "pods": {
                        "metric": { "name": "m", "selector": selector }, "target": { "type": "AverageValue", "averageValue": "3" } } },
                    { "type": "Object", "object": {
                        "describedObject": target, "metric": { "name": "m" }, "target": { "type": "Value", "value": "7" } } },
                    { "type": "External", "external": {
                        "metric": { "name": "q", "selector": selector }, "target": { "type": "Value", "value": "30" } } },
                ],
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [
                    { "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 61, "averageValue": "120m" } } },
                    { "type": "Object", "object": {
                        "describedObject": target, "metric": { "name": "m" }, "current": { "value": "8" } } },
                ],
                "conditions": [{ "type": "AbleToScale", "status": "True" }],
            },
        });
        let old = to_v1(scaler.clone());
        assert_eq!(old["apiVersion"], "autoscaling/v1");
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(old["status"]["currentCPUUtilizationPercentage"], 61);
        let note = |name: &str| old["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned();
        assert!(note(METRICS).contains(r#""targetAverageValue":"1Gi""#), "{old}");
        assert!(note(CONDITIONS).contains("AbleToScale"), "{old}");
        for absent in ["metrics", "behavior"] {
            assert!(old["spec"].get(absent).is_none(), "{old}");
        }
        assert_eq!(to_v2(old), scaler);
    }

    #[test]
    fn an_autoscaler_of_version_1_means_the_same_in_version_2() {
        let old = json!({
            "apiVersion": "autoscaling/v1", "metadata": { "name": "a" },
            "spec": { "maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 42 },
            "status": { "currentReplicas": 1, "desiredReplicas": 1, "currentCPUUtilizationPercentage": 17 },
        });
        let new = to_v2(old);
        assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 42);
        assert_eq!(new["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"], 17);
        let usual = to_v2(json!({ "metadata": { "name": "a" }, "spec": { "maxReplicas": 3 } }));
        assert_eq!(usual["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80, "{usual}");
    }
}
