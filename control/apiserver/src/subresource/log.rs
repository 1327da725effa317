//! `log`: a container's output, streamed from its node's kubelet (upstream `registry/core/pod/rest/log.go`).

use http::{Response, StatusCode};
use serde_json::Value;

use crate::api::{Call, key};
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::object;
use crate::resource::find;

/// The parameters that go to the kubelet.
const PARAMETERS: &[&str] =
    &["follow", "tailLines", "timestamps", "sinceSeconds", "sinceTime", "previous", "limitBytes"];

/// The container that annotations name for those who name none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Answers a GET.
pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let entry = call.entry().await?;
    let pod = object::decode(call.resource, &entry.value, entry.mod_revision)?;
    let container = container(&pod, call.info.query.get("container"))?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::BadRequest(format!("pod {} does not have a host assigned", call.name()?)));
    }
    let (host, port) = kubelet_of(call, node).await?;
    let mut path = format!(
        "/containerLogs/{}/{}/{container}",
        object::meta(&pod, "namespace"),
        object::meta(&pod, "name")
    );
    let mut separator = '?';
    for name in PARAMETERS {
        if let Some(value) = call.info.query.get(name) {
            path.push(separator);
            // Numbers, booleans and times: '+' is the only character of them that a query would misread.
            path.push_str(&format!("{name}={}", value.replace('+', "%2B")));
            separator = '&';
        }
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::BadRequest("the parameters of a log request must be plain text".to_owned()));
    }
    let stream = call.api.kubelets.get(&host, port, &path).await.map_err(|error| match error {
        ApiError::Unavailable(why) => ApiError::Unavailable(format!(
            "cannot reach the kubelet of node {node:?} for the logs of pod {:?}: {why}",
            object::meta(&pod, "name")
        )),
        // Bound a moment ago: the kubelet has not begun with it yet. Of a pod that it has, it says so itself.
        ApiError::Upstream { code: StatusCode::NOT_FOUND, .. } if is_pending(&pod) => {
            ApiError::BadRequest(format!(
                "container {container:?} in pod {:?} is waiting to start: ContainerCreating",
                object::meta(&pod, "name")
            ))
        }
        other => other,
    })?;
    Ok(body::with_type(StatusCode::OK, "text/plain", stream))
}

/// Whether no node has said anything of the pod yet.
fn is_pending(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), None | Some("Pending"))
}

/// The container asked for, the annotated one, or the only one.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let (own, init) = (names("containers"), names("initContainers"));
    let pod_name = object::meta(pod, "name");
    if let Some(asked) = asked {
        if own.contains(&asked) || init.contains(&asked) || names("ephemeralContainers").contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::BadRequest(format!("container {asked} is not valid for pod {pod_name}")));
    }
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(name) = annotated.filter(|name| own.contains(name)) {
        return Ok(name.to_owned());
    }
    match own.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(ApiError::BadRequest(format!("a container name must be specified for pod {pod_name}"))),
        several => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::BadRequest(message))
        }
    }
}

/// Where the node's kubelet listens.
async fn kubelet_of(call: &Call<'_>, name: &str) -> Result<(String, u16), ApiError> {
    let nodes = find("", "v1", "nodes").ok_or(ApiError::UnknownPath)?;
    let entry = call.api.store.get(&key(nodes, None, name)).await?;
    let entry = entry.ok_or_else(|| ApiError::NotFound { resource: nodes, name: name.to_owned() })?;
    let node = object::decode(nodes, &entry.value, entry.mod_revision)?;
    let addresses = node["status"]["addresses"].as_array();
    let internal = addresses.into_iter().flatten().find(|address| address["type"] == "InternalIP");
    let host = internal
        .and_then(|address| address["address"].as_str())
        .ok_or_else(|| ApiError::Unavailable("the node has no InternalIP in its status".to_owned()))?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    let port = port
        .ok_or_else(|| ApiError::Unavailable("the node has no kubelet endpoint in its status".to_owned()))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_the_one_asked_for_annotated_or_only() {
        let pod = |containers: Value, annotations: Value| json!({ "metadata": { "name": "p", "annotations": annotations }, "spec": { "containers": containers } });
        let one = json!([{ "name": "a" }]);
        let two = json!([{ "name": "a" }, { "name": "b" }]);
        assert_eq!(container(&pod(one.clone(), json!({})), None).unwrap(), "a");
        assert_eq!(container(&pod(two.clone(), json!({})), Some("b")).unwrap(), "b");
        assert_eq!(container(&pod(two.clone(), json!({ DEFAULT_CONTAINER: "b" })), None).unwrap(), "b");
        let refused = |result: Result<String, ApiError>| result.unwrap_err().to_string();
        assert_eq!(
            refused(container(&pod(two, json!({})), None)),
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(refused(container(&pod(one, json!({})), Some("x"))), "container x is not valid for pod p");
    }
}
