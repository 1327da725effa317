//! Ingresses, their classes, and network policies.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Errors, apps, is_empty, items, text};
use crate::resource::error::FieldError;
use crate::resource::{names, path as place};

/// An ingress leads somewhere.
pub(super) fn spec(at: &str, spec: &Value, errors: &mut Errors) {
    let rules = items(spec, "rules").count();
    if rules == 0 && place::get(spec, "defaultBackend").is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(at, &json!([]), detail));
    }
}

/// A backend is a port of a service, or some other object.
pub(super) fn backend(at: &str, backend: &Value, errors: &mut Errors) {
    let (service, resource) = (place::get(backend, "service"), place::get(backend, "resource"));
    match (service, resource) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(at, &json!(""), detail));
        }
        (None, Some(resource)) => {
            for field in ["kind", "name"] {
                if text(resource, field).is_empty() {
                    errors.push(FieldError::required(format!("{at}.resource.{field}"), ""));
                }
            }
        }
        (None, None) => errors.push(FieldError::required(format!("{at}.service.name"), "")),
        (Some(service), None) => service_backend(at, service, errors),
    }
}

fn service_backend(at: &str, service: &Value, errors: &mut Errors) {
    let name = text(service, "name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{at}.service.name"), ""));
    } else {
        for problem in names::dns_1035_label(name) {
            errors.push(FieldError::invalid(format!("{at}.service.name"), &json!(name), &problem));
        }
    }
    let port_name = text(service, "port.name");
    let number = place::get(service, "port.number").and_then(Value::as_i64).unwrap_or_default();
    match (port_name, number) {
        ("", 0) => errors.push(FieldError::required(at, "port name or number is required")),
        ("", 1..=65_535) => {}
        ("", _) => {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("{at}.service.port.number"), &json!(number), detail));
        }
        (name, 0) => {
            for problem in names::port_name(name) {
                errors.push(FieldError::invalid(format!("{at}.service.port.name"), &json!(name), &problem));
            }
        }
        _ => errors.push(FieldError::invalid(at, &json!(""), "cannot set both port name & port number")),
    }
}

/// A host is a name, of which the first part may be any.
pub(super) fn host(at: &str, host: &Value, errors: &mut Errors) {
    let name = host.as_str().unwrap_or_default();
    if name.is_empty() {
        return;
    }
    if name.parse::<IpAddr>().is_ok() {
        errors.push(FieldError::invalid(at, host, "must be a DNS name, not an IP address"));
        return;
    }
    let rest = name.strip_prefix("*.").unwrap_or(name);
    for problem in names::dns_subdomain(rest) {
        errors.push(FieldError::invalid(at, host, &problem));
    }
}

/// A path begins at the root, and says how it is compared.
pub(super) fn path(at: &str, path: &Value, errors: &mut Errors) {
    let (kind, given) = (text(path, "pathType"), text(path, "path"));
    let field = format!("{at}.path");
    match kind {
        "" => errors.push(FieldError::required(format!("{at}.pathType"), "pathType must be specified")),
        "Exact" | "Prefix" if !given.starts_with('/') => {
            errors.push(FieldError::invalid(field, &json!(given), "must be an absolute path"));
        }
        "Exact" | "Prefix" => {
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if given.contains(part) {
                    let detail = format!("must not contain '{part}'");
                    errors.push(FieldError::invalid(&field, &json!(given), &detail));
                }
            }
        }
        "ImplementationSpecific" if !given.is_empty() && !given.starts_with('/') => {
            errors.push(FieldError::invalid(field, &json!(given), "must be an absolute path"));
        }
        "ImplementationSpecific" => {}
        other => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(format!("{at}.pathType"), &json!(other), &kinds));
        }
    }
}

/// A controller is named by its domain.
pub(super) fn controller(at: &str, controller: &Value, errors: &mut Errors) {
    let name = controller.as_str().unwrap_or_default();
    let (domain, path) = name.split_once('/').unwrap_or((name, ""));
    if !names::dns_subdomain(domain).is_empty() || path.is_empty() {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(at, controller, detail));
    }
}

/// There are two types of policies.
pub(super) fn policy_types(at: &str, types: &Value, errors: &mut Errors) {
    if types.as_array().map_or(0, Vec::len) > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(at, types, detail));
    }
}

/// A port of a policy is a number, a name, or a range.
pub(super) fn policy_port(at: &str, port: &Value, errors: &mut Errors) {
    let (first, last) = (place::get(port, "port"), port.get("endPort").and_then(Value::as_i64));
    match first {
        Some(Value::Number(number)) if !(1..=65_535).contains(&number.as_i64().unwrap_or_default()) => {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("{at}.port"), &json!(number), detail));
        }
        Some(Value::String(name)) => {
            for problem in names::port_name(name) {
                errors.push(FieldError::invalid(format!("{at}.port"), &json!(name), &problem));
            }
        }
        _ => {}
    }
    let Some(last) = last else { return };
    let field = format!("{at}.endPort");
    match first {
        None => {
            let detail = "may not be specified when `port` is not specified";
            errors.push(FieldError::invalid(field, &json!(last), detail));
        }
        Some(Value::Number(first)) if first.as_i64().is_some_and(|first| last < first) => {
            let detail = "must be greater than or equal to `port`";
            errors.push(FieldError::invalid(field, &json!(last), detail));
        }
        Some(Value::Number(_)) => {}
        Some(_) => {
            let detail = "may not be specified when `port` is non-numeric";
            errors.push(FieldError::invalid(field, &json!(last), detail));
        }
    }
}

/// A peer is a network, or pods and namespaces by their labels.
pub(super) fn peer(at: &str, peer: &Value, errors: &mut Errors) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = place::get(peer, field) {
            selectors += 1;
            apps::label_selector(&format!("{at}.{field}"), selector, errors);
        }
    }
    let Some(block) = place::get(peer, "ipBlock") else {
        if selectors == 0 {
            errors.push(FieldError::required(at, "must specify a peer"));
        }
        return;
    };
    if selectors > 0 {
        errors.push(FieldError::forbidden(at, "may not specify both ipBlock and another peer"));
    }
    let cidr = text(block, "cidr");
    if is_empty(block) || cidr.is_empty() {
        errors.push(FieldError::required(format!("{at}.ipBlock.cidr"), ""));
        return;
    }
    for problem in names::cidr(cidr) {
        errors.push(FieldError::invalid(format!("{at}.ipBlock.cidr"), &json!(cidr), &problem));
    }
    let network = cidr.parse::<IpNet>().ok();
    for (index, except) in items(block, "except") {
        let field = format!("{at}.ipBlock.except[{index}]");
        let given = except.as_str().unwrap_or_default();
        for problem in names::cidr(given) {
            errors.push(FieldError::invalid(&field, except, &problem));
        }
        if let (Some(network), Ok(inner)) = (network, given.parse::<IpNet>())
            && (!network.contains(&inner) || network.prefix_len() >= inner.prefix_len())
        {
            errors.push(FieldError::invalid(field, except, "must be a strict subset of `cidr`"));
        }
    }
}
