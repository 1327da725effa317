//! The cells that are more than a path into the object.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::duration::age;
use crate::resource::text;

pub(super) mod cluster;
pub(super) mod workload;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const LISTED_MAX: usize = 3;

/// The elements of the list at a JSON pointer.
pub(super) fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The string at a JSON pointer, or what stands for none.
pub(super) fn or<'v>(object: &'v Value, pointer: &str, none: &'v str) -> &'v str {
    Some(text(object, pointer)).filter(|text| !text.is_empty()).unwrap_or(none)
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn map<'v>(object: &'v Value, pointer: &str) -> Option<&'v Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

fn joined<'v>(items: impl IntoIterator<Item = &'v str>, none: &str) -> Value {
    let items: Vec<&str> = items.into_iter().collect();
    if items.is_empty() { json!(none) } else { json!(items.join(",")) }
}

/// The first few of a list, and how many more there are.
fn first_few(items: &[String], none: &str) -> Value {
    let shown = items[..items.len().min(LISTED_MAX)].join(",");
    match items.len() {
        0 => json!(none),
        count if count > LISTED_MAX => json!(format!("{shown} + {} more...", count - LISTED_MAX)),
        _ => json!(shown),
    }
}

pub(super) fn node_status(node: &Value, _: Timestamp) -> Value {
    let ready = list(node, "/status/conditions").iter().find(|one| text(one, "/type") == "Ready");
    let status = match ready.map(|ready| text(ready, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let unschedulable = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    json!(if unschedulable { format!("{status},SchedulingDisabled") } else { status.to_owned() })
}

pub(super) fn node_roles(node: &Value, _: Timestamp) -> Value {
    let labels = map(node, "/metadata/labels").into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == "kubernetes.io/role"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    joined(roles, NONE)
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = list(node, "/status/addresses").iter().find(|one| text(one, "/type") == kind);
    json!(found.map_or(NONE, |one| text(one, "/address")))
}

pub(super) fn internal_ip(node: &Value, _: Timestamp) -> Value {
    node_address(node, "InternalIP")
}

pub(super) fn external_ip(node: &Value, _: Timestamp) -> Value {
    node_address(node, "ExternalIP")
}

pub(super) fn os_image(node: &Value, _: Timestamp) -> Value {
    json!(or(node, "/status/nodeInfo/osImage", UNKNOWN))
}

pub(super) fn kernel_version(node: &Value, _: Timestamp) -> Value {
    json!(or(node, "/status/nodeInfo/kernelVersion", UNKNOWN))
}

pub(super) fn container_runtime(node: &Value, _: Timestamp) -> Value {
    json!(or(node, "/status/nodeInfo/containerRuntimeVersion", UNKNOWN))
}

pub(super) fn cluster_ip(service: &Value, _: Timestamp) -> Value {
    json!(or(service, "/spec/clusterIPs/0", or(service, "/spec/clusterIP", NONE)))
}

pub(super) fn service_external_ip(service: &Value, _: Timestamp) -> Value {
    let given = || list(service, "/spec/externalIPs").iter().filter_map(Value::as_str);
    match text(service, "/spec/type") {
        "ExternalName" => json!(text(service, "/spec/externalName")),
        "LoadBalancer" => {
            let ingress = list(service, "/status/loadBalancer/ingress");
            joined(
                ingress.iter().map(|one| or(one, "/ip", text(one, "/hostname"))).chain(given()),
                "<pending>",
            )
        }
        _ => joined(given(), NONE),
    }
}

pub(super) fn service_ports(service: &Value, _: Timestamp) -> Value {
    let ports: Vec<String> = list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (number(port, "/port"), text(port, "/protocol"));
            match port.get("nodePort").and_then(Value::as_i64).filter(|node| *node > 0) {
                Some(node) => format!("{number}:{node}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    joined(ports.iter().map(String::as_str), NONE)
}

fn labels(labels: Option<&Map<String, Value>>) -> Vec<String> {
    let labels = labels.into_iter().flatten();
    let mut shown: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    shown.sort_unstable();
    shown
}

pub(super) fn service_selector(service: &Value, _: Timestamp) -> Value {
    joined(labels(map(service, "/spec/selector")).iter().map(String::as_str), NONE)
}

pub(super) fn label_selector(object: &Value, _: Timestamp) -> Value {
    let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
    match crate::selector::LabelSelector::from_json(selector) {
        Ok(selector) if !selector.is_empty() => json!(selector.to_string()),
        Ok(_) => json!(NONE),
        Err(_) => json!("<error>"),
    }
}

pub(super) fn desired_replicas(object: &Value, _: Timestamp) -> Value {
    json!(number(object, "/spec/replicas"))
}

pub(super) fn current_replicas(object: &Value, _: Timestamp) -> Value {
    json!(number(object, "/status/replicas"))
}

pub(super) fn ready_count(object: &Value, _: Timestamp) -> Value {
    json!(number(object, "/status/readyReplicas"))
}

pub(super) fn ready_replicas(object: &Value, _: Timestamp) -> Value {
    json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas")))
}

pub(super) fn updated_replicas(object: &Value, _: Timestamp) -> Value {
    json!(number(object, "/status/updatedReplicas"))
}

pub(super) fn available_replicas(object: &Value, _: Timestamp) -> Value {
    json!(number(object, "/status/availableReplicas"))
}

pub(super) fn container_names(object: &Value, _: Timestamp) -> Value {
    joined(list(object, "/spec/template/spec/containers").iter().map(|one| text(one, "/name")), "")
}

pub(super) fn container_images(object: &Value, _: Timestamp) -> Value {
    joined(list(object, "/spec/template/spec/containers").iter().map(|one| text(one, "/image")), "")
}

pub(super) fn data_count(object: &Value, _: Timestamp) -> Value {
    let count = |field| object.get(field).and_then(Value::as_object).map_or(0, Map::len);
    json!(count("data") + count("binaryData"))
}

pub(super) fn secret_count(account: &Value, _: Timestamp) -> Value {
    json!(list(account, "/secrets").len())
}

pub(super) fn endpoints(endpoints: &Value, _: Timestamp) -> Value {
    let mut shown = Vec::new();
    for subset in list(endpoints, "/subsets") {
        for port in list(subset, "/ports") {
            for address in list(subset, "/addresses") {
                let (ip, port) = (text(address, "/ip"), number(port, "/port"));
                shown.push(if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") });
            }
        }
        if list(subset, "/ports").is_empty() {
            shown.extend(list(subset, "/addresses").iter().map(|address| text(address, "/ip").to_owned()));
        }
    }
    first_few(&shown, NONE)
}

pub(super) fn slice_ports(slice: &Value, _: Timestamp) -> Value {
    let ports = list(slice, "/ports").iter();
    let shown: Vec<String> = ports
        .map(|port| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => or(port, "/name", "*").to_owned(),
        })
        .collect();
    first_few(&shown, "<unset>")
}

pub(super) fn slice_endpoints(slice: &Value, _: Timestamp) -> Value {
    let addresses = list(slice, "/endpoints").iter().flat_map(|endpoint| list(endpoint, "/addresses"));
    let shown: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    first_few(&shown, "<unset>")
}

/// The value of a field of an event, which has another name in each group.
fn event_field<'v>(event: &'v Value, core: &str, new: &str) -> Option<&'v Value> {
    let set = |pointer: &str| event.pointer(pointer).filter(|value| !value.is_null());
    set(core).or_else(|| set(new))
}

fn event_text<'v>(event: &'v Value, core: &str, new: &str) -> &'v str {
    event_field(event, core, new).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn event_first_seen(event: &Value, now: Timestamp) -> Value {
    let first = event_field(event, "/firstTimestamp", "/deprecatedFirstTimestamp");
    json!(age(first.or_else(|| event.get("eventTime")), now))
}

pub(super) fn event_last_seen(event: &Value, now: Timestamp) -> Value {
    let last = event.pointer("/series/lastObservedTime");
    match last.or_else(|| event_field(event, "/lastTimestamp", "/deprecatedLastTimestamp")) {
        Some(last) => json!(age(Some(last), now)),
        None => event_first_seen(event, now),
    }
}

pub(super) fn event_object(event: &Value, _: Timestamp) -> Value {
    let kind = event_text(event, "/involvedObject/kind", "/regarding/kind").to_lowercase();
    match event_text(event, "/involvedObject/name", "/regarding/name") {
        "" => json!(kind),
        name => json!(format!("{kind}/{name}")),
    }
}

pub(super) fn event_subobject(event: &Value, _: Timestamp) -> Value {
    json!(event_text(event, "/involvedObject/fieldPath", "/regarding/fieldPath"))
}

pub(super) fn event_source(event: &Value, _: Timestamp) -> Value {
    let component = match event_text(event, "/source/component", "/deprecatedSource/component") {
        "" => event_text(event, "/reportingComponent", "/reportingController"),
        component => component,
    };
    let host = match event_text(event, "/source/host", "/deprecatedSource/host") {
        "" => text(event, "/reportingInstance"),
        host => host,
    };
    json!(if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") })
}

pub(super) fn event_message(event: &Value, _: Timestamp) -> Value {
    json!(event_text(event, "/message", "/note").trim())
}

pub(super) fn event_count(event: &Value, _: Timestamp) -> Value {
    let count = event.pointer("/series/count").or_else(|| event_field(event, "/count", "/deprecatedCount"));
    json!(count.and_then(Value::as_i64).filter(|count| *count > 0).unwrap_or(1))
}
