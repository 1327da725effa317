//! Walks over objects along their shape: which fields there are, what differs, merging, and removing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::schema::{Key, Shape};
use super::set::{Element, FieldPath, Set};

/// What differs between two objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

/// The elements of a list cannot be told apart; the text names the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ListError(String);

/// The fields of an object, as its writer owns them.
pub(super) fn fields(value: &Value, shape: Shape) -> Result<Set, ListError> {
    let mut set = Set::default();
    collect(value, shape, &mut FieldPath::default(), &mut set)?;
    Ok(set)
}

fn collect(value: &Value, shape: Shape, at: &mut FieldPath, set: &mut Set) -> Result<(), ListError> {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(entries)) => {
            for (name, value) in entries {
                at.0.push(Element::Field(name.clone()));
                collect(value, shape.under(name), at, set)?;
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if is_empty || shape.field(name).is_none() {
                    set.insert(&at.0);
                }
                at.0.pop();
            }
        }
        (Shape::Set | Shape::List { .. }, Value::Array(items)) => {
            for (element, item) in told_apart(items, shape, at)? {
                at.0.push(element);
                collect(item, shape.element(), at, set)?;
                set.insert(&at.0);
                at.0.pop();
            }
        }
        _ => set.insert(&at.0),
    }
    Ok(())
}

/// Writes the fields that whoever makes a new object owns as `fieldsV1`: what [`compare`] finds added to nothing, without
/// the names that nobody owns, of the object and of its metadata. No set is made on the way, for this is done for every
/// create. Returns false when there are none.
pub(super) fn write_created(
    out: &mut Vec<u8>,
    object: &Value,
    shape: Shape,
    unowned: (&[&str], &[&str]),
) -> bool {
    let (of_object, of_metadata) = unowned;
    let Value::Object(entries) = object else { return false };
    write_entries(out, entries, of_object, |out, name, value| {
        if name == "metadata" {
            let (shape, Value::Object(entries)) = (shape.under(name), value) else { return false };
            return write_entries(out, entries, of_metadata, |out, name, value| {
                write_created_field(out, name, value, shape)
            });
        }
        write_created_field(out, name, value, shape)
    })
}

/// One object of `fieldsV1`; false, and nothing written, when nothing is in it.
fn write_entries(
    out: &mut Vec<u8>,
    entries: &Map<String, Value>,
    unowned: &[&str],
    write: impl Fn(&mut Vec<u8>, &str, &Value) -> bool,
) -> bool {
    let start = out.len();
    out.push(b'{');
    for (name, value) in entries.iter().filter(|(name, _)| !unowned.contains(&name.as_str())) {
        write_named(out, 'f', name, |out| write(out, name, value));
    }
    close(out, start)
}

fn write_created_field(out: &mut Vec<u8>, name: &str, value: &Value, parent: Shape) -> bool {
    let always = parent.field(name).is_some_and(|field| field.always);
    write_created_value(out, value, parent.under(name), always)
}

/// What lies below a value, and the value itself unless it was there before, empty.
fn write_created_value(out: &mut Vec<u8>, value: &Value, shape: Shape, was_there: bool) -> bool {
    let nothing = FieldPath::default();
    let items = match (shape, value) {
        (Shape::Set | Shape::List { .. }, Value::Array(items)) if !items.is_empty() => {
            told_apart(items, shape, &nothing).ok()
        }
        _ => None,
    };
    let entries = match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(entries)) => Some(entries),
        _ => None,
    };
    let start = out.len();
    let is_empty = entries.is_some_and(Map::is_empty);
    if was_there && is_empty {
        return false;
    }
    let walked = entries.is_some_and(|entries| !entries.is_empty()) || items.is_some();
    let itself = !(was_there && walked);
    out.push(b'{');
    if itself && walked {
        out.extend_from_slice(b"\".\":{}");
    }
    let before = out.len();
    for (name, value) in entries.into_iter().flatten() {
        write_named(out, 'f', name, |out| write_created_field(out, name, value, shape));
    }
    let mut items = items.unwrap_or_default();
    items.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (element, item) in items {
        let (kind, text) = element.parts();
        write_named(out, kind, &text, |out| write_created_value(out, item, shape.element(), false));
    }
    if itself && out.len() == before {
        out.truncate(start);
        out.extend_from_slice(b"{}");
        return true;
    }
    close(out, start)
}

