//! Objects as they are stored, and the few fields that every object has.
//!
//! An object is stored as JSON that begins with its metadata, without `resourceVersion` — that is the revision of the
//! write and known only afterwards. `managedFields` come first. [`with_version`] splices it in, so reads and watches need not decode anything.

use bytes::{BufMut, Bytes, BytesMut};
use fairlead_store::Revision;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::resource::{Resource, from_storage, to_storage};

/// The longest resource version, and what it is spliced in with.
const VERSION_LEN_MAX: usize = 64;
const HEAD: &str = "{\"metadata\":{";
/// The first member of the metadata, if it is there at all; so it is easily left out.
const MANAGED_FIELDS: &str = "\"managedFields\":[";
/// A pod with its owners fits.
const STORED_LEN_USUAL: usize = 4 << 10;

/// The bytes to store for an object of this kind.
pub(crate) fn encode(resource: &Resource, object: &Value) -> Bytes {
    encode_with(resource, object, &[])
}

/// The same for an object whose `managedFields` are JSON already.
pub(crate) fn encode_with(resource: &Resource, object: &Value, managed_fields: &[u8]) -> Bytes {
    if resource.strategy.conversion.is_some() {
        return write_stored(&to_storage(resource, object.clone()), managed_fields);
    }
    write_stored(object, managed_fields)
}

/// The bytes to store for an object in the form that it is stored in.
pub(crate) fn encode_stored(object: &Value) -> Bytes {
    write_stored(object, &[])
}

fn write_stored(object: &Value, managed_fields: &[u8]) -> Bytes {
    let mut json = Vec::with_capacity(STORED_LEN_USUAL);
    json.extend_from_slice(HEAD.as_bytes());
    let empty = Map::new();
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    if !managed_fields.is_empty() {
        json.extend_from_slice(b"\"managedFields\":");
        json.extend_from_slice(managed_fields);
    }
    let owners = metadata.iter().filter(|(key, _)| managed_fields.is_empty() && *key == "managedFields");
    let others =
        metadata.iter().filter(|(key, _)| !["managedFields", "resourceVersion"].contains(&key.as_str()));
    for (key, value) in owners.chain(others) {
        let first = json.len() == HEAD.len();
        push_member(&mut json, !first, key, value);
    }
    json.push(b'}');
    let rest = object.as_object().unwrap_or(&empty).iter().filter(|(key, _)| *key != "metadata");
    for (key, value) in rest {
        push_member(&mut json, true, key, value);
    }
    json.push(b'}');
    Bytes::from(json)
}

fn push_member(json: &mut Vec<u8>, comma: bool, key: &str, value: &Value) {
    const IN_MEMORY: &str = "writing JSON with text for keys into memory cannot fail";
    if comma {
        json.push(b',');
    }
    serde_json::to_writer(&mut *json, key).expect(IN_MEMORY);
    json.push(b':');
    serde_json::to_writer(&mut *json, value).expect(IN_MEMORY);
}

/// A stored object's JSON with its resource version, appended to `out`.
pub(crate) fn write_with_version(out: &mut BytesMut, stored: &[u8], revision: Revision, owners: Owners) {
    let rest = members(stored, owners);
    out.reserve(rest.len() + VERSION_LEN_MAX);
    out.put_slice(HEAD.as_bytes());
    put_version(out, revision, !rest.starts_with(b"}"));
    out.put_slice(rest);
}

/// A stored object's JSON with its resource version, as this kind shows it.
pub(crate) fn with_version(
    resource: &Resource,
    stored: &[u8],
    revision: Revision,
    owners: Owners,
) -> Result<Bytes, ApiError> {
    if resource.strategy.conversion.is_some() {
        return Ok(Bytes::from(decode(resource, stored, revision)?.to_string()));
    }
    let mut out = BytesMut::with_capacity(stored.len() + VERSION_LEN_MAX);
    write_with_version(&mut out, stored, revision, owners);
    Ok(out.freeze())
}

