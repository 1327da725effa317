//! Reading an object as its type, to find fields of the wrong type and fields that do not exist.
//!
//! The types come from `k8s-openapi`; the deserialiser here walks a JSON value on their behalf and notes where it is,
//! so that the answer names the field as upstream does. A field the type does not know is noted and skipped.

use std::cell::RefCell;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::Resource;

/// A field holds JSON of the wrong type; the text continues `Pod in version "v1" cannot be handled as a Pod: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} in version {version:?} cannot be handled as a {kind}: {problem}")]
pub struct TypeError {
    kind: &'static str,
    version: String,
    problem: String,
}

/// Reads a value as a kind's type; the fields that the type does not know are pushed to the log.
pub(crate) type Decode = fn(&Value, &Log) -> Result<(), DecodeError>;

/// The decoder for `T`.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value, log: &Log) -> Result<(), DecodeError> {
    let top = Place { outer: None, step: Step::Top };
    T::deserialize(Reader { value, place: &top, owner: "", log }).map(drop)
}

/// Whether every known field of the object has the right JSON type. `apiVersion` and `kind` must be set.
pub fn check_types(resource: &Resource, object: &Value) -> Result<(), TypeError> {
    (resource.strategy.decode)(object, &Log::default()).map_err(|problem| problem.of(resource))
}

/// The paths of the fields that the kind does not have, such as `spec.template.spec.containers[0].foo`. The object
/// must have passed [`check_types`].
pub fn unknown_fields(resource: &Resource, object: &Value) -> Vec<String> {
    unknown(resource, object).iter().map(|path| render(path)).collect()
}

/// Checks the types of the fields, and removes those that the kind does not have, and nulls, which mean "not set"; returns
/// the paths of the former. `apiVersion` and `kind` must be set.
pub fn prune(resource: &Resource, object: &mut Value) -> Result<Vec<String>, TypeError> {
    let log = Log::default();
    (resource.strategy.decode)(object, &log).map_err(|problem| problem.of(resource))?;
    let paths = log.unknown.into_inner();
    for path in &paths {
        remove(object, path);
    }
    remove_nulls(object);
    Ok(paths.iter().map(|path| render(path)).collect())
}

/// What the decoders noted on their way.
#[derive(Debug, Default)]
pub(crate) struct Log {
    unknown: RefCell<Vec<Vec<Owned>>>,
}

/// Why a value could not be read.
#[derive(Debug)]
pub(crate) struct DecodeError(String);

impl DecodeError {
    fn of(self, resource: &Resource) -> TypeError {
        TypeError { kind: resource.kind, version: resource.api_version(), problem: self.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Key(String),
    Index(usize),
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Key(&'a str),
    Index(usize),
}

struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    step: Step<'a>,
}

/// The deserialiser of one value at one place; `owner` is the type that the field belongs to.
#[derive(Clone, Copy)]
struct Reader<'de, 'a> {
    value: &'de Value,
    place: &'a Place<'a>,
    owner: &'static str,
    log: &'a Log,
}

struct Entries<'de, 'a> {
    iter: serde_json::map::Iter<'de>,
    current: Option<(&'de str, &'de Value)>,
    reader: Reader<'de, 'a>,
}

struct Items<'de, 'a> {
    iter: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    reader: Reader<'de, 'a>,
}

impl Place<'_> {
    fn path(&self) -> Vec<Owned> {
        let mut path = self.outer.map(Place::path).unwrap_or_default();
        match self.step {
            Step::Top => {}
            Step::Key(key) => path.push(Owned::Key(key.to_owned())),
            Step::Index(index) => path.push(Owned::Index(index)),
        }
        path
    }
}

impl<'de, 'a> Reader<'de, 'a> {
    fn mismatch(&self, wanted: &str) -> DecodeError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let path = render(&self.place.path());
        let place = match (self.owner, path.as_str()) {
            (_, "") => "Go value".to_owned(),
            ("", path) => format!("Go struct field {path}"),
            (owner, path) => format!("Go struct field {owner}.{path}"),
        };
        DecodeError(format!("json: cannot unmarshal {found} into {place} of type {wanted}"))
    }

