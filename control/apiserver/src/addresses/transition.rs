//! What a Service loses when its type changes (upstream `registry/core/service/strategy.go`, `dropTypeDependentFields`).
//!
//! Only what the writer did not touch: who sets a field that the new type does not have is told so by the validation.

use serde_json::Value;

/// A group of fields, and which Services have them.
struct Row {
    has: fn(&Value) -> bool,
    fields: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        has: |spec| kind(spec) != "ExternalName",
        fields: &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
    },
    Row {
        has: |spec| kind(spec) == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local",
        fields: &["healthCheckNodePort"],
    },
    Row {
        has: |spec| kind(spec) == "LoadBalancer",
        fields: &["allocateLoadBalancerNodePorts", "loadBalancerClass"],
    },
    Row { has: is_reachable_from_outside, fields: &["externalTrafficPolicy"] },
];

/// Removes what the old type had, the new one has not, and the writer left as it was.
pub(super) fn drop_what_the_type_has_not(service: &mut Value, old: &Value) {
    let old = &old["spec"];
    let spec = &mut service["spec"];
    for row in ROWS {
        if !(row.has)(old) || (row.has)(spec) {
            continue;
        }
        let untouched: Vec<&str> =
            row.fields.iter().copied().filter(|field| spec[field] == old[field]).collect();
        if let Some(fields) = spec.as_object_mut() {
            untouched.iter().for_each(|field| drop(fields.remove(*field)));
        }
    }
    let numbers = |spec: &Value| -> Vec<Value> {
        spec["ports"].as_array().into_iter().flatten().map(|port| port["nodePort"].clone()).collect()
    };
    if has_node_ports(old) && !has_node_ports(spec) && numbers(old) == numbers(spec) {
        for port in spec["ports"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
}

fn kind(spec: &Value) -> &str {
    spec["type"].as_str().unwrap_or_default()
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
}

fn is_reachable_from_outside(spec: &Value) -> bool {
    has_node_ports(spec)
        || kind(spec) == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty())
}
