//! Rights, priorities, certificates and webhooks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Errors, is_empty, text};
use crate::resource::error::FieldError;
use crate::resource::{names, path};

/// The greatest priority of those that users define.
const PRIORITY_MAX: i64 = 1_000_000_000;
/// The classes that the system defines, with their priorities.
pub(crate) const SYSTEM_PRIORITIES: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
/// A certificate is good for ten minutes at least.
const CERTIFICATE_SECS_MIN: i64 = 600;

/// A rule is about resources, or about paths that are none.
pub(super) fn policy_rule(at: &str, rule: &Value, errors: &mut Errors) {
    let given = |field| rule.get(field).is_some_and(|list| !is_empty(list));
    if given("nonResourceURLs") {
        if ["apiGroups", "resources", "resourceNames"].into_iter().any(given) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(
                format!("{at}.nonResourceURLs"),
                &rule["nonResourceURLs"],
                detail,
            ));
        }
        return;
    }
    for (field, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if !given(field) {
            let detail = format!("resource rules must supply at least one {what}");
            errors.push(FieldError::required(format!("{at}.{field}"), &detail));
        }
    }
}

/// Roles come in two kinds.
pub(super) fn role_kind(at: &str, kind: &Value, errors: &mut Errors) {
    if !matches!(kind.as_str(), Some("Role" | "ClusterRole")) {
        errors.push(FieldError::not_supported(at, kind, &["Role", "ClusterRole"]));
    }
}

/// A subject is a user, a group, or a service account of a namespace.
pub(super) fn subject(at: &str, subject: &Value, errors: &mut Errors) {
    match text(subject, "kind") {
        "ServiceAccount" => {
            if text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(format!("{at}.namespace"), ""));
            }
        }
        "User" | "Group" => {}
        other => {
            let kinds = ["Group", "ServiceAccount", "User"];
            errors.push(FieldError::not_supported(format!("{at}.kind"), &json!(other), &kinds));
        }
    }
}

/// A binding is about one role for good.
pub(super) fn role_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    if new.get("roleRef") != old.get("roleRef") {
        let value = new.get("roleRef").unwrap_or(&Value::Null);
        errors.push(FieldError::invalid("roleRef", value, "cannot change roleRef"));
    }
}

/// Users' priorities are below the system's.
pub(super) fn priority_class(_: &str, class: &Value, errors: &mut Errors) {
    let (name, value) = (text(class, "metadata.name"), class["value"].as_i64().unwrap_or_default());
    match SYSTEM_PRIORITIES.iter().find(|(known, _)| *known == name) {
        Some((_, priority)) if *priority == value => {}
        _ if name.starts_with("system-") => {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. \
                          error: the class does not match the known system class"
                .to_owned();
            errors.push(FieldError::forbidden("metadata.name", &detail));
        }
        _ if value > PRIORITY_MAX => {
            let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
            errors.push(FieldError::forbidden("value", &detail));
        }
        _ => {}
    }
}

/// A request is PEM in base64.
pub(super) fn certificate_request(at: &str, request: &Value, errors: &mut Errors) {
    let bytes = STANDARD.decode(request.as_str().unwrap_or_default()).unwrap_or_default();
    if !bytes.windows(27).any(|window| window == b"BEGIN CERTIFICATE REQUEST--") {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid(at, request, detail));
    }
}

/// A signer is named by its domain.
pub(super) fn signer_name(at: &str, signer: &Value, errors: &mut Errors) {
    let (domain, rest) = signer.as_str().and_then(|name| name.split_once('/')).unwrap_or_default();
    let qualified = domain.contains('.') && names::dns_subdomain(domain).is_empty();
    if !qualified || rest.is_empty() || rest.contains('/') {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(at, signer, detail));
    }
}

/// A certificate is not for a moment.
pub(super) fn certificate_duration(at: &str, seconds: &Value, errors: &mut Errors) {
    if seconds.as_i64().is_some_and(|seconds| seconds < CERTIFICATE_SECS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(at, seconds, detail));
    }
}

/// A request is approved or denied, not both.
pub(super) fn request_conditions(at: &str, conditions: &Value, errors: &mut Errors) {
    let all = conditions.as_array().map_or(&[][..], Vec::as_slice);
    let has = |kind| all.iter().any(|condition| condition["type"] == kind);
    if has("Approved") && has("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(at, conditions, detail));
    }
    for (index, condition) in all.iter().enumerate() {
        if text(condition, "type").is_empty() {
            errors.push(FieldError::required(format!("{at}[{index}].type"), ""));
        }
        let denied = matches!(text(condition, "type"), "Approved" | "Denied");
        if denied && text(condition, "status") != "True" {
            let field = format!("{at}[{index}].status");
            errors.push(FieldError::not_supported(field, &condition["status"], &["True"]));
        }
    }
}

/// A webhook is called at an address or as a service.
pub(super) fn client_config(at: &str, config: &Value, errors: &mut Errors) {
    let (url, service) = (path::get(config, "url"), path::get(config, "service"));
    if url.is_some() == service.is_some() {
        errors.push(FieldError::required(at, "exactly one of url or service is required"));
    }
    if let Some(url) = url
        && !url.as_str().is_some_and(|url| url.starts_with("https://"))
    {
        let detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
        errors.push(FieldError::invalid(format!("{at}.url"), url, detail));
    }
    for field in ["namespace", "name"] {
        if service.is_some_and(|service| text(service, field).is_empty()) {
            errors.push(FieldError::required(format!("{at}.service.{field}"), ""));
        }
    }
}
