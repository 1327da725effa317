//! `metadata`, which every kind has.

use serde_json::Value;

use super::{Errors, items, text};
use crate::resource::error::FieldError;
use crate::resource::names::{self, Syntax};
use crate::resource::{Resource, path};

const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// The syntax of a kind's names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NameSyntax {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1035 label.
    Label1035,
    /// Anything that can be a segment of a path.
    PathSegment,
    /// An address in its one written form.
    Address,
}

pub(super) fn validate(resource: &Resource, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    names_of(resource, new, errors);
    if let Some(found) = path::get(new, "metadata.labels") {
        labels("metadata.labels", found, errors);
    }
    annotations(new, errors);
    finalizers(new, old, errors);
    owners(new, errors);
    if let Some(old) = old {
        for field in ["metadata.name", "metadata.namespace", "metadata.uid"] {
            let (now, before) = (text(new, field), text(old, field));
            if now != before && !before.is_empty() {
                errors.push(FieldError::invalid(field, &Value::from(now), "field is immutable"));
            }
        }
    }
}

fn names_of(resource: &Resource, new: &Value, errors: &mut Errors) {
    let syntax: Syntax = match resource.strategy.name {
        NameSyntax::Subdomain => names::dns_subdomain,
        NameSyntax::Label => names::dns_label,
        NameSyntax::Label1035 => names::dns_1035_label,
        NameSyntax::PathSegment => names::path_segment,
        NameSyntax::Address => names::canonical_address,
    };
    let (name, generate) = (text(new, "metadata.name"), text(new, "metadata.generateName"));
    if name.is_empty() && generate.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    }
    if !generate.is_empty() {
        // What follows the prefix is alphanumeric, so a trailing dash is fine.
        let sample = if generate.ends_with('-') { format!("{generate}a") } else { generate.to_owned() };
        for problem in syntax(&sample) {
            errors.push(FieldError::invalid("metadata.generateName", &Value::from(generate), &problem));
        }
    }
    if !name.is_empty() {
        for problem in syntax(name) {
            errors.push(FieldError::invalid("metadata.name", &Value::from(name), &problem));
        }
    }
    let namespace = text(new, "metadata.namespace");
    match (resource.namespaced, namespace) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, _) => {
            for problem in names::dns_label(namespace) {
                errors.push(FieldError::invalid("metadata.namespace", &Value::from(namespace), &problem));
            }
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
}

/// A map of labels: the keys are qualified names, the values label values.
pub(super) fn labels(path: &str, labels: &Value, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid(path, &Value::from(key.as_str()), &problem));
        }
        for problem in names::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(path, value, &problem));
        }
    }
}

fn annotations(new: &Value, errors: &mut Errors) {
    let annotations = path::get(new, "metadata.annotations").and_then(Value::as_object);
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &Value::from(key.as_str()), &problem));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
}

fn finalizers(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    for (index, finalizer) in items(new, "metadata.finalizers") {
        let name = finalizer.as_str().unwrap_or_default();
        for problem in names::qualified_name(name) {
            errors.push(FieldError::invalid(format!("metadata.finalizers[{index}]"), finalizer, &problem));
        }
    }
    let Some(old) = old.filter(|old| path::get(old, "metadata.deletionTimestamp").is_some()) else { return };
    let before: Vec<&Value> = items(old, "metadata.finalizers").map(|(_, finalizer)| finalizer).collect();
    let added: Vec<String> = items(new, "metadata.finalizers")
        .filter(|(_, finalizer)| !before.contains(finalizer))
        .map(|(_, finalizer)| finalizer.to_string())
        .collect();
    if !added.is_empty() {
        let problem = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        errors.push(FieldError::forbidden("metadata.finalizers", &problem));
    }
}

fn owners(new: &Value, errors: &mut Errors) {
    let mut controllers = Vec::new();
    for (index, owner) in items(new, "metadata.ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                let at = format!("metadata.ownerReferences[{index}].{field}");
                let detail =
                    if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                errors.push(FieldError::invalid(at, &Value::from(""), detail));
            }
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            controllers.push(text(owner, "name"));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let problem = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        let references = path::get(new, "metadata.ownerReferences").unwrap_or(&Value::Null);
        errors.push(FieldError::invalid("metadata.ownerReferences", references, &problem));
    }
}
