//! What an object uses of what quotas bound (upstream `pkg/quota/v1/evaluator/core`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::resource::{Resource, pod_quality, quantity};

/// Amounts in units of 10⁻⁹, by the name that a quota gives them.
pub(super) type Usage = BTreeMap<String, i128>;

const ONE: i128 = 1_000_000_000;
/// Kinds that have a name of their own in quotas, from before `count/`.
const BY_PLURAL: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What requests may also be called.
const SHORT: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// What the object uses.
pub(super) fn of(resource: &Resource, object: &Value) -> Usage {
    let mut usage = Usage::new();
    usage.insert(format!("count/{}", resource.group_resource()), ONE);
    if !resource.group.is_empty() {
        return usage;
    }
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if BY_PLURAL.contains(&resource.plural) && !(resource.plural == "pods" && finished) {
        usage.insert(resource.plural.to_owned(), ONE);
    }
    match resource.plural {
        "pods" if !finished => pod(object, &mut usage),
        "services" => service(object, &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        _ => {}
    }
    usage
}

/// Whether objects of the kind may use what a quota calls so.
pub(super) fn may_use(resource: &Resource, name: &str) -> bool {
    if name == format!("count/{}", resource.group_resource()) {
        return true;
    }
    if !resource.group.is_empty() || name.starts_with("count/") {
        return false;
    }
    match resource.plural {
        "services" => name.starts_with("services"),
        "persistentvolumeclaims" => {
            name == "requests.storage"
                || name == resource.plural
                || name.contains(".storageclass.storage.k8s.io/")
        }
        "pods" => {
            let compute = name.starts_with("requests.") || name.starts_with("limits.");
            name == "pods"
                || SHORT.contains(&name)
                || name.starts_with("hugepages-")
                || compute && name != "requests.storage"
        }
        plural => name == plural && BY_PLURAL.contains(&plural),
    }
}

/// What a quota bounds and a pod does not say, by container.
pub(super) fn unsaid(resource: &Resource, pod: &Value, hard: &Value) -> Vec<String> {
    if !resource.group.is_empty() || resource.plural != "pods" {
        return Vec::new();
    }
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in hard.as_object().into_iter().flat_map(serde_json::Map::keys) {
        let (field, what) = match name.split_once('.') {
            Some((field @ ("requests" | "limits"), what)) if SHORT.contains(&what) => (field, what),
            _ if SHORT.contains(&name.as_str()) => ("requests", name.as_str()),
            _ => continue,
        };
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                if container["resources"][field][what].is_null() {
                    let container = container["name"].as_str().unwrap_or_default();
                    missing.entry(name).or_default().push(container);
                }
            }
        }
    }
    missing.into_iter().map(|(name, containers)| format!("{name} for: {}", containers.join(","))).collect()
}

/// Whether the quota counts the object at all: without scopes everything, with scopes pods alone.
pub(super) fn in_scope(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let scopes = quota["spec"]["scopes"].as_array().into_iter().flatten();
    let mut terms: Vec<(&str, &str, &Value)> =
        scopes.filter_map(Value::as_str).map(|scope| (scope, "Exists", &Value::Null)).collect();
    for term in quota["spec"]["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten() {
        let text = |field: &str| term[field].as_str().unwrap_or_default();
        terms.push((text("scopeName"), text("operator"), &term["values"]));
    }
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    terms.is_empty() || is_pod && terms.iter().all(|term| pod_matches(object, *term))
}

fn pod_matches(pod: &Value, (scope, operator, values): (&str, &str, &Value)) -> bool {
    let terminating = pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = pod_quality(pod) == "BestEffort";
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = &pod["spec"]["priorityClassName"];
            let named = class.as_str().is_some_and(|name| !name.is_empty());
            let listed = values.as_array().is_some_and(|values| values.contains(class));
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => !named,
                _ => named,
            }
        }
        _ => false,
    }
}

fn pod(pod: &Value, usage: &mut Usage) {
    for field in ["requests", "limits"] {
        for (name, amount) in total(pod, field) {
            let bounded = SHORT.contains(&name.as_str());
            if field == "limits" {
                if bounded {
                    usage.insert(format!("limits.{name}"), amount);
                }
                continue;
            }
            if bounded || name.starts_with("hugepages-") {
                usage.insert(name.clone(), amount);
            }
            usage.insert(format!("requests.{name}"), amount);
        }
    }
}