/// A member whose value `write` writes; nothing at all when that writes nothing.
fn write_named(out: &mut Vec<u8>, kind: char, name: &str, write: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    if name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')) {
        out.extend([b'"', kind as u8, b':']);
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(Value::String(format!("{kind}:{name}")).to_string().as_bytes());
    }
    out.push(b':');
    if !write(out) {
        out.truncate(start);
    }
}

/// Ends the JSON object that begins at `start`; takes it back when it is empty.
fn close(out: &mut Vec<u8>, start: usize) -> bool {
    let holds = out.len() > start + 1;
    if holds {
        out.push(b'}');
    } else {
        out.truncate(start);
    }
    holds
}

/// The elements of a list by what identifies them; each must be there once.
fn told_apart<'v>(
    items: &'v [Value],
    shape: Shape,
    at: &FieldPath,
) -> Result<Vec<(Element, &'v Value)>, ListError> {
    let mut seen: Vec<(Element, &Value)> = Vec::with_capacity(items.len());
    let mut known = BTreeSet::new();
    for item in items {
        let element = identity(item, shape).map_err(|problem| ListError(format!("{at}: {problem}")))?;
        if !known.insert(element.clone()) {
            return Err(ListError(format!("{at}: duplicate entries for key {}", FieldPath(vec![element]))));
        }
        seen.push((element, item));
    }
    Ok(seen)
}

/// What identifies an element of a list of this shape.
fn identity(item: &Value, shape: Shape) -> Result<Element, String> {
    let Shape::List { keys, .. } = shape else { return Ok(Element::Value(item.to_string())) };
    let mut fields = Map::new();
    for Key { name, absent } in keys {
        let value = match item.get(name).filter(|value| !value.is_null()) {
            Some(value) => value.clone(),
            None if !absent.is_empty() => Value::from(*absent),
            None => {
                return Err(format!(
                    "element {item} has no {name:?}, by which the elements of this list are told apart"
                ));
            }
        };
        fields.insert((*name).to_owned(), value);
    }
    Ok(Element::Key(Value::Object(fields).to_string()))
}

/// What differs. Lists whose elements cannot be told apart differ as a whole.
pub(super) fn compare(old: &Value, new: &Value, shape: Shape) -> Comparison {
    let mut found = Comparison::default();
    differ(Some(old), Some(new), shape, &mut FieldPath::default(), &mut found);
    found
}

fn differ(old: Option<&Value>, new: Option<&Value>, shape: Shape, at: &mut FieldPath, out: &mut Comparison) {
    if old == new {
        return;
    }
    let size = |value: Option<&Value>| match value {
        Some(Value::Object(entries)) => entries.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    };
    let holds = |value: Option<&Value>, list: bool| {
        value.is_none_or(|value| if list { value.is_array() } else { value.is_object() })
    };
    let walked = match shape {
        Shape::Leaf => false,
        _ if size(old) == 0 && size(new) == 0 => false,
        Shape::Struct(_) | Shape::Map(_) if holds(old, false) && holds(new, false) => {
            differ_entries(old, new, shape, at, out);
            true
        }
        Shape::Set | Shape::List { .. } if holds(old, true) && holds(new, true) => {
            differ_items(old, new, shape, at, out).is_ok()
        }
        _ => false,
    };
    match (old, new) {
        (None, _) => out.added.insert(&at.0),
        (_, None) => out.removed.insert(&at.0),
        _ if !walked => out.modified.insert(&at.0),
        _ => {}
    }
}

fn differ_entries(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: Shape,
    at: &mut FieldPath,
    out: &mut Comparison,
) {
    let (empty, there) = (Map::new(), Value::Object(Map::new()));
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let always = shape.field(name).is_some_and(|field| field.always).then_some(&there);
        at.0.push(Element::Field(name.clone()));
        differ(old.get(name).or(always), new.get(name).or(always), shape.under(name), at, out);
        at.0.pop();
    }
}

fn differ_items(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: Shape,
    at: &mut FieldPath,
    out: &mut Comparison,
) -> Result<(), ListError> {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let new = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let old: BTreeMap<Element, &Value> = told_apart(old, shape, at)?.into_iter().collect();
    let new: BTreeMap<Element, &Value> = told_apart(new, shape, at)?.into_iter().collect();
    for element in old.keys().chain(new.keys().filter(|element| !old.contains_key(element))) {
        at.0.push(element.clone());
        differ(old.get(element).copied(), new.get(element).copied(), shape.element(), at, out);
        at.0.pop();
    }
    Ok(())
}

