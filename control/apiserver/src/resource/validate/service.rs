//! What of a Service depends on its type: policies, node ports, load balancers (upstream `ValidateService`).

use std::net::IpAddr;

use serde_json::{Value, json};

use super::network::special;
use super::{Errors, items, text};
use crate::resource::error::FieldError;
use crate::resource::{names, path};

const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
/// The kubelet's port, which a load balancer would open to the world.
const KUBELET_PORT: i64 = 10_250;

/// The policies are there when the type needs them, and only then.
pub(super) fn traffic_policies(at: &str, spec: &Value, errors: &mut Errors) {
    let kind = text(spec, "type");
    let field = format!("{at}.externalTrafficPolicy");
    let policy = text(spec, "externalTrafficPolicy");
    let outside = has_node_ports(spec) || kind == "ClusterIP" && items(spec, "externalIPs").count() > 0;
    match (outside, policy) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, _) => {
            let detail = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(field, &json!(policy), detail));
        }
        (true, "") => errors.push(FieldError::required(field, "")),
        (true, _) => errors.push(FieldError::not_supported(field, &json!(policy), &["Cluster", "Local"])),
    }
    let field = format!("{at}.healthCheckNodePort");
    let port = path::get(spec, "healthCheckNodePort").and_then(Value::as_i64).unwrap_or_default();
    if kind == "LoadBalancer" && policy == "Local" {
        if !(0..=65_535).contains(&port) {
            errors.push(FieldError::invalid(field, &json!(port), "must be between 1 and 65535, inclusive"));
        }
    } else if port != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(field, &json!(port), detail));
    }
    let inside = kind == "ClusterIP" || has_node_ports(spec);
    if inside && path::get(spec, "internalTrafficPolicy").is_none() {
        errors.push(FieldError::required(format!("{at}.internalTrafficPolicy"), ""));
    }
}

/// The fields of load balancers are for load balancers.
pub(super) fn load_balancer(at: &str, spec: &Value, errors: &mut Errors) {
    let is_one = text(spec, "type") == "LoadBalancer";
    for field in ["loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts"] {
        let set = path::get(spec, field).is_some_and(|value| value.as_array().is_none_or(|l| !l.is_empty()));
        if set && !is_one {
            errors.push(FieldError::forbidden(format!("{at}.{field}"), ONLY_LOAD_BALANCER));
        } else if is_one && !set && field == "allocateLoadBalancerNodePorts" {
            errors.push(FieldError::required(format!("{at}.{field}"), ""));
        }
    }
    for (index, range) in items(spec, "loadBalancerSourceRanges") {
        // Spaces around a range come from the time when all ranges were one annotation.
        for problem in names::cidr(range.as_str().unwrap_or_default().trim()) {
            errors.push(FieldError::invalid(
                format!("{at}.loadBalancerSourceRanges[{index}]"),
                range,
                &problem,
            ));
        }
    }
}

/// A number of the nodes is one port of one protocol, and the kubelet's is not for a load balancer.
pub(super) fn ports(at: &str, spec: &Value, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, port) in items(spec, "ports") {
        let here = format!("{at}.ports[{index}]");
        if text(spec, "type") == "LoadBalancer" && port["port"] == KUBELET_PORT {
            let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            errors.push(FieldError::invalid(&here, &port["port"], &detail));
        }
        let Some(number) = port["nodePort"].as_i64().filter(|number| *number != 0) else { continue };
        let claim = (number, text(port, "protocol"));
        if seen.contains(&claim) {
            errors.push(FieldError::duplicate(format!("{here}.nodePort"), &json!(number)));
        }
        seen.push(claim);
    }
}

/// An external address is not one that means something on the node itself.
pub(super) fn external_ip(at: &str, address: &Value, errors: &mut Errors) {
    if let Some(problem) = special(address.as_str().unwrap_or_default()) {
        errors.push(FieldError::invalid(at, address, problem));
    }
}

/// What a load balancer's controller wrote: an address with its mode, or a name.
pub(super) fn load_balancer_status(_: &str, service: &Value, errors: &mut Errors) {
    const AT: &str = "status.loadBalancer.ingress";
    let is_one = text(service, "spec.type") == "LoadBalancer";
    if !is_one && items(service, AT).count() > 0 {
        errors.push(FieldError::forbidden(AT, "may only be used when `spec.type` is LoadBalancer"));
        return;
    }
    for (index, ingress) in items(service, AT) {
        let here = format!("{AT}[{index}]");
        let (ip, mode, hostname) = (text(ingress, "ip"), text(ingress, "ipMode"), text(ingress, "hostname"));
        if !ip.is_empty() {
            for problem in names::ip_address(ip) {
                errors.push(FieldError::invalid(format!("{here}.ip"), &json!(ip), &problem));
            }
        }
        match (ip, mode) {
            (_, "") => {}
            ("", _) => {
                let detail = "may not be specified when `ip` is not set";
                errors.push(FieldError::forbidden(format!("{here}.ipMode"), detail));
            }
            (_, "VIP" | "Proxy") => {}
            (_, mode) => {
                let modes = ["VIP", "Proxy"];
                errors.push(FieldError::not_supported(format!("{here}.ipMode"), &json!(mode), &modes));
            }
        }
        if hostname.is_empty() {
            continue;
        }
        if hostname.parse::<IpAddr>().is_ok() {
            let detail = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(format!("{here}.hostname"), &json!(hostname), detail));
        }
        for problem in names::dns_subdomain(hostname) {
            errors.push(FieldError::invalid(format!("{here}.hostname"), &json!(hostname), &problem));
        }
    }
}

/// A load balancer keeps its class.
pub(super) fn class_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    let both = [new, old].iter().all(|service| text(service, "spec.type") == "LoadBalancer");
    let (now, before) = (path::get(new, "spec.loadBalancerClass"), path::get(old, "spec.loadBalancerClass"));
    if both && now != before {
        let value = now.unwrap_or(&Value::Null);
        errors.push(FieldError::invalid("spec.loadBalancerClass", value, "may not change once set"));
    }
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}
