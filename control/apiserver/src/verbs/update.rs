//! Updates and patches, of objects and of their status: one read-change-write loop.

use http::{Response, StatusCode};
use serde_json::Value;

use super::admit::{self, Ownership};
use super::{create, options};
use crate::api::Call;
use crate::apply::{self, Writer};
use crate::body::{self, Body};
use crate::commit::{self, Uncommitted, Written};
use crate::error::ApiError;
use crate::object;
use crate::patch::{self, PatchType};
use crate::resource::{FieldError, default, prepare_for_update};

/// How often a write that names no resource version is tried again when another writer was faster.
const ATTEMPTS: usize = 10;

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The subresource whose changes are the server's own.
const BINDING: &str = "binding";

/// Answers a PUT of an object, or of a subresource that has the object's form.
pub(crate) async fn replace(call: &Call<'_>, subresource: Option<&str>) -> Result<Response<Body>, ApiError> {
    let (mut sent, duplicates) = body::parse_strict(call.headers, &call.body)?;
    let warnings = admit::incoming(call, &mut sent, &duplicates)?;
    let written = modify(call, subresource, Ownership::Changed, |_| Ok(sent.clone())).await?;
    call.respond_written(StatusCode::OK, &written, &warnings)
}

/// Answers a PATCH of an object, or of a subresource that has the object's form.
pub(crate) async fn patch(call: &Call<'_>, subresource: Option<&str>) -> Result<Response<Body>, ApiError> {
    if PatchType::from_content_type(body::content_type(call.headers))? == PatchType::Apply {
        return apply(call, subresource).await;
    }
    let (kind, patch, duplicates) = parse_patch(call)?;
    let mut warnings = Vec::new();
    let written = modify(call, subresource, Ownership::Changed, |old| {
        let mut patched = patch::apply(call.resource, kind, old, &patch)?;
        warnings = admit::incoming(call, &mut patched, &duplicates)?;
        Ok(patched)
    })
    .await?;
    call.respond_written(StatusCode::OK, &written, &warnings)
}

/// The type of the patch in the body, the patch, and the paths of its keys that are there twice.
pub(crate) fn parse_patch(call: &Call<'_>) -> Result<(PatchType, Value, Vec<String>), ApiError> {
    let kind = PatchType::from_content_type(body::content_type(call.headers))?;
    if call.info.query.has("force") {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(options::refused(call.info.verb, error));
    }
    let (patch, duplicates) = body::parse_json(&call.body)
        .map_err(|error| ApiError::BadRequest(format!("the patch is not valid JSON: {error}")))?;
    Ok((kind, patch, duplicates))
}

/// Answers a server-side apply, which makes the object if it is not there.
async fn apply(call: &Call<'_>, subresource: Option<&str>) -> Result<Response<Body>, ApiError> {
    let (config, warnings) = parse_apply(call)?;
    let (manager, time) = (admit::manager(call), object::now());
    let write = Writer { resource: call.resource, subresource, manager, time: &time };
    let force = call.info.query.flag("force");
    for _ in 0..ATTEMPTS {
        let change = |old: &Value| Ok(apply::apply(write, Some(old), &config, force)?);
        match modify(call, subresource, Ownership::Noted, change).await {
            Err(ApiError::NotFound { resource, .. })
                if subresource.is_none() && std::ptr::eq(resource, call.resource) => {}
            outcome => return call.respond_written(StatusCode::OK, &outcome?, &warnings),
        }
        if !object::meta(&config, "uid").is_empty() {
            return Err(call.conflict(format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                object::meta(&config, "uid")
            )));
        }
        let object = apply::apply(write, None, &config, force)?;
        match create::insert(call, object, Ownership::Noted).await {
            // Somebody else made it just now.
            Err(ApiError::AlreadyExists { .. }) => {}
            outcome => return call.respond_written(StatusCode::CREATED, &outcome?, &warnings),
        }
    }
    Err(call.conflict(MODIFIED))
}

/// What a server-side apply says, and the warnings about it.
pub(crate) fn parse_apply(call: &Call<'_>) -> Result<(Value, Vec<String>), ApiError> {
    if call.info.query.get("fieldManager").is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(options::refused(call.info.verb, error));
    }
    let (mut config, duplicates) = body::parse_yaml(&call.body)?;
    if config["metadata"].get("managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(ApiError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let expected = call.resource.api_version();
    match config["apiVersion"].as_str() {
        Some(version) if version == expected => {}
        version => {
            return Err(ApiError::BadRequest(format!(
                "Incorrect version specified in apply patch. Specified patch version: {}, expected: {expected}",
                version.unwrap_or_default()
            )));
        }
    }
    let warnings = admit::incoming(call, &mut config, &duplicates)?;
    Ok((config, warnings))
}

/// Reads the object, lets `change` make the new one of it, and stores that under the kind's rules. When another writer
/// was faster it begins again, unless the new object names the resource version it was made from.
pub(crate) async fn modify(
    call: &Call<'_>,
    subresource: Option<&str>,
    ownership: Ownership,
    mut change: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Written, ApiError> {
    for _ in 0..ATTEMPTS {
        let entry = call.entry().await?;
        let old = object::decode(call.resource, &entry.value, entry.mod_revision)?;
        let mut new = change(&old)?;
        check_preconditions(call, &new, &old)?;
        // A binding writes what nobody else may: the node into the spec, and the condition that says so.
        let rules_of = if subresource == Some(BINDING) { None } else { Some(&old) };
        if let Some(old) = rules_of {
            prepare_for_update(call.resource, &mut new, old, subresource);
            default(call.resource, &mut new);
            if ownership == Ownership::Changed {
                let (manager, time) = (admit::manager(call), object::now());
                let write = Writer { resource: call.resource, subresource, manager, time: &time };
                apply::track(write, Some(old), &mut new);
            }
        }
        match commit::update(call, &entry, new, rules_of, subresource).await {
            Err(Uncommitted::Raced | Uncommitted::Outdated) => {}
            Err(Uncommitted::Refused(error)) => return Err(error),
            Ok(written) => return Ok(written),
        }
    }
    Err(call.conflict(MODIFIED))
}

/// A resource version or uid in the new object must be that of the stored one.
fn check_preconditions(call: &Call<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let version = object::meta(new, "resourceVersion");
    if !version.is_empty() && version != "0" && version != object::meta(old, "resourceVersion") {
        return Err(call.conflict(MODIFIED));
    }
    let (uid, stored) = (object::meta(new, "uid"), object::meta(old, "uid"));
    if !uid.is_empty() && uid != stored {
        return Err(call.conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}"
        )));
    }
    Ok(())
}