/// The live value with the applied one laid over it.
pub(super) fn merge(live: &Value, applied: &Value, shape: Shape) -> Result<Value, ListError> {
    merge_at(live, applied, shape, &mut FieldPath::default())
}

fn merge_at(live: &Value, applied: &Value, shape: Shape, at: &mut FieldPath) -> Result<Value, ListError> {
    match (shape, live, applied) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(live), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                at.0.push(Element::Field(name.clone()));
                let below = live.get(name).unwrap_or(&Value::Null);
                merged.insert(name.clone(), merge_at(below, value, shape.under(name), at)?);
                at.0.pop();
            }
            Ok(Value::Object(merged))
        }
        (Shape::Set | Shape::List { .. }, Value::Array(live), Value::Array(applied)) => {
            merge_items(live, applied, shape, at)
        }
        _ => Ok(applied.clone()),
    }
}

/// The applied elements keep their order; what is only live stays behind the live neighbour that it follows.
fn merge_items(
    live: &[Value],
    applied: &[Value],
    shape: Shape,
    at: &mut FieldPath,
) -> Result<Value, ListError> {
    let applied = told_apart(applied, shape, at)?;
    let wanted: BTreeMap<&Element, usize> =
        applied.iter().enumerate().map(|(place, (element, _))| (element, place)).collect();
    let live: Vec<(Element, &Value)> = live
        .iter()
        .map(|item| (identity(item, shape).unwrap_or_else(|_| Element::Value(item.to_string())), item))
        .collect();
    let mut by_element: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in &live {
        by_element.entry(element).or_insert(item);
    }
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let (mut l, mut a) = (0, 0);
    while l < live.len() || a < applied.len() {
        if let Some((element, item)) = live.get(l) {
            match wanted.get(element) {
                None => {
                    merged.push((*item).clone());
                    l += 1;
                    continue;
                }
                // It comes later, after another one that is also live, or has come already.
                Some(place) if *place != next_shared(&applied, a, &by_element) => {
                    l += 1;
                    continue;
                }
                Some(place) if *place == a => l += 1,
                Some(_) => {}
            }
        }
        let Some((element, item)) = applied.get(a) else { continue };
        at.0.push(element.clone());
        merged.push(match by_element.get(element) {
            Some(live) => merge_at(live, item, shape.element(), at)?,
            None => (*item).clone(),
        });
        at.0.pop();
        a += 1;
    }
    Ok(Value::Array(merged))
}

/// The place of the next applied element, from `from` on, that is live too.
fn next_shared(applied: &[(Element, &Value)], from: usize, live: &BTreeMap<&Element, &Value>) -> usize {
    let rest = applied.iter().skip(from).position(|(element, _)| live.contains_key(element));
    rest.map_or(usize::MAX, |place| from + place)
}

/// The value without the paths of the set. What is empty then is null: somebody may still own it.
pub(super) fn remove(value: &Value, gone: &Set, shape: Shape) -> Value {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(entries)) => {
            let mut left = Map::new();
            for (name, value) in entries {
                let element = Element::Field(name.clone());
                let kept = remove_one(value, &element, gone, shape.under(name));
                left.extend(kept.map(|kept| (name.clone(), kept)));
            }
            if left.is_empty() { Value::Null } else { Value::Object(left) }
        }
        (Shape::Set | Shape::List { .. }, Value::Array(items)) => {
            let kept = |item: &Value| match identity(item, shape) {
                Ok(element) => remove_one(item, &element, gone, shape.element()),
                Err(_) => Some(item.clone()),
            };
            let left: Vec<Value> = items.iter().filter_map(kept).collect();
            if left.is_empty() { Value::Null } else { Value::Array(left) }
        }
        _ => value.clone(),
    }
}

fn remove_one(value: &Value, element: &Element, gone: &Set, shape: Shape) -> Option<Value> {
    match gone.below(element) {
        _ if gone.has(element) => None,
        Some(below) => Some(remove(value, below, shape)),
        None => Some(value.clone()),
    }
}
