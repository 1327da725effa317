//! `scale`: the number of replicas of a workload as an `autoscaling/v1` `Scale`.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Call;
use crate::apply::{self, Writer};
use crate::body::{self, Body};
use crate::commit::Written;
use crate::error::ApiError;
use crate::object;
use crate::patch;
use crate::resource::FieldError;
use crate::verbs::admit::{self, Ownership};
use crate::verbs::{options, update};

/// Answers a GET.
pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let entry = call.entry().await?;
    let workload = object::decode(call.resource, &entry.value, entry.mod_revision)?;
    call.respond_other(StatusCode::OK, &scale_of(&workload))
}

/// Answers a PUT.
pub(super) async fn replace(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let sent = body::parse(call.headers, &call.body)?;
    write(call, |_| Ok(sent.clone())).await
}

/// Answers a PATCH; a strategic patch of a `Scale`, which has no lists, is a merge patch.
pub(super) async fn patch(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if patch::PatchType::from_content_type(body::content_type(call.headers))? == patch::PatchType::Apply {
        return apply(call).await;
    }
    let (mut kind, sent, _) = update::parse_patch(call)?;
    if kind == patch::PatchType::Strategic {
        kind = patch::PatchType::Merge;
    }
    write(call, |scale| Ok(patch::apply(call.resource, kind, scale, &sent)?)).await
}

async fn write(
    call: &Call<'_>,
    mut change: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let written = update::modify(call, Some("scale"), Ownership::Changed, |workload| {
        let scale = change(&scale_of(workload))?;
        let mut new = workload.clone();
        new["spec"]["replicas"] = replicas(&scale)?;
        if let Some(version) = scale["metadata"]["resourceVersion"].as_str() {
            new["metadata"]["resourceVersion"] = json!(version);
        }
        Ok(new)
    })
    .await?;
    answer(call, written)
}

/// Answers a server-side apply of a `Scale`: of the workload with nothing but its replicas.
async fn apply(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let (manager, time) = (admit::manager(call), object::now());
    let force = call.info.query.flag("force");
    if manager.is_empty() || call.info.query.get("fieldManager").is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(options::refused(call.info.verb, error));
    }
    let (scale, _) = body::parse_yaml(&call.body)?;
    let config = json!({ "spec": { "replicas": replicas(&scale)? } });
    let write = Writer { resource: call.resource, subresource: Some("scale"), manager, time: &time };
    let change = |workload: &Value| Ok(apply::apply(write, Some(workload), &config, force)?);
    answer(call, update::modify(call, Some("scale"), Ownership::Noted, change).await?)
}

fn replicas(scale: &Value) -> Result<Value, ApiError> {
    match &scale["spec"]["replicas"] {
        Value::Null => Ok(json!(0)),
        number if number.as_i64().is_some_and(|n| (0..=i64::from(i32::MAX)).contains(&n)) => {
            Ok(number.clone())
        }
        other => Err(ApiError::BadRequest(format!(
            "spec.replicas of a Scale must be a number of at least 0, not {other}"
        ))),
    }
}

fn answer(call: &Call<'_>, written: Written) -> Result<Response<Body>, ApiError> {
    let mut workload = written.object;
    object::set_version(&mut workload, written.revision);
    call.respond_other(StatusCode::OK, &scale_of(&workload))
}

fn scale_of(workload: &Value) -> Value {
    let metadata = &workload["metadata"];
    let zero = |value: &Value| if value.is_null() { json!(0) } else { value.clone() };
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": zero(&workload["spec"]["replicas"]) },
        "status": {
            "replicas": zero(&workload["status"]["replicas"]),
            "selector": selector_text(&workload["spec"]["selector"]),
        },
    })
}

/// A `LabelSelector` in the form of a query parameter.
fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<String> = Vec::new();
    // A replication controller's is a mere map.
    let is_map = selector.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let labels = if is_map { selector } else { &selector["matchLabels"] };
    for (key, value) in labels.as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.sort_unstable();
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_tells_its_selector_as_text() {
        let workload = json!({
            "metadata": { "name": "w" },
            "spec": { "replicas": 3, "selector": {
                "matchLabels": { "b": "2", "a": "1" },
                "matchExpressions": [{ "key": "c", "operator": "In", "values": ["x", "y"] }],
            } },
        });
        let scale = scale_of(&workload);
        assert_eq!(scale["status"]["selector"], "a=1,b=2,c in (x,y)");
        assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(3), &json!(0)));
    }
}
