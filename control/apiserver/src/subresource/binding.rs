//! `binding`: the scheduler's decision, written once.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Call;
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::object;
use crate::request::Target;
use crate::resource::find;
use crate::verbs::admit::{self, Ownership};
use crate::verbs::{delete, update};

/// Answers a POST of a `Binding` (upstream `registry/core/pod/storage`, `assignPod`).
pub(super) async fn create(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let binding = body::parse(call.headers, &call.body)?;
    admit::about_same(call, "Binding", &binding)?;
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default();
    if node.is_empty() || !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        return Err(ApiError::BadRequest(
            "a Binding must name a Node: set target.kind to \"Node\" and target.name".to_owned(),
        ));
    }
    let change = |pod: &Value| assign(call, pod, &binding, node);
    update::modify(call, Some("binding"), Ownership::Noted, change).await?;
    call.respond_other(StatusCode::CREATED, &delete::success(None))
}

/// Answers a POST to `bindings`, whose body names the pod (deprecated; the subresource says the same).
pub(crate) async fn create_by_name(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if call.info.verb != "create" || call.target.name.is_some() {
        return Err(ApiError::MethodNotAllowed);
    }
    let binding = body::parse(call.headers, &call.body)?;
    let name = object::meta(&binding, "name");
    if name.is_empty() {
        return Err(ApiError::BadRequest("a Binding must name its pod: set metadata.name".to_owned()));
    }
    let resource = find("", "v1", "pods").ok_or(ApiError::UnknownPath)?;
    let target = Target {
        resource: resource.plural.to_owned(),
        name: Some(name.to_owned()),
        subresource: Some("binding".to_owned()),
        ..call.target.clone()
    };
    create(&Call { resource, target: &target, body: call.body.clone(), ..*call }).await
}

fn assign(call: &Call<'_>, pod: &Value, binding: &Value, node: &str) -> Result<Value, ApiError> {
    let name = object::meta(pod, "name");
    let uid = object::meta(binding, "uid");
    if !uid.is_empty() && uid != object::meta(pod, "uid") {
        return Err(call.conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::meta(pod, "uid")
        )));
    }
    if object::is_terminating(pod) {
        return Err(call.conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    if let Some(assigned) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Err(call.conflict(format!("pod {name} is already assigned to node {assigned:?}")));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(call.conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut bound = pod.clone();
    bound["spec"]["nodeName"] = json!(node);
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
            bound["metadata"][map][key] = value.clone();
        }
    }
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": object::time(Timestamp::now()),
    });
    if !bound["status"]["conditions"].is_array() {
        bound["status"]["conditions"] = json!([]);
    }
    let conditions = bound["status"]["conditions"].as_array_mut().expect("it was just made");
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(condition);
    Ok(bound)
}