    /// An error of the type's own, such as a timestamp that cannot be read, gets the field's name.
    fn located(&self, DecodeError(problem): DecodeError) -> DecodeError {
        let path = render(&self.place.path());
        if path.is_empty() || problem.starts_with("json: ") || problem.starts_with("field ") {
            DecodeError(problem)
        } else {
            DecodeError(format!("field {path}: {problem}"))
        }
    }

    fn scalar<V: Visitor<'de>>(self, wanted: &str, fits: bool, visitor: V) -> Result<V::Value, DecodeError> {
        if !fits {
            return Err(self.mismatch(wanted));
        }
        let read = de::Deserializer::deserialize_any(self.value, visitor);
        read.map_err(|error| self.located(DecodeError(error.to_string())))
    }

    fn integer<V: Visitor<'de>>(
        self,
        wanted: &str,
        (min, max): (i64, i64),
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Number(number) if number.as_i64().is_some_and(|n| (min..=max).contains(&n)) => {
                self.scalar(wanted, true, visitor)
            }
            Value::Number(number) => {
                let DecodeError(text) = self.mismatch(wanted);
                Err(DecodeError(text.replacen("number", &format!("number {number}"), 1)))
            }
            _ => Err(self.mismatch(wanted)),
        }
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            _ => self.scalar("value", true, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.scalar("bool", self.value.is_boolean(), visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.integer("int32", (i32::MIN.into(), i32::MAX.into()), visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.integer("int64", (i64::MIN, i64::MAX), visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.scalar("float64", self.value.is_number(), visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.scalar("string", self.value.is_string(), visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self).map_err(|error| self.located(error))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Array(items) = self.value else { return Err(self.mismatch("list")) };
        visitor.visit_seq(Items { iter: items.iter().enumerate(), reader: self })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Object(entries) = self.value else { return Err(self.mismatch("map")) };
        visitor.visit_map(Entries { iter: entries.iter(), current: None, reader: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if !self.value.is_object() {
            return Err(self.mismatch(name));
        }
        Reader { owner: name, ..self }.deserialize_map(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.log.unknown.borrow_mut().push(self.place.path());
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        // A null means "not set", and not every type takes it.
        let Some((key, value)) = self.iter.by_ref().find(|(_, value)| !value.is_null()) else {
            return Ok(None);
        };
        self.current = Some((key, value));
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let (key, value) =
            self.current.take().ok_or_else(|| DecodeError("value before its key".to_owned()))?;
        let place = Place { outer: Some(self.reader.place), step: Step::Key(key) };
        seed.deserialize(Reader { value, place: &place, ..self.reader })
    }
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some((index, value)) = self.iter.next() else { return Ok(None) };
        let place = Place { outer: Some(self.reader.place), step: Step::Index(index) };
        seed.deserialize(Reader { value, place: &place, ..self.reader }).map(Some)
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

fn unknown(resource: &Resource, object: &Value) -> Vec<Vec<Owned>> {
    let log = Log::default();
    // A value of the wrong type ends the walk; what was found until then is still true.
    let _ = (resource.strategy.decode)(object, &log);
    log.unknown.into_inner()
}

fn render(path: &[Owned]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Owned::Index(index) => text.push_str(&format!("[{index}]")),
            Owned::Key(key) if text.is_empty() => text.push_str(key),
            Owned::Key(key) => text.push_str(&format!(".{key}")),
        }
    }
    text
}

fn remove(object: &mut Value, path: &[Owned]) {
    match (path, object) {
        ([Owned::Key(key)], Value::Object(map)) => drop(map.remove(key)),
        ([Owned::Key(key), rest @ ..], Value::Object(map)) => {
            map.get_mut(key).into_iter().for_each(|child| remove(child, rest));
        }
        ([Owned::Index(index), rest @ ..], Value::Array(list)) => {
            list.get_mut(*index).into_iter().for_each(|child| remove(child, rest));
        }
        _ => {}
    }
}

/// Removes what is null, which means "not set".
pub(crate) fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
