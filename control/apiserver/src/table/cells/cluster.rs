//! The cells of storage, rights, certificates, admission and ingress.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{NONE, joined, label_selector, list, map, number, or};
use crate::resource::text;
use crate::table::duration::human_duration;

const UNSET: &str = "<unset>";
const HOSTS_SHOWN: usize = 3;

fn texts<'v>(object: &'v Value, pointer: &str, none: &str) -> Value {
    joined(list(object, pointer).iter().filter_map(|one: &'v Value| one.as_str()), none)
}

fn modes(object: &Value, pointer: &str) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    let mut modes: Vec<&str> = list(object, pointer).iter().map(short).collect();
    modes.dedup();
    joined(modes, "")
}

pub(in crate::table) fn access_modes(volume: &Value, _: Timestamp) -> Value {
    modes(volume, "/spec/accessModes")
}

pub(in crate::table) fn volume_status(volume: &Value, _: Timestamp) -> Value {
    let terminating = !text(volume, "/metadata/deletionTimestamp").is_empty();
    json!(if terminating { "Terminating" } else { text(volume, "/status/phase") })
}

pub(in crate::table) fn claim(volume: &Value, _: Timestamp) -> Value {
    match (text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name")) {
        (_, "") => json!(""),
        (namespace, name) => json!(format!("{namespace}/{name}")),
    }
}

pub(in crate::table) fn attributes_class(volume: &Value, _: Timestamp) -> Value {
    json!(or(volume, "/spec/volumeAttributesClassName", UNSET))
}

pub(in crate::table) fn volume_mode(volume: &Value, _: Timestamp) -> Value {
    json!(or(volume, "/spec/volumeMode", UNSET))
}

fn is_bound(claim: &Value) -> bool {
    !text(claim, "/spec/volumeName").is_empty()
}

pub(in crate::table) fn bound_capacity(claim: &Value, _: Timestamp) -> Value {
    json!(if is_bound(claim) { text(claim, "/status/capacity/storage") } else { "" })
}

pub(in crate::table) fn bound_access_modes(claim: &Value, _: Timestamp) -> Value {
    if is_bound(claim) { modes(claim, "/status/accessModes") } else { json!("") }
}

pub(in crate::table) fn class_name(class: &Value, _: Timestamp) -> Value {
    let default = map(class, "/metadata/annotations")
        .and_then(|all| all.get("storageclass.kubernetes.io/is-default-class"))
        .is_some_and(|value| value == "true");
    let name = text(class, "/metadata/name");
    json!(if default { format!("{name} (default)") } else { name.to_owned() })
}

pub(in crate::table) fn expansion(class: &Value, _: Timestamp) -> Value {
    json!(class["allowVolumeExpansion"] == true)
}

pub(in crate::table) fn attached(attachment: &Value, _: Timestamp) -> Value {
    json!(attachment.pointer("/status/attached") == Some(&Value::Bool(true)))
}

pub(in crate::table) fn token_requests(driver: &Value, _: Timestamp) -> Value {
    let requests = list(driver, "/spec/tokenRequests").iter();
    joined(requests.map(|request| text(request, "/audience")), UNSET)
}

pub(in crate::table) fn lifecycle_modes(driver: &Value, _: Timestamp) -> Value {
    texts(driver, "/spec/volumeLifecycleModes", NONE)
}

pub(in crate::table) fn drivers(node: &Value, _: Timestamp) -> Value {
    json!(list(node, "/spec/drivers").len())
}

pub(in crate::table) fn role(binding: &Value, _: Timestamp) -> Value {
    json!(format!("{}/{}", text(binding, "/roleRef/kind"), text(binding, "/roleRef/name")))
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let subjects = list(binding, "/subjects").iter().filter(|one| text(one, "/kind") == kind);
    let names: Vec<String> = subjects
        .map(|one| match (kind, text(one, "/namespace"), text(one, "/name")) {
            ("ServiceAccount", namespace, name) => format!("{namespace}/{name}"),
            (_, _, name) => name.to_owned(),
        })
        .collect();
    json!(names.join(", "))
}

pub(in crate::table) fn users(binding: &Value, _: Timestamp) -> Value {
    subjects(binding, "User")
}

pub(in crate::table) fn groups(binding: &Value, _: Timestamp) -> Value {
    subjects(binding, "Group")
}

pub(in crate::table) fn accounts(binding: &Value, _: Timestamp) -> Value {
    subjects(binding, "ServiceAccount")
}

pub(in crate::table) fn requested_duration(request: &Value, _: Timestamp) -> Value {
    match number(request, "/spec/expirationSeconds") {
        0 => json!(NONE),
        seconds => json!(human_duration(seconds)),
    }
}

pub(in crate::table) fn request_condition(request: &Value, _: Timestamp) -> Value {
    let conditions = list(request, "/status/conditions");
    let has = |kind| conditions.iter().any(|one| text(one, "/type") == kind);
    let mut shown = vec![if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }];
    if has("Failed") {
        shown.push("Failed");
    }
    if !text(request, "/status/certificate").is_empty() {
        shown.push("Issued");
    }
    json!(shown.join(","))
}

