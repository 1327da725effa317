//! From JSON to protobuf: the same field table, read the other way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::table::{Field, Form, Label, MESSAGES, Message};
use super::{MAGIC, META, ProtobufError, find};

/// The media type of a watch.
pub(crate) const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The whole body for an object of a kind that has a message, or for a list of such objects.
pub fn encode(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw =
        match (find(api_version, kind), kind.strip_suffix("List").and_then(|kind| find(api_version, kind))) {
            (Some(message), _) => message.write(object)?,
            (None, Some(message)) => list(object, |item| message.write(item))?,
            (None, None) => {
                let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
                return Err(ProtobufError::UnknownKind { api_version, kind });
            }
        };
    Ok(envelope(api_version, kind, &raw))
}

/// The whole body for a `PartialObjectMetadata` or a list of such.
pub(crate) fn encode_partial(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let partial = |object: &Value| {
        let metadata = message_at(find("v1", "ConfigMap"), "metadata");
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &metadata.write(&object["metadata"])?);
        Ok(out)
    };
    let raw = if object["items"].is_array() { list(object, partial)? } else { partial(object)? };
    Ok(envelope(META, object["kind"].as_str().unwrap_or_default(), &raw))
}

/// One event of a watch: its length and a `WatchEvent` without an envelope, whose object is a whole body.
pub(crate) fn put_watch_event(out: &mut impl bytes::BufMut, kind: &str, object: &[u8]) {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 16);
    put_bytes(&mut event, 1, kind.as_bytes());
    put_bytes(&mut event, 2, &raw);
    out.put_u32(u32::try_from(event.len()).unwrap_or(u32::MAX));
    out.put_slice(&event);
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, raw);
    out
}

/// Every list of the API has its metadata and its items under the same numbers.
fn list(
    object: &Value,
    item: impl Fn(&Value) -> Result<Vec<u8>, ProtobufError>,
) -> Result<Vec<u8>, ProtobufError> {
    let metadata = message_at(find(META, "Status"), "metadata");
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &metadata.write(&object["metadata"])?);
    for one in object["items"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 2, &item(one)?);
    }
    Ok(out)
}

/// The message in a field of one that is known to have it.
fn message_at(owner: Option<&'static Message>, name: &str) -> &'static Message {
    let fields = owner.map_or(&[][..], |message| message.fields);
    let form = fields.iter().find(|field| field.name == name).map(|field| field.form);
    let Some(Form::Message(number)) = form else { unreachable!("every object has its metadata") };
    &MESSAGES[usize::from(number)]
}

impl Message {
    fn write(&self, object: &Value) -> Result<Vec<u8>, ProtobufError> {
        let mut out = Vec::new();
        if let Value::Object(entries) = object {
            self.fields.iter().try_for_each(|field| field.write(entries, &mut out))?;
        }
        Ok(out)
    }
}

impl Field {
    fn write(&self, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
        if let (Label::Inline, Form::Message(number)) = (self.label, self.form) {
            let mut inner = Vec::new();
            let fields = MESSAGES[usize::from(number)].fields;
            fields.iter().try_for_each(|field| field.write(object, &mut inner))?;
            if !inner.is_empty() {
                put_bytes(out, self.number, &inner);
            }
            return Ok(());
        }
        match (self.label, object.get(self.name)) {
            (_, None | Some(Value::Null)) => Ok(()),
            (Label::Repeated, Some(Value::Array(items))) => {
                items.iter().try_for_each(|item| self.put(out, self.number, item))
            }
            (Label::Map, Some(Value::Object(entries))) => entries.iter().try_for_each(|(key, value)| {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                self.put(&mut entry, 2, value)?;
                put_bytes(out, self.number, &entry);
                Ok(())
            }),
            (Label::One, Some(value)) => self.put(out, self.number, value),
            _ => Err(self.problem("is neither a list nor a map")),
        }
    }

    /// One value under a number.
    fn put(&self, out: &mut Vec<u8>, number: u16, value: &Value) -> Result<(), ProtobufError> {
        let unfit = || self.problem("does not fit its type");
        match (self.form, value) {
            (Form::Bool, Value::Bool(is)) => put_number(out, number, i64::from(*is)),
            (Form::Int32 | Form::Int64, Value::Number(_)) => {
                put_number(out, number, whole(value).ok_or_else(unfit)?);
            }
            (Form::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (Form::Bytes, Value::String(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| self.problem("is not base64"))?;
                put_bytes(out, number, &bytes);
            }
            (Form::Message(row), Value::Object(_)) => {
                put_bytes(out, number, &MESSAGES[usize::from(row)].write(value)?);
            }
            (form, value) => {
                let mut leaf = Vec::new();
                self.put_leaf(&mut leaf, form, value)?;
                put_bytes(out, number, &leaf);
            }
        }
        Ok(())
    }

    /// The fields of the small messages that are no objects in JSON.
    fn put_leaf(&self, out: &mut Vec<u8>, form: Form, value: &Value) -> Result<(), ProtobufError> {
        match (form, value) {
            (Form::Quantity, Value::String(text)) => put_bytes(out, 1, text.as_bytes()),
            (Form::Quantity, Value::Number(number)) => put_bytes(out, 1, number.to_string().as_bytes()),
            (Form::IntOrString, Value::String(text)) => {
                put_number(out, 1, 1);
                put_number(out, 2, 0);
                put_bytes(out, 3, text.as_bytes());
            }
            (Form::IntOrString, Value::Number(_)) => {
                put_number(out, 1, 0);
                put_number(out, 2, whole(value).ok_or_else(|| self.problem("does not fit its type"))?);
                put_bytes(out, 3, b"");
            }
            (Form::Time | Form::MicroTime, Value::String(text)) => {
                let time: jiff::Timestamp =
                    text.parse().map_err(|error: jiff::Error| self.problem(&error.to_string()))?;
                put_number(out, 1, time.as_second());
                put_number(out, 2, i64::from(time.subsec_nanosecond()));
            }
            (Form::Json, value) => put_bytes(out, 1, value.to_string().as_bytes()),
            (Form::Strings, Value::Array(items)) => {
                for item in items {
                    let text = item.as_str().ok_or_else(|| self.problem("does not fit its type"))?;
                    put_bytes(out, 1, text.as_bytes());
                }
            }
            _ => return Err(self.problem("does not fit its type")),
        }
        Ok(())
    }
}

/// A whole number, which JSON may write with a fraction of zero.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|real| real.fract() == 0.0).map(|real| real as i64))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Negative numbers take ten bytes, as their two's complement.
fn put_number(out: &mut Vec<u8>, number: u16, value: i64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value.cast_unsigned());
}

fn put_bytes(out: &mut Vec<u8>, number: u16, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
