//! Protobuf bodies, read into the JSON that they stand for.
//!
//! Clients written in Go send built-in kinds as `application/vnd.kubernetes.protobuf`: four magic bytes and a
//! `runtime.Unknown`, which names the kind and holds the object. One reader serves every kind; what a field of a message
//! is called in JSON is a row of a table that is made at build time. Go writes fields that are no pointers even when
//! nobody set them, so that zeros of such fields are left out, as its JSON leaves them out.

mod encode;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub use self::encode::encode;
pub(crate) use self::encode::{ListWriter, WATCH_MEDIA_TYPE, encode_partial, put_watch_event};
use self::table::{Field, Form, KINDS, Label, MESSAGES, Message};
use self::wire::{Raw, Reader};
use crate::body::VALUES_MAX;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with (apimachinery `pkg/runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";
/// The version of the kinds that belong to no group, and are sent under the version of any.
const META: &str = "meta.k8s.io/v1";
/// How deep messages may lie in each other; JSON is read as deep.
const DEPTH_MAX: usize = 128;

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not begin as it must.
    #[error("the body does not begin with the four bytes of a Kubernetes protobuf message (\"k8s\\0\")")]
    Magic,
    /// The body is compressed or in a form of its own.
    #[error("the content of the protobuf message is encoded as {encoding:?}, which is not known")]
    Encoding {
        /// What the message says.
        encoding: String,
    },
    /// The body names a kind that has no protobuf message.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Its group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// The bytes end in the middle of a field.
    #[error("the protobuf message ends in the middle of a field")]
    Truncated,
    /// The bytes are no message.
    #[error("the protobuf message holds what no message can hold: {0}")]
    Malformed(&'static str),
    /// The content of one field is not what the field takes.
    #[error("field {field}: {problem}")]
    Field {
        /// Its name in JSON.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Messages lie in each other deeper than any kind needs.
    #[error("the protobuf message is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// It holds more than any object needs.
    #[error("the protobuf message holds more than {VALUES_MAX} values")]
    TooMany,
}

/// How far the reader is.
struct Walk {
    depth: usize,
    /// How many values may follow.
    left: usize,
}

/// The object in a body.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(unknown);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Raw::Bytes(bytes)) => (api_version, kind) = type_meta(bytes)?,
            (2, Raw::Bytes(bytes)) => raw = bytes,
            (3, Raw::Bytes(bytes)) if !bytes.is_empty() => {
                let encoding = String::from_utf8_lossy(bytes).into_owned();
                return Err(ProtobufError::Encoding { encoding });
            }
            _ => {}
        }
    }
    let Some(message) = find(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = message.read(raw, &mut Walk { depth: 0, left: VALUES_MAX })?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    let (mut api_version, mut kind) = Default::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Raw::Bytes(bytes)) => api_version = text("apiVersion", bytes)?,
            (2, Raw::Bytes(bytes)) => kind = text("kind", bytes)?,
            _ => {}
        }
    }
    Ok((api_version, kind))
}

fn find(api_version: &str, kind: &str) -> Option<&'static Message> {
    let row = |version: &str| KINDS.iter().find(|(v, k, _)| (*v, *k) == (version, kind));
    let (_, _, number) = row(api_version).or_else(|| row(META))?;
    MESSAGES.get(usize::from(*number))
}

impl Message {
    fn read(&self, bytes: &[u8], walk: &mut Walk) -> Result<Map<String, Value>, ProtobufError> {
        let mut object = Map::new();
        self.read_into(&mut object, bytes, walk)?;
        Ok(object)
    }

    fn read_into(
        &self,
        object: &mut Map<String, Value>,
        bytes: &[u8],
        walk: &mut Walk,
    ) -> Result<(), ProtobufError> {
        if walk.depth > DEPTH_MAX {
            return Err(ProtobufError::TooDeep);
        }
        walk.depth += 1;
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            // Fields of a newer version are left out, as upstream does.
            let Ok(at) = self.fields.binary_search_by_key(&number, |field| u32::from(field.number)) else {
                continue;
            };
            self.fields[at].read(object, raw, walk)?;
        }
        walk.depth -= 1;
        Ok(())
    }
}

impl Field {
    fn read(
        &self,
        object: &mut Map<String, Value>,
        raw: Raw<'_>,
        walk: &mut Walk,
    ) -> Result<(), ProtobufError> {
        match (self.label, raw) {
            (Label::Inline, Raw::Bytes(bytes)) => {
                let Form::Message(number) = self.form else { return Err(self.problem("is no message")) };
                MESSAGES[usize::from(number)].read_into(object, bytes, walk)?;
            }
            (Label::Map, Raw::Bytes(bytes)) => {
                let (key, value) = self.entry(bytes, walk)?;
                let map = object.entry(self.name).or_insert_with(|| json!({}));
                map.as_object_mut().expect("it was made as a map").insert(key, value);
            }
            (Label::Repeated, raw) => {
                let mut values = Vec::new();
                match (self.form, raw) {
                    (Form::Int32 | Form::Int64, Raw::Bytes(packed)) => {
                        let mut reader = Reader::new(packed);
                        while !reader.is_empty() {
                            values.push(self.value(Raw::Varint(reader.varint()?), walk)?);
                        }
                    }
                    (_, raw) => values.push(self.value(raw, walk)?),
                }
                let list = object.entry(self.name).or_insert_with(|| json!([]));
                list.as_array_mut().expect("it was made as a list").extend(values);
            }
            (Label::One, raw) => {
                let value = self.value(raw, walk)?;
                if !(value.is_null() || self.drops_zero && is_zero(&value)) {
                    object.insert(self.name.to_owned(), value);
                }
            }
            _ => return Err(self.problem("is of the wrong wire type")),
        }
        Ok(())
    }

    fn entry(&self, bytes: &[u8], walk: &mut Walk) -> Result<(String, Value), ProtobufError> {
        let mut key = String::new();
        let mut value = None;
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => key = text(self.name, bytes)?,
                (2, raw) => value = Some(self.value(raw, walk)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => self.value(Raw::Bytes(&[]), walk)?,
        };
        Ok((key, value))
    }

    fn value(&self, raw: Raw<'_>, walk: &mut Walk) -> Result<Value, ProtobufError> {
        walk.left = walk.left.checked_sub(1).ok_or(ProtobufError::TooMany)?;
        Ok(match (self.form, raw) {
            (Form::Bool, Raw::Varint(number)) => json!(number != 0),
            (Form::Int32, Raw::Varint(number)) => json!(number as i32),
            (Form::Int64, Raw::Varint(number)) => json!(number as i64),
            (Form::String, Raw::Bytes(bytes)) => json!(text(self.name, bytes)?),
            (Form::Bytes, Raw::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
            (Form::Message(number), Raw::Bytes(bytes)) => {
                Value::Object(MESSAGES[usize::from(number)].read(bytes, walk)?)
            }
            (Form::Quantity, Raw::Bytes(bytes)) => {
                let quantity = self.leaf(bytes)?.text;
                json!(if quantity.is_empty() { "0".to_owned() } else { quantity })
            }
            (Form::IntOrString, Raw::Bytes(bytes)) => {
                let Leaf { numbers: [is_text, number, _], text, .. } = self.leaf(bytes)?;
                if is_text == 0 { json!(number) } else { json!(text) }
            }
            (Form::Time | Form::MicroTime, Raw::Bytes(bytes)) => self.time(bytes)?,
            (Form::Json, Raw::Bytes(bytes)) => match self.leaf(bytes)?.text {
                empty if empty.is_empty() => Value::Null,
                json => serde_json::from_str(&json).map_err(|error| self.problem(&error.to_string()))?,
            },
            (Form::Strings, Raw::Bytes(bytes)) => json!(self.leaf(bytes)?.items),
            _ => return Err(self.problem("is of the wrong wire type")),
        })
    }

    /// The fields of the small messages that are no objects in JSON.
    fn leaf(&self, bytes: &[u8]) -> Result<Leaf, ProtobufError> {
        let mut leaf = Leaf::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            match raw {
                Raw::Varint(value) => {
                    if let Some(slot) = leaf.numbers.get_mut(number as usize - 1) {
                        *slot = value as i64;
                    }
                }
                Raw::Bytes(bytes) => {
                    leaf.text = text(self.name, bytes)?;
                    leaf.items.push(leaf.text.clone());
                }
                Raw::Fixed => {}
            }
        }
        Ok(leaf)
    }

    /// A time; the zero time, which is an empty message, is none.
    fn time(&self, bytes: &[u8]) -> Result<Value, ProtobufError> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let Leaf { numbers: [seconds, nanos, _], .. } = self.leaf(bytes)?;
        let nanos = i32::try_from(nanos).map_err(|_| self.problem("the time is out of range"))?;
        let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| self.problem(&error.to_string()))?;
        Ok(match self.form {
            Form::MicroTime => json!(format!("{time:.6}")),
            _ => json!(format!("{time:.0}")),
        })
    }

    fn problem(&self, problem: &str) -> ProtobufError {
        ProtobufError::Field { field: self.name, problem: problem.to_owned() }
    }
}

/// What a small message may hold.
#[derive(Default)]
struct Leaf {
    numbers: [i64; 3],
    text: String,
    items: Vec<String>,
}

fn text(field: &'static str, bytes: &[u8]) -> Result<String, ProtobufError> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| ProtobufError::Field { field, problem: "the text is not UTF-8".to_owned() })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
