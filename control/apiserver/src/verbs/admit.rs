//! What is common to all writes: the checks of what came in, and the rules of the kind.

use http::header::USER_AGENT;
use serde_json::{Value, json};

use crate::api::{Call, key};
use crate::apply::managers;
use crate::error::ApiError;
use crate::object;
use crate::resource::{FieldError, Resource, find, prune};

/// Checks that a body is an object of the path's kind, in the path's namespace, with fields of the right types, and
/// removes the fields that the kind does not have. Returns warnings for the client, also of the duplicate keys that
/// were met when the body was read.
pub(crate) fn incoming(
    call: &Call<'_>,
    object: &mut Value,
    duplicates: &[String],
) -> Result<Vec<String>, ApiError> {
    let resource = call.resource;
    object::metadata_mut(object)?;
    same_kind(resource, object)?;
    place(call, object)?;
    let unknown = prune(resource, object).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    object::metadata_mut(object)?.remove("selfLink");
    managed_fields(resource, object)?;
    let duplicates = duplicates.iter().map(|path| format!("duplicate field \"{path}\""));
    let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
    let problems: Vec<String> = duplicates.chain(unknown).collect();
    match call.info.query.get("fieldValidation") {
        Some("Strict") if !problems.is_empty() => Err(ApiError::BadRequest(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            problems.join(", ")
        ))),
        Some("Ignore") => Ok(Vec::new()),
        _ => Ok(problems),
    }
}

/// Who owns which field may be written, by who knows what they do; it must be readable.
fn managed_fields(resource: &'static Resource, object: &Value) -> Result<(), ApiError> {
    let entries = &object["metadata"]["managedFields"];
    if managers::is_reset(entries) {
        return Ok(());
    }
    managers::decode(entries).map(drop).map_err(|(field, problem)| ApiError::Invalid {
        resource,
        name: object::meta(object, "name").to_owned(),
        errors: vec![FieldError::invalid(field, &json!(""), problem)],
    })
}

fn same_kind(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let api_version = resource.api_version();
    match object["apiVersion"].as_str() {
        None => object["apiVersion"] = json!(api_version),
        Some(found) if found == api_version => {}
        Some(found) => {
            return Err(ApiError::BadRequest(format!(
                "the API version in the data ({found}) does not match the expected API version ({api_version})"
            )));
        }
    }
    match object["kind"].as_str() {
        None => object["kind"] = json!(resource.kind),
        Some(found) if found == resource.kind => {}
        Some(found) => {
            return Err(ApiError::BadRequest(format!(
                "{found} in version {:?} cannot be handled as a {}: the kind in the data does not match the path",
                resource.version, resource.kind
            )));
        }
    }
    Ok(())
}

/// The namespace and name of the body must be those of the path.
fn place(call: &Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    let written = object::meta(object, "namespace").to_owned();
    let expected = call.target.namespace.as_deref().unwrap_or_default();
    if !written.is_empty() && written != expected {
        return Err(ApiError::BadRequest(OTHER_NAMESPACE.to_owned()));
    }
    if !expected.is_empty() {
        object["metadata"]["namespace"] = json!(expected);
    }
    let Some(name) = &call.target.name else { return Ok(()) };
    match object::meta(object, "name") {
        "" => object["metadata"]["name"] = json!(name),
        written if written == name => {}
        written => {
            return Err(ApiError::BadRequest(format!(
                "the name of the object ({written}) does not match the name on the URL ({name})"
            )));
        }
    }
    Ok(())
}

/// What is posted to a subresource, such as an `Eviction`, must be about the object that the path names, if it says what
/// it is about.
pub(crate) fn about_same(call: &Call<'_>, kind: &str, posted: &Value) -> Result<(), ApiError> {
    let says_other = |field: &str, expected: &str| {
        let written = object::meta(posted, field);
        !written.is_empty() && written != expected
    };
    if says_other("name", call.name()?) {
        return Err(ApiError::BadRequest(format!("name in URL does not match name in {kind} object")));
    }
    if says_other("namespace", call.target.namespace.as_deref().unwrap_or_default()) {
        return Err(ApiError::BadRequest(OTHER_NAMESPACE.to_owned()));
    }
    Ok(())
}

const OTHER_NAMESPACE: &str =
    "the namespace of the provided object does not match the namespace sent on the request";

/// How the fields that a write changes come to their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Whoever writes owns what differs.
    Changed,
    /// The object says it already, or the server itself writes.
    Noted,
}

/// The name of who writes: what the client calls itself in `fieldManager`, else what it is by its user agent.
pub(crate) fn manager<'c>(call: &Call<'c>) -> &'c str {
    if let Some(name) = call.info.query.get("fieldManager") {
        return name;
    }
    let agent = call.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    &name[..name.len().min(managers::NAME_LEN_MAX)]
}

/// Refuses new objects in a namespace that does not exist or is being deleted (admission plugin NamespaceLifecycle).
pub(crate) async fn namespace_takes_objects(call: &Call<'_>, name: &str) -> Result<(), ApiError> {
    let Some(namespace) = &call.target.namespace else { return Ok(()) };
    let namespaces = find("", "v1", "namespaces").ok_or(ApiError::UnknownPath)?;
    let entry = call.api.store.get(&key(namespaces, None, namespace)).await?;
    let entry = entry.ok_or_else(|| ApiError::NotFound { resource: namespaces, name: namespace.clone() })?;
    // Nearly all are not, which the bytes tell sooner than the object that they are.
    if !object::may_be_terminating(&entry.value)
        || !object::is_terminating(&object::decode(namespaces, &entry.value, entry.mod_revision)?)
    {
        return Ok(());
    }
    Err(ApiError::Forbidden {
        resource: call.resource,
        name: name.to_owned(),
        message: format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
        cause: Some((
            "NamespaceTerminating",
            format!("namespace {namespace} is being terminated"),
            "metadata.namespace",
        )),
    })
}