/// What the containers of a pod need together. Init containers run one after the other before them, but for those that
/// go on beside them.
fn total(pod: &Value, field: &str) -> BTreeMap<String, i128> {
    let amounts = |container: &Value| -> Vec<(String, i128)> {
        let quantities = container["resources"][field].as_object().into_iter().flatten();
        quantities.filter_map(|(name, value)| Some((name.clone(), quantity::parse(value)?))).collect()
    };
    let (mut running, mut peak) = (BTreeMap::<String, i128>::new(), BTreeMap::<String, i128>::new());
    for container in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
        let stays = container["restartPolicy"] == "Always";
        for (name, amount) in amounts(container) {
            let beside = running.entry(name.clone()).or_default();
            let at_once = *beside + amount;
            if stays {
                *beside = at_once;
            }
            let most = peak.entry(name).or_default();
            *most = at_once.max(*most);
        }
    }
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        for (name, amount) in amounts(container) {
            *running.entry(name).or_default() += amount;
        }
    }
    for (name, amount) in peak {
        let sum = running.entry(name).or_default();
        *sum = amount.max(*sum);
    }
    for (name, value) in pod["spec"]["overhead"].as_object().into_iter().flatten() {
        *running.entry(name.clone()).or_default() += quantity::parse(value).unwrap_or_default();
    }
    running
}

fn service(service: &Value, usage: &mut Usage) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let numbered =
        ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|port| port != 0)).count();
    let node_ports = match spec["type"].as_str() {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => numbered,
        Some("LoadBalancer") => ports.len(),
        _ => 0,
    };
    if spec["type"] == "LoadBalancer" {
        usage.insert("services.loadbalancers".to_owned(), ONE);
    }
    if node_ports > 0 {
        usage.insert("services.nodeports".to_owned(), ONE * node_ports as i128);
    }
}

fn claim(claim: &Value, usage: &mut Usage) {
    let storage = quantity::parse(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or_default();
    usage.insert("requests.storage".to_owned(), storage);
    if let Some(class) = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty()) {
        let of = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{of}/requests.storage"), storage);
        usage.insert(format!("{of}/persistentvolumeclaims"), ONE);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::find;

    fn used(plural: &str, object: &Value) -> Vec<String> {
        let resource = find("", "v1", plural).unwrap();
        let usage = of(resource, object);
        assert!(usage.keys().all(|name| may_use(resource, name)), "{usage:?}");
        usage
            .iter()
            .map(|(name, n)| format!("{name}={}", quantity::text(*n, quantity::is_binary(name))))
            .collect()
    }

    #[test]
    fn every_kind_is_counted_and_some_are_measured() {
        let pod = json!({ "spec": {
            "containers": [{ "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "cpu": "1" } } }],
            "initContainers": [
                { "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
                { "resources": { "requests": { "cpu": "2", "memory": "1Mi" } } },
            ],
        } });
        assert_eq!(
            used("pods", &pod),
            [
                "count/pods=1",
                "cpu=2100m",
                "limits.cpu=1",
                "memory=1Gi",
                "pods=1",
                "requests.cpu=2100m",
                "requests.memory=1Gi"
            ]
        );
        let mut finished = pod;
        finished["status"]["phase"] = json!("Succeeded");
        assert_eq!(used("pods", &finished), ["count/pods=1"]);
        let service = json!({ "spec": { "type": "LoadBalancer", "ports": [{ "port": 1 }, { "port": 2 }] } });
        assert_eq!(
            used("services", &service),
            ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"]
        );
        let claim = json!({ "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "2Gi" } } } });
        assert_eq!(
            used("persistentvolumeclaims", &claim),
            [
                "count/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/requests.storage=2Gi",
                "persistentvolumeclaims=1",
                "requests.storage=2Gi",
            ]
        );
        assert_eq!(used("configmaps", &json!({})), ["configmaps=1", "count/configmaps=1"]);
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = json!({ "spec": { "containers": [{}], "activeDeadlineSeconds": 5, "priorityClassName": "high" } });
        let pods = find("", "v1", "pods").unwrap();
        let term = |scope: &str, operator: &str| {
            json!({ "spec": { "scopeSelector": { "matchExpressions": [
                { "scopeName": scope, "operator": operator, "values": ["high"] },
            ] } } })
        };
        let rows = [
            (json!({ "spec": { "scopes": ["Terminating", "BestEffort"] } }), true),
            (json!({ "spec": { "scopes": ["NotTerminating"] } }), false),
            (json!({ "spec": { "scopes": ["NotBestEffort"] } }), false),
            (term("PriorityClass", "In"), true),
            (term("PriorityClass", "NotIn"), false),
            (term("PriorityClass", "DoesNotExist"), false),
        ];
        for (quota, expected) in rows {
            assert_eq!(in_scope(&quota, pods, &pod), expected, "{quota}");
            assert!(!in_scope(&quota, find("", "v1", "secrets").unwrap(), &json!({})));
        }
    }
}
