//! The defaults that depend on other fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

mod workloads;

pub(super) use workloads::*;

/// The map that holds the field to be computed.
pub(crate) type Fields = Map<String, Value>;

/// The older of a pod's two names for its service account, if only that is set.
pub(super) fn service_account_name(spec: &Fields) -> Option<Value> {
    spec.get("serviceAccount").filter(|name| !name.is_null()).cloned()
}

/// The older name follows the newer one.
pub(super) fn service_account(spec: &Fields) -> Option<Value> {
    spec.get("serviceAccountName").filter(|name| !name.is_null()).cloned()
}

/// A volume without a source is an empty directory.
pub(super) fn empty_dir(volume: &Fields) -> Option<Value> {
    volume.iter().all(|(key, value)| key == "name" || value.is_null()).then(|| json!({}))
}

/// On the host's network a container's port is the host's port.
pub(super) fn host_ports(spec: &Fields) -> Option<Value> {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return None;
    }
    let mut containers = spec.get("containers")?.clone();
    let ports = containers.as_array_mut()?.iter_mut().filter_map(|container| container.get_mut("ports"));
    for port in ports.filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
        if port.get("hostPort").is_none_or(|host| host.is_null() || host == 0)
            && let Some(number) = port.get("containerPort").cloned()
        {
            port.insert("hostPort".to_owned(), number);
        }
    }
    Some(containers)
}

/// `Always` for a tag that moves, `IfNotPresent` for one that does not.
pub(super) fn image_pull_policy(container: &Fields) -> Option<Value> {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    if image.contains('@') {
        return Some(json!("IfNotPresent"));
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    Some(json!(if tag == "latest" { "Always" } else { "IfNotPresent" }))
}

/// Quantities written as numbers are stored as text, as upstream does.
pub(super) fn limits_as_text(resources: &Fields) -> Option<Value> {
    quantities_as_text(resources.get("limits")?)
}

/// Quantities written as numbers are stored as text, as upstream does.
pub(super) fn requests_as_text(resources: &Fields) -> Option<Value> {
    quantities_as_text(resources.get("requests")?)
}

fn quantities_as_text(quantities: &Value) -> Option<Value> {
    let quantities = quantities.as_object()?;
    let text = |value: &Value| if value.is_number() { json!(value.to_string()) } else { value.clone() };
    Some(quantities.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// What is limited and not requested is requested up to the limit.
pub(super) fn requests_from_limits(resources: &Fields) -> Option<Value> {
    let limits = resources.get("limits")?.as_object()?;
    let mut requests = resources.get("requests").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
    (!requests.is_empty()).then_some(Value::Object(requests))
}

/// A service's port goes to the same port of the pod unless it says otherwise.
pub(super) fn target_port(port: &Fields) -> Option<Value> {
    let unset = port.get("targetPort").is_none_or(|target| target.is_null() || target == 0 || target == "");
    if unset { port.get("port").cloned() } else { None }
}

/// A service that is reached from outside says how.
pub(super) fn external_traffic_policy(spec: &Fields) -> Option<Value> {
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default();
    let addresses = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let outside = matches!(kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && addresses;
    outside.then(|| json!("Cluster"))
}

/// The address of a load balancer is bound to the nodes' own.
pub(super) fn ip_mode(ingress: &Fields) -> Option<Value> {
    let ip = ingress.get("ip").and_then(Value::as_str).unwrap_or_default();
    (!ip.is_empty()).then(|| json!("VIP"))
}

/// A namespace carries its name as a label, so that selectors can name it.
pub(super) fn namespace_labels(metadata: &Fields) -> Option<Value> {
    let name = metadata.get("name").filter(|name| name.is_string())?;
    let mut labels = metadata.get("labels").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
    Some(Value::Object(labels))
}

/// Without reservations everything a node has can be given to pods.
pub(super) fn allocatable(status: &Fields) -> Option<Value> {
    status.get("capacity").filter(|capacity| !capacity.is_null()).cloned()
}

/// What a secret's writer gave as text is stored as bytes, and wins over bytes of the same key.
pub(super) fn secret_data(secret: &Fields) -> Option<Value> {
    let given = secret.get("stringData")?.as_object()?;
    let mut data = secret.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in given {
        data.insert(key.clone(), json!(STANDARD.encode(value.as_str().unwrap_or_default())));
    }
    Some(Value::Object(data))
}