/// A stored object with its resource version, as this kind shows it.
pub(crate) fn decode(resource: &Resource, stored: &[u8], revision: Revision) -> Result<Value, ApiError> {
    let mut object: Value = serde_json::from_slice(stored)
        .map_err(|error| ApiError::Internal(format!("a stored {} is damaged: {error}", resource.kind)))?;
    if resource.strategy.conversion.is_some() {
        object = from_storage(resource, object);
    }
    set_version(&mut object, revision);
    Ok(object)
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn set_version(object: &mut Value, revision: Revision) {
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
}

/// `metadata`, made when it is absent; an object whose metadata is something else is refused.
pub(crate) fn metadata_mut(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let malformed = || ApiError::BadRequest("metadata must be an object".to_owned());
    let object = object
        .as_object_mut()
        .ok_or_else(|| ApiError::BadRequest("the body must be an object".to_owned()))?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(malformed)
}

/// A text in `metadata`, empty when absent.
pub(crate) fn meta<'o>(object: &'o Value, field: &str) -> &'o str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether deletion has begun.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// Whether a stored object may be one whose deletion has begun: only such a one holds that word.
pub(crate) fn may_be_terminating(stored: &[u8]) -> bool {
    const WORD: &[u8] = b"\"deletionTimestamp\"";
    stored.windows(WORD.len()).any(|window| window == WORD)
}

/// Whether nothing holds an object whose deletion has begun: no finalizer, and no grace that still runs.
pub(crate) fn is_released(object: &Value) -> bool {
    is_terminating(object)
        && finalizers(object).is_empty()
        && object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// A time as the API writes it, in whole seconds.
pub(crate) fn time(at: Timestamp) -> Value {
    json!(time_text(at))
}

/// The time as the API writes it.
pub(crate) fn now() -> String {
    time_text(Timestamp::now())
}

fn time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An object's metadata alone, as `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// A stored object's metadata alone, as the JSON of a `PartialObjectMetadata`; nothing is decoded.
pub(crate) fn write_partial(out: &mut BytesMut, stored: &[u8], revision: Revision, owners: Owners) {
    const KIND: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"#;
    let members = members(stored, owners);
    let metadata = &members[..end_of(members).unwrap_or_default()];
    out.reserve(KIND.len() + metadata.len() + 48);
    out.put_slice(KIND);
    put_version(out, revision, !metadata.is_empty());
    out.put_slice(metadata);
    out.put_slice(b"}}");
}

/// Whether an object is shown with its `managedFields`. They are half of its bytes and most of the work of reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    Shown,
    LeftOut,
}

/// A stored object from its first metadata member on.
fn members(stored: &[u8], owners: Owners) -> &[u8] {
    let members = stored.strip_prefix(HEAD.as_bytes()).unwrap_or_default();
    let list = members.strip_prefix(MANAGED_FIELDS.as_bytes()).filter(|_| owners == Owners::LeftOut);
    let Some((list, end)) = list.and_then(|list| Some((list, end_of(list)?))) else { return members };
    let rest = &list[end + 1..];
    rest.strip_prefix(b",").unwrap_or(rest)
}

/// Where the bracket is that closes the JSON list or object in which `json` begins.
fn end_of(json: &[u8]) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn put_version(out: &mut BytesMut, revision: Revision, more: bool) {
    out.put_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    if more {
        out.put_u8(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn what_is_not_asked_for_is_cut_out_of_the_stored_bytes() {
        let pods = find("", "v1", "pods").unwrap();
        let owners = json!([{ "manager": "a]\"\\", "fieldsV1": { "f:x": {}, "f:y": { ".": {} } } }]);
        let rows = [
            json!({}),
            json!({ "managedFields": owners }),
            json!({ "annotations": { "a": "}\"," }, "managedFields": owners, "name": "a]" }),
            json!({ "managedFields": [], "labels": {} }),
        ];
        for metadata in rows {
            let object =
                json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "a": "}" } });
            let stored = encode(pods, &object);
            let mut without = object;
            without["metadata"].as_object_mut().unwrap().remove("managedFields");
            let without = encode(pods, &without);
            for (owners, expected) in [(Owners::Shown, &stored), (Owners::LeftOut, &without)] {
                let expected = decode(pods, expected, 42).unwrap();
                let (mut whole, mut cut) = (BytesMut::new(), BytesMut::new());
                write_with_version(&mut whole, &stored, 42, owners);
                write_partial(&mut cut, &stored, 42, owners);
                assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap(), expected);
                assert_eq!(serde_json::from_slice::<Value>(&cut).unwrap(), partial(&expected));
            }
        }
    }

    #[test]
    fn the_version_is_spliced_into_the_stored_bytes() {
        let pods = find("", "v1", "pods").unwrap();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "a\"b", "resourceVersion": "1" },
            "spec": { "x": [1, null] },
        });
        let stored = encode(pods, &object);
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let mut expected = object;
        expected["metadata"]["resourceVersion"] = json!("42");
        let spliced = with_version(pods, &stored, 42, Owners::Shown).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), expected);
        assert_eq!(decode(pods, &stored, 42).unwrap(), expected);
    }
}
