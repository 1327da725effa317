//! Config maps, secrets and events.

use serde_json::Value;

use super::{Errors, text};
use crate::resource::error::FieldError;

const DATA_BYTES_MAX: usize = 1 << 20;

/// A key is text or bytes, and all of it fits.
pub(super) fn config_map(_: &str, map: &Value, errors: &mut Errors) {
    let binary = map.get("binaryData").and_then(Value::as_object);
    for key in binary.into_iter().flat_map(serde_json::Map::keys) {
        if map.get("data").is_some_and(|data| data.get(key).is_some()) {
            let detail = "duplicate of key present in data";
            errors.push(FieldError::invalid(
                format!("binaryData[{key}]"),
                &Value::from(key.as_str()),
                detail,
            ));
        }
    }
    if bytes(map.get("data")) + decoded(bytes(map.get("binaryData"))) > DATA_BYTES_MAX {
        errors.push(FieldError::too_long("", DATA_BYTES_MAX));
    }
}

/// All of a secret fits, and its type's keys are there.
pub(super) fn secret(_: &str, secret: &Value, errors: &mut Errors) {
    if decoded(bytes(secret.get("data"))) > DATA_BYTES_MAX {
        errors.push(FieldError::too_long("data", DATA_BYTES_MAX));
    }
    let required: &[&str] = match text(secret, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if secret.get("data").is_none_or(|data| data.get(key).is_none()) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
}

/// An event is in the namespace of what it is about.
pub(super) fn event(_: &str, event: &Value, errors: &mut Errors) {
    for about in ["involvedObject", "regarding"] {
        let Some(reference) = event.get(about) else { continue };
        let (of, here) = (text(reference, "namespace"), text(event, "metadata.namespace"));
        let allowed = if of.is_empty() { matches!(here, "default" | "kube-system" | "") } else { of == here };
        if !allowed {
            let field = format!("{about}.namespace");
            errors.push(FieldError::invalid(field, &Value::from(of), "does not match event.namespace"));
        }
    }
}

fn bytes(data: Option<&Value>) -> usize {
    let values = data.and_then(Value::as_object).into_iter().flat_map(serde_json::Map::values);
    values.filter_map(Value::as_str).map(str::len).sum()
}

/// The size of what so many base64 characters hold.
fn decoded(characters: usize) -> usize {
    characters / 4 * 3
}
