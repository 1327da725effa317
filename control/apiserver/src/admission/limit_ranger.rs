//! The limits of a namespace: what containers get that name none, and what is too little or too much (upstream's plugin
//! LimitRanger).

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::Attempt;
use crate::error::ApiError;
use crate::object;
use crate::resource::{pod_quality, quantity};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// Gives containers the namespace's default requests and limits.
pub(super) fn complete<'a>(
    attempt: &'a Attempt<'_>,
    pod: &'a mut Value,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if attempt.old.is_some() {
            return Ok(());
        }
        for range in attempt.api.admission.limit_ranges.list(&*attempt.api.store, attempt.namespace).await? {
            add_defaults(&range, pod);
        }
        Ok(())
    })
}

/// Refuses what is outside of the namespace's limits.
pub(super) fn check<'a>(
    attempt: &'a Attempt<'_>,
    object: &'a mut Value,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let unchanged =
            attempt.old.is_some_and(|old| attempt.subresource.is_none() && old["spec"] == object["spec"]);
        if unchanged || object::is_terminating(object) {
            return Ok(());
        }
        let ranges = attempt.api.admission.limit_ranges.list(&*attempt.api.store, attempt.namespace).await?;
        let mut problems = Vec::new();
        for item in ranges.iter().flat_map(|range| items(range)) {
            problems.extend(violations(attempt.resource.kind, item, object));
        }
        match problems.as_slice() {
            [] => Ok(()),
            [one] => Err(attempt.forbidden(object, one.clone())),
            several => Err(attempt.forbidden(object, format!("[{}]", several.join(", ")))),
        }
    })
}

fn items(range: &Value) -> impl Iterator<Item = &Value> {
    range["spec"]["limits"].as_array().into_iter().flatten()
}

