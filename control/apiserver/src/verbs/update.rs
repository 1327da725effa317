//! Updates and patches, of objects and of their status: one read-change-write loop.

use bytes::Bytes;
use fairlead_store::{Entry, Revision, Write};
use http::{Response, StatusCode};
use serde_json::Value;

use super::admit;
use crate::api::{Call, warn};
use crate::body::{self, Body};
use crate::commit::{Uncommitted, commit};
use crate::error::ApiError;
use crate::object;
use crate::patch::{self, PatchType};
use crate::resource::{default, prepare_for_update, validate};

/// How often a write that names no resource version is tried again when another writer was faster.
const ATTEMPTS: usize = 10;

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The subresource whose changes are the server's own.
const BINDING: &str = "binding";

/// An object after a write.
pub(crate) type Written = (Value, Revision);

/// Answers a PUT of an object, or of a subresource that has the object's form.
pub(crate) async fn replace(call: &Call<'_>, subresource: Option<&str>) -> Result<Response<Body>, ApiError> {
    let (mut sent, duplicates) = body::parse_strict(call.headers, &call.body)?;
    let warnings = admit::incoming(call, &mut sent, &duplicates)?;
    let written = modify(call, subresource, |_| Ok(sent.clone())).await?;
    respond(call, written, &warnings)
}

/// Answers a PATCH of an object, or of a subresource that has the object's form.
pub(crate) async fn patch(call: &Call<'_>, subresource: Option<&str>) -> Result<Response<Body>, ApiError> {
    let (kind, patch) = parse_patch(call)?;
    let mut warnings = Vec::new();
    let written = modify(call, subresource, |old| {
        let mut patched = patch::apply(call.resource, kind, old, &patch)?;
        warnings = admit::incoming(call, &mut patched, &[])?;
        Ok(patched)
    })
    .await?;
    respond(call, written, &warnings)
}

/// The patch in the body and its type.
pub(crate) fn parse_patch(call: &Call<'_>) -> Result<(PatchType, Value), ApiError> {
    let kind = PatchType::from_content_type(body::content_type(call.headers))?;
    let patch = serde_json::from_slice(&call.body)
        .map_err(|error| ApiError::BadRequest(format!("the patch is not valid JSON: {error}")))?;
    Ok((kind, patch))
}

fn respond(
    call: &Call<'_>,
    (mut object, revision): Written,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    object::set_version(&mut object, revision);
    let mut response = call.respond(StatusCode::OK, object)?;
    warn(&mut response, warnings);
    Ok(response)
}

/// Reads the object, lets `change` make the new one of it, and stores that under the kind's rules. When another writer
/// was faster it begins again, unless the new object names the resource version it was made from.
pub(crate) async fn modify(
    call: &Call<'_>,
    subresource: Option<&str>,
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
        }
        match store(call, &entry, new, rules_of).await {
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

async fn store(
    call: &Call<'_>,
    entry: &Entry,
    mut new: Value,
    old: Option<&Value>,
) -> Result<Written, Uncommitted> {
    let resource = call.resource;
    let name = call.target.name.clone().unwrap_or_default();
    let store = &*call.api.store;
    let refused = Uncommitted::Refused;
    let mut claims = call.api.addresses.plan(store, resource, &mut new, old).await.map_err(refused)?;
    let mut errors = validate(resource, &new, old);
    let dry_run = call.info.query.dry_run().map_err(refused)?;
    if dry_run && errors.is_empty() {
        errors = claims.conflicts(store).await.map_err(|error| refused(error.into()))?;
    }
    if !errors.is_empty() {
        return Err(refused(ApiError::Invalid { resource, name, errors }));
    }
    let bytes: Bytes = object::encode(resource, &new);
    if dry_run || bytes == entry.value {
        return Ok((new, entry.mod_revision));
    }
    let (key, expected) = (entry.key.clone(), entry.mod_revision);
    let own = if object::is_released(&new) {
        claims = call.api.addresses.release(resource, old.unwrap_or(&new));
        Write::Delete { key, expected: Some(expected) }
    } else {
        Write::Update { key, value: bytes, expected }
    };
    let revision = commit(call, own, &new, &claims).await?;
    Ok((new, revision))
}
