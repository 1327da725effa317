//! Services and endpoint slices.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Errors, items, text};
use crate::resource::error::FieldError;
use crate::resource::{names, path};

/// What of a service's spec depends on more than one field.
pub(super) fn service(at: &str, spec: &Value, errors: &mut Errors) {
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None";
    let ports = items(spec, "ports").count();
    if ports == 0 && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(format!("{at}.ports"), ""));
    }
    if kind == "ExternalName" {
        external_name(at, spec, errors);
    } else {
        addresses(at, spec, errors);
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(format!("{at}.clusterIPs[0]"), &json!("None"), &detail));
    }
    let mut seen = Vec::new();
    for (index, port) in items(spec, "ports") {
        let here = format!("{at}.ports[{index}]");
        if ports > 1 && text(port, "name").is_empty() {
            errors.push(FieldError::required(format!("{here}.name"), ""));
        }
        let node_port = port.get("nodePort").and_then(Value::as_i64).unwrap_or_default();
        if node_port != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            let detail = format!("may not be used when `type` is '{kind}'");
            errors.push(FieldError::forbidden(format!("{here}.nodePort"), &detail));
        }
        let claim = (text(port, "protocol"), port.get("port"));
        if seen.contains(&claim) {
            let shown = json!({"protocol": claim.0, "port": claim.1});
            errors.push(FieldError::duplicate(here, &shown));
        }
        seen.push(claim);
    }
}

fn external_name(at: &str, spec: &Value, errors: &mut Errors) {
    let field = format!("{at}.externalName");
    let name = text(spec, "externalName");
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else {
        for problem in names::dns_subdomain(name.trim_end_matches('.')) {
            errors.push(FieldError::invalid(&field, &Value::from(name), &problem));
        }
    }
    if !text(spec, "clusterIP").is_empty() {
        let detail = "may not be set when `type` is 'ExternalName'";
        errors.push(FieldError::forbidden(format!("{at}.clusterIP"), detail));
    }
}

fn addresses(at: &str, spec: &Value, errors: &mut Errors) {
    let invalid = |address: &str| !matches!(address, "" | "None") && address.parse::<IpAddr>().is_err();
    let detail = "must be empty, 'None', or a valid IP address";
    let first = text(spec, "clusterIP");
    if invalid(first) {
        errors.push(FieldError::invalid(format!("{at}.clusterIP"), &Value::from(first), detail));
    }
    for (index, address) in items(spec, "clusterIPs") {
        let text = address.as_str().unwrap_or_default();
        let field = format!("{at}.clusterIPs[{index}]");
        if invalid(text) {
            errors.push(FieldError::invalid(field, address, detail));
        } else if index == 0 && !first.is_empty() && text != first {
            errors.push(FieldError::invalid(
                format!("{at}.clusterIPs"),
                address,
                "first value must match `clusterIP`",
            ));
        }
    }
    let families: Vec<&str> = items(spec, "ipFamilies").filter_map(|(_, family)| family.as_str()).collect();
    for (index, family) in families.iter().enumerate() {
        if !matches!(*family, "IPv4" | "IPv6") {
            let field = format!("{at}.ipFamilies[{index}]");
            errors.push(FieldError::not_supported(field, &Value::from(*family), &["IPv4", "IPv6"]));
        } else if families[..index].contains(family) {
            errors.push(FieldError::duplicate(format!("{at}.ipFamilies[{index}]"), &Value::from(*family)));
        }
    }
}

/// The addresses of an endpoint slice are of its type.
pub(super) fn endpoint_slice(_: &str, slice: &Value, errors: &mut Errors) {
    let kind = text(slice, "addressType");
    for (index, endpoint) in items(slice, "endpoints") {
        let here = format!("endpoints[{index}].addresses");
        let count = items(endpoint, "addresses").count();
        if count == 0 {
            errors.push(FieldError::required(&here, "must contain at least 1 address"));
        } else if count > 100 {
            errors.push(FieldError::too_many(&here, count, 100));
        }
        for (index, address) in items(endpoint, "addresses") {
            let field = format!("{here}[{index}]");
            let text = address.as_str().unwrap_or_default();
            let parsed = text.parse::<IpAddr>().ok();
            let problem = match kind {
                "IPv4" if !parsed.is_some_and(|ip| ip.is_ipv4()) => "must be a valid IPv4 address",
                "IPv6" if !parsed.is_some_and(|ip| ip.is_ipv6()) => "must be a valid IPv6 address",
                "IPv4" | "IPv6" => special(text).unwrap_or_default(),
                _ => "",
            };
            if !problem.is_empty() {
                errors.push(FieldError::invalid(&field, address, problem));
            }
            if kind == "FQDN" {
                for problem in names::dns_subdomain(text.trim_end_matches('.')) {
                    errors.push(FieldError::invalid(&field, address, &problem));
                }
            }
        }
    }
    let mut seen = Vec::new();
    for (index, port) in items(slice, "ports") {
        let name = text(port, "name");
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(format!("ports[{index}].name"), &Value::from(name)));
        }
        seen.push(name);
    }
}

/// Addresses that no endpoint may have, since they mean something on the node itself.
pub(super) fn special(address: &str) -> Option<&'static str> {
    let (unspecified, loopback, link_local, multicast) = match address.parse().ok()? {
        IpAddr::V4(ip) => (
            ip.is_unspecified(),
            ip.is_loopback(),
            ip.is_link_local(),
            ip.octets()[0] == 224 && ip.octets()[1] == 0 && ip.octets()[2] == 0,
        ),
        IpAddr::V6(ip) => {
            (ip.is_unspecified(), ip.is_loopback(), ip.is_unicast_link_local(), ip.segments()[0] == 0xff02)
        }
    };
    let rows = [
        (unspecified, "may not be unspecified (0.0.0.0 or ::)"),
        (loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    rows.iter().find(|(holds, _)| *holds).map(|(_, problem)| *problem)
}

/// Affinity and its timeout fit together.
pub(super) fn session_affinity(at: &str, spec: &Value, errors: &mut Errors) {
    let timeout = path::get(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").and_then(Value::as_i64);
    match (text(spec, "sessionAffinity"), timeout) {
        ("None", _) if path::get(spec, "sessionAffinityConfig").is_some() => {
            let detail = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden(format!("{at}.sessionAffinityConfig"), detail));
        }
        ("ClientIP", Some(seconds)) if !(1..=86_400).contains(&seconds) => {
            let field = format!("{at}.sessionAffinityConfig.clientIP.timeoutSeconds");
            let detail = "must be greater than 0 and less than 86400";
            errors.push(FieldError::invalid(field, &Value::from(seconds), detail));
        }
        _ => {}
    }
}