fn add_defaults(range: &Value, pod: &mut Value) {
    let mut notes = Vec::new();
    for item in items(range).filter(|item| item["type"] == "Container") {
        for list in CONTAINERS {
            let what = if list == "containers" { "container" } else { "init container" };
            let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let name = object_name(container);
                for (field, from, word) in
                    [("requests", "defaultRequest", "request"), ("limits", "default", "limit")]
                {
                    let added = merge(&mut container["resources"], field, &item[from]);
                    if !added.is_empty() {
                        notes.push(format!("{} {word} for {what} {name}", added.join(", ")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = json!(note);
        pod["status"]["qosClass"] = json!(pod_quality(pod));
    }
}

fn object_name(container: &Value) -> String {
    container["name"].as_str().unwrap_or_default().to_owned()
}

/// Adds the quantities that are not there; returns their names.
fn merge(resources: &mut Value, field: &str, defaults: &Value) -> Vec<String> {
    let mut added = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        if resources[field][name].is_null() {
            resources[field][name] = amount.clone();
            added.push(name.clone());
        }
    }
    if resources[field].is_null()
        && let Some(fields) = resources.as_object_mut()
    {
        fields.remove(field);
    }
    added
}

/// Requests and limits of something, by the name of the resource.
type Amounts = BTreeMap<String, i128>;

/// What an item of a limit range has against an object of this kind.
fn violations(kind: &str, item: &Value, object: &Value) -> Vec<String> {
    let of = item["type"].as_str().unwrap_or_default();
    let mut problems = Vec::new();
    match (kind, of) {
        ("Pod", "Container") => {
            for list in CONTAINERS {
                for container in object["spec"][list].as_array().into_iter().flatten() {
                    let resources = &container["resources"];
                    let (requests, limits) = (amounts(&resources["requests"]), amounts(&resources["limits"]));
                    bounds(of, item, &requests, &limits, &mut problems);
                }
            }
        }
        ("Pod", "Pod") => {
            let containers = object["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
            let sum = |field: &str| {
                let mut total = Amounts::new();
                for container in containers {
                    for (name, amount) in amounts(&container["resources"][field]) {
                        *total.entry(name).or_default() += amount;
                    }
                }
                total
            };
            bounds(of, item, &sum("requests"), &sum("limits"), &mut problems);
        }
        ("PersistentVolumeClaim", "PersistentVolumeClaim") => {
            let requests = amounts(&object["spec"]["resources"]["requests"]);
            bounds(of, item, &requests, &requests, &mut problems);
        }
        _ => {}
    }
    problems
}

fn amounts(quantities: &Value) -> Amounts {
    let quantities = quantities.as_object().into_iter().flatten();
    quantities.filter_map(|(name, value)| Some((name.clone(), quantity::parse(value)?))).collect()
}

fn bounds(of: &str, item: &Value, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    let empty = Map::new();
    let rows = |field: &str| item[field].as_object().unwrap_or(&empty).clone();
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = |name: &str, amount: i128| quantity::text(amount, quantity::is_binary(name));
    for (name, min) in rows("min") {
        let Some(least) = quantity::parse(&min) else { continue };
        let head = format!("minimum {name} usage per {of} is {}", shown(&min));
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => problems.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => {
                problems.push(format!("{head}, but request is {}", text(&name, *request)));
            }
            (_, Some(limit)) if *limit < least => {
                problems.push(format!("{head}, but limit is {}", text(&name, *limit)));
            }
            _ => {}
        }
    }
    for (name, max) in rows("max") {
        let Some(most) = quantity::parse(&max) else { continue };
        let head = format!("maximum {name} usage per {of} is {}", shown(&max));
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => problems.push(format!("{head}.  No limit is specified")),
            (Some(limit), _) if *limit > most => {
                problems.push(format!("{head}, but limit is {}", text(&name, *limit)));
            }
            (_, Some(request)) if *request > most => {
                problems.push(format!("{head}, but request is {}", text(&name, *request)));
            }
            _ => {}
        }
    }
    for (name, ratio) in rows("maxLimitRequestRatio") {
        let Some(most) = quantity::parse(&ratio) else { continue };
        let head = format!("{name} max limit to request ratio per {of} is {}", shown(&ratio));
        match (requests.get(&name), limits.get(&name)) {
            (Some(request), Some(limit)) if *request > 0 => {
                // Both are in units of 10⁻⁹, and so is the ratio.
                if limit.saturating_mul(1_000_000_000) > most.saturating_mul(*request) {
                    let found = *limit as f64 / *request as f64;
                    problems.push(format!("{head}, but provided ratio is {found:.6}"));
                }
            }
            _ => problems.push(format!("{head}, but no request is specified or request is 0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_added_and_noted() {
        let range = json!({ "spec": { "limits": [
            { "type": "Container", "default": { "cpu": "1" }, "defaultRequest": { "cpu": "500m", "memory": "1Gi" } },
        ] } });
        let mut pod = json!({ "metadata": {}, "spec": { "containers": [
            { "name": "a", "resources": {} }, { "name": "b", "resources": { "requests": { "cpu": "1", "memory": "1" },
                "limits": { "cpu": "2" } } },
        ] } });
        add_defaults(&range, &mut pod);
        let resources = json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "500m", "memory": "1Gi" } });
        assert_eq!(pod["spec"]["containers"][0]["resources"], resources);
        assert_eq!(pod["spec"]["containers"][1]["resources"]["limits"], json!({ "cpu": "2" }));
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a"
        );
        assert_eq!(pod["status"]["qosClass"], "Burstable");
    }

    #[test]
    fn too_little_and_too_much_are_refused_in_upstreams_words() {
        let pod = json!({ "spec": { "containers": [
            { "resources": { "requests": { "cpu": "500m" }, "limits": { "cpu": "3" } } },
            { "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } },
        ] } });
        let rows = [
            (
                json!({ "type": "Container", "min": { "cpu": "1" } }),
                "minimum cpu usage per Container is 1, but request is 500m",
            ),
            (
                json!({ "type": "Container", "max": { "cpu": "2" } }),
                "maximum cpu usage per Container is 2, but limit is 3",
            ),
            (
                json!({ "type": "Pod", "max": { "cpu": "3500m" } }),
                "maximum cpu usage per Pod is 3500m, but limit is 4",
            ),
            (
                json!({ "type": "Pod", "min": { "memory": "1Gi" } }),
                "minimum memory usage per Pod is 1Gi.  No request is specified",
            ),
            (
                json!({ "type": "Container", "maxLimitRequestRatio": { "cpu": "5" } }),
                "cpu max limit to request ratio per Container is 5, but provided ratio is 6.000000",
            ),
        ];
        for (item, expected) in rows {
            assert_eq!(violations("Pod", &item, &pod), [expected]);
        }
    }
}
