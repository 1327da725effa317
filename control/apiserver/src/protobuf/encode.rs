//! From JSON to protobuf: the same field table, read the other way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
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
            (None, Some(message)) => {
                let writer = ListWriter { api_version: api_version.to_owned(), kind, item: Some(message) };
                return writer.whole(object);
            }
            (None, None) => {
                let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
                return Err(ProtobufError::UnknownKind { api_version, kind });
            }
        };
    Ok(envelope(api_version, kind, &raw))
}

/// The whole body for a `PartialObjectMetadata`.
pub(crate) fn encode_partial(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    Ok(envelope(META, object["kind"].as_str().unwrap_or_default(), &partial(object)?))
}

fn partial(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let metadata = message_at(find("v1", "ConfigMap"), "metadata");
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &metadata.write(&object["metadata"])?);
    Ok(out)
}

/// One event of a watch: its length and a `WatchEvent` without an envelope, whose object is a whole body.
pub(crate) fn put_watch_event(out: &mut impl BufMut, kind: &str, object: &[u8]) {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 16);
    put_bytes(&mut event, 1, kind.as_bytes());
    put_bytes(&mut event, 2, &raw);
    out.put_u32(u32::try_from(event.len()).unwrap_or(u32::MAX));
    out.put_slice(&event);
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 64);
    put_envelope(&mut out, api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out
}

/// What stands before the object, which is so long.
fn put_envelope(out: &mut Vec<u8>, api_version: &str, kind: &str, raw_len: usize) {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    out.extend_from_slice(MAGIC);
    put_bytes(out, 1, &meta);
    put_varint(out, 2 << 3 | 2);
    put_varint(out, raw_len as u64);
}

/// Writes a list whose items are not there all at once. Every list of the API has its metadata and its items under the
/// same numbers.
#[derive(Debug)]
pub(crate) struct ListWriter<'k> {
    api_version: String,
    kind: &'k str,
    /// What its items are; `PartialObjectMetadata` when absent.
    item: Option<&'static Message>,
}

impl<'k> ListWriter<'k> {
    /// A list of a kind, by the name of the list.
    pub(crate) fn of(api_version: String, kind: &'k str) -> Result<Self, ProtobufError> {
        match kind.strip_suffix("List").and_then(|kind| find(&api_version, kind)) {
            Some(message) => Ok(Self { api_version, kind, item: Some(message) }),
            None => Err(ProtobufError::UnknownKind { api_version, kind: kind.to_owned() }),
        }
    }

    /// A list of metadata.
    pub(crate) fn partial(kind: &'k str) -> Self {
        Self { api_version: META.to_owned(), kind, item: None }
    }

    /// What stands before the items, which are so long together.
    pub(crate) fn head(&self, metadata: &Value, items_len: usize) -> Result<Vec<u8>, ProtobufError> {
        let mut first = Vec::new();
        put_bytes(&mut first, 1, &message_at(find(META, "Status"), "metadata").write(metadata)?);
        let mut out = Vec::with_capacity(first.len() + 64);
        put_envelope(&mut out, &self.api_version, self.kind, first.len() + items_len);
        out.extend_from_slice(&first);
        Ok(out)
    }

    /// The next item.
    pub(crate) fn put_item(&self, out: &mut impl BufMut, item: &Value) -> Result<(), ProtobufError> {
        let message = self.item.map_or_else(|| partial(item), |message| message.write(item))?;
        let mut head = Vec::with_capacity(8);
        put_varint(&mut head, 2 << 3 | 2);
        put_varint(&mut head, message.len() as u64);
        out.put_slice(&head);
        out.put_slice(&message);
        Ok(())
    }

    fn whole(&self, list: &Value) -> Result<Vec<u8>, ProtobufError> {
        let mut items = Vec::new();
        for item in list["items"].as_array().into_iter().flatten() {
            self.put_item(&mut items, item)?;
        }
        let mut out = self.head(&list["metadata"], items.len())?;
        out.append(&mut items);
        Ok(out)
    }
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