pub(in crate::table) fn webhooks(configuration: &Value, _: Timestamp) -> Value {
    json!(list(configuration, "/webhooks").len())
}

pub(in crate::table) fn validations(policy: &Value, _: Timestamp) -> Value {
    json!(list(policy, "/spec/validations").len())
}

pub(in crate::table) fn component_health(component: &Value, _: Timestamp) -> Value {
    json!(match text(component, "/conditions/0/status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    })
}

pub(in crate::table) fn mutations(policy: &Value, _: Timestamp) -> Value {
    json!(list(policy, "/spec/mutations").len())
}

pub(in crate::table) fn param_kind(policy: &Value, _: Timestamp) -> Value {
    match (text(policy, "/spec/paramKind/apiVersion"), text(policy, "/spec/paramKind/kind")) {
        (_, "") => json!(UNSET),
        (version, kind) => json!(format!("{version}/{kind}")),
    }
}

pub(in crate::table) fn param_ref(binding: &Value, _: Timestamp) -> Value {
    let reference = binding.pointer("/spec/paramRef").unwrap_or(&Value::Null);
    match (text(reference, "/namespace"), text(reference, "/name")) {
        (_, "") if reference["selector"].is_object() => {
            label_selector(&json!({ "spec": reference }), Timestamp::UNIX_EPOCH)
        }
        (_, "") => json!(UNSET),
        (namespace, name) => json!(format!("{}/{name}", if namespace.is_empty() { "*" } else { namespace })),
    }
}

pub(in crate::table) fn ingress_class(ingress: &Value, _: Timestamp) -> Value {
    let old = map(ingress, "/metadata/annotations").and_then(|all| all.get("kubernetes.io/ingress.class"));
    let old = old.and_then(Value::as_str).unwrap_or(NONE);
    json!(or(ingress, "/spec/ingressClassName", old))
}

pub(in crate::table) fn ingress_hosts(ingress: &Value, _: Timestamp) -> Value {
    let hosts: Vec<&str> = list(ingress, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host"))
        .filter(|host| !host.is_empty())
        .collect();
    match hosts.len() {
        0 => json!("*"),
        count if count > HOSTS_SHOWN => {
            json!(format!("{} + {} more...", hosts[..HOSTS_SHOWN].join(","), count - HOSTS_SHOWN))
        }
        _ => json!(hosts.join(",")),
    }
}

pub(in crate::table) fn ingress_address(ingress: &Value, _: Timestamp) -> Value {
    let points = list(ingress, "/status/loadBalancer/ingress").iter();
    joined(points.map(|one| or(one, "/ip", text(one, "/hostname"))), "")
}

pub(in crate::table) fn ingress_ports(ingress: &Value, _: Timestamp) -> Value {
    json!(if list(ingress, "/spec/tls").is_empty() { "80" } else { "80, 443" })
}

pub(in crate::table) fn parameters(class: &Value, _: Timestamp) -> Value {
    let parameters = class.pointer("/spec/parameters").unwrap_or(&Value::Null);
    let kind = text(parameters, "/kind");
    if kind.is_empty() {
        return json!(NONE);
    }
    let group = match text(parameters, "/apiGroup") {
        "" => String::new(),
        group => format!(".{group}"),
    };
    json!(format!("{kind}{group}/{}", text(parameters, "/name")))
}

pub(in crate::table) fn pod_selector(policy: &Value, _: Timestamp) -> Value {
    let selector = policy.pointer("/spec/podSelector").cloned().unwrap_or_default();
    label_selector(&json!({ "spec": { "selector": selector } }), Timestamp::UNIX_EPOCH)
}

pub(in crate::table) fn parent(address: &Value, _: Timestamp) -> Value {
    let of = address.pointer("/spec/parentRef").unwrap_or(&Value::Null);
    let group = match text(of, "/group") {
        "" => String::new(),
        group => format!("{group}."),
    };
    let namespace = match text(of, "/namespace") {
        "" => String::new(),
        namespace => format!("{namespace}/"),
    };
    json!(format!("{}{}/{namespace}{}", group, text(of, "/resource"), text(of, "/name")))
}

pub(in crate::table) fn cidrs(object: &Value, _: Timestamp) -> Value {
    texts(object, "/spec/cidrs", "")
}
