//! Sets of fields, in memory and as `FieldsV1`.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::schema::Shape;

/// One step of a path into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// A field of an object or an entry of a map.
    Field(String),
    /// The element of a list with these values in its key fields, as a JSON object in the order of their names.
    Key(String),
    /// This value of a set, as JSON.
    Value(String),
    /// A place in a list; no server writes it any more, and it is kept as it came.
    Index(i64),
}

/// A set of paths. No child is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, Set>,
}

/// A path of a set; written as upstream does: `.spec.containers[name="c"].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FieldPath(pub(crate) Vec<Element>);

/// How deep paths may be; objects are not deeper.
const DEPTH_MAX: usize = 128;

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "k" => Self::Key(json(rest).filter(Value::is_object)?.to_string()),
            "v" => Self::Value(json(rest)?.to_string()),
            "i" => Self::Index(rest.parse().ok()?),
            _ => return None,
        })
    }

    fn text(&self) -> String {
        let (kind, text) = self.parts();
        format!("{kind}:{text}")
    }

    /// The letter that says what it is, and the rest.
    pub(super) fn parts(&self) -> (char, Cow<'_, str>) {
        match self {
            Self::Field(name) => ('f', name.into()),
            Self::Key(key) => ('k', key.into()),
            Self::Value(value) => ('v', value.into()),
            Self::Index(index) => ('i', index.to_string().into()),
        }
    }
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    pub(crate) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => drop(self.members.insert(last.clone())),
            [first, rest @ ..] => match self.children.get_mut(first) {
                Some(below) => below.insert(rest),
                None => self.children.entry(first.clone()).or_default().insert(rest),
            },
        }
    }

    /// Adds the paths of `below` under `element`.
    pub(super) fn nest(&mut self, element: Element, below: Self) {
        if !below.is_empty() {
            self.children.insert(element, below);
        }
    }

    pub(super) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    /// What is in either.
    pub(crate) fn union(mut self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        self.members.extend(other.members);
        for (element, below) in other.children {
            match self.children.entry(element) {
                Entry::Vacant(place) => drop(place.insert(below)),
                Entry::Occupied(mut place) => {
                    let own = std::mem::take(place.get_mut());
                    place.insert(own.union(below));
                }
            }
        }
        self
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { members: &self.members & &other.members, children: BTreeMap::new() };
        for (element, below) in &self.children {
            if let Some(others) = other.children.get(element) {
                both.nest(element.clone(), below.intersection(others));
            }
        }
        both
    }

    /// What is here and not there.
    pub(crate) fn difference(mut self, other: &Self) -> Self {
        self.members.retain(|element| !other.members.contains(element));
        self.children.retain(|element, below| {
            if let Some(others) = other.children.get(element) {
                *below = std::mem::take(below).difference(others);
            }
            !below.is_empty()
        });
        self
    }

    /// What is here, and neither there nor below what is there.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        self.members.retain(|element| !other.members.contains(element));
        self.children.retain(|element, below| {
            if other.members.contains(element) {
                return false;
            }
            if let Some(others) = other.children.get(element) {
                *below = std::mem::take(below).without(others);
            }
            !below.is_empty()
        });
        self
    }

    /// The set and the named fields on the way to its paths. Those are in no set of their own, because whoever owns a
    /// field owns what it is in, but they go when nothing in them is left.
    pub(super) fn with_named(&self, shape: Shape) -> Self {
        let mut all = Self { members: self.members.clone(), children: BTreeMap::new() };
        for (element, below) in &self.children {
            let under = match element {
                Element::Field(name) => {
                    if shape.field(name).is_some() {
                        all.members.insert(element.clone());
                    }
                    shape.under(name)
                }
                _ => shape.element(),
            };
            all.children.insert(element.clone(), below.with_named(under));
        }
        all
    }

    /// Every path, in order.
    pub(crate) fn paths(&self) -> Vec<FieldPath> {
        let mut paths = Vec::new();
        self.collect(&FieldPath::default(), &mut paths);
        paths.sort_unstable();
        paths
    }

    fn collect(&self, at: &FieldPath, paths: &mut Vec<FieldPath>) {
        let here = |element: &Element| {
            let mut path = at.clone();
            path.0.push(element.clone());
            path
        };
        paths.extend(self.members.iter().map(here));
        for (element, below) in &self.children {
            below.collect(&here(element), paths);
        }
    }

    /// Reads `fieldsV1`; `None` if it is none.
    pub(crate) fn from_fields_v1(value: &Value) -> Option<Self> {
        Self::read(value, 0)
    }

    fn read(value: &Value, depth: usize) -> Option<Self> {
        let fields = value.as_object().filter(|_| depth < DEPTH_MAX)?;
        let mut set = Self::default();
        for (key, below) in fields.iter().filter(|(key, _)| *key != ".") {
            let element = Element::parse(key)?;
            let entries = below.as_object()?;
            if entries.is_empty() || entries.contains_key(".") {
                set.members.insert(element.clone());
            }
            set.nest(element, Self::read(below, depth + 1)?);
        }
        Some(set)
    }

    /// As `fieldsV1`.
    pub(crate) fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        for element in &self.members {
            fields.insert(element.text(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            let mut below = below.to_fields_v1();
            if self.members.contains(element) {
                below["."] = Value::Object(Map::new());
            }
            fields.insert(element.text(), below);
        }
        Value::Object(fields)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for element in &self.0 {
            match element {
                Element::Field(name) => write!(f, ".{name}")?,
                Element::Value(value) => write!(f, "[={value}]")?,
                Element::Index(index) => write!(f, "[{index}]")?,
                Element::Key(key) => {
                    let fields: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                    let fields: Vec<String> =
                        fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    write!(f, "[{}]", fields.join(","))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn element() -> impl Strategy<Value = Element> {
        prop_oneof![
            4 => "[a-c]".prop_map(Element::Field),
            1 => (0..3i64, "[xy]").prop_map(|(a, b)| Element::Key(json!({"a": a, "b": b}).to_string())),
            1 => (0..3i64).prop_map(|n| Element::Value(n.to_string())),
            1 => (0..3i64).prop_map(Element::Index),
        ]
    }

    fn set() -> impl Strategy<Value = Set> {
        let paths = prop::collection::vec(prop::collection::vec(element(), 1..4), 0..12);
        paths.prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    /// The model of a set of paths: a set of paths.
    fn model(set: &Set) -> BTreeSet<FieldPath> {
        set.paths().into_iter().collect()
    }

    proptest! {
        #[test]
        fn sets_of_fields_are_sets_of_paths(a in set(), b in set()) {
            let (x, y) = (model(&a), model(&b));
            prop_assert_eq!(model(&a.clone().union(b.clone())), &x | &y);
            prop_assert_eq!(model(&a.intersection(&b)), &x & &y);
            prop_assert_eq!(model(&a.clone().difference(&b)), &x - &y);
            let below = |path: &FieldPath| y.iter().any(|other| path.0.starts_with(&other.0));
            let without: BTreeSet<FieldPath> = x.iter().filter(|path| !below(path)).cloned().collect();
            prop_assert_eq!(model(&a.clone().without(&b)), without);
            prop_assert_eq!(a.is_empty(), x.is_empty());
        }

        #[test]
        fn a_set_survives_the_way_through_fields_v1(set in set()) {
            prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()), Some(set));
        }

        #[test]
        fn anything_else_is_no_set(key in "\\PC{0,8}", value in "\\PC{0,8}") {
            let _ = Set::from_fields_v1(&json!({ key: { value: {} } }));
        }
    }

    #[test]
    fn paths_are_written_as_upstream_writes_them() {
        let fields = json!({"f:spec": {
            "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}},
            "f:finalizers": {"v:\"a/b\"": {}},
        }});
        let set = Set::from_fields_v1(&fields).expect("it is FieldsV1");
        let paths: Vec<String> = set.paths().iter().map(ToString::to_string).collect();
        let expected =
            [".spec.finalizers[=\"a/b\"]", ".spec.ports", ".spec.ports[port=80,protocol=\"TCP\"].name"];
        assert_eq!(paths, expected);
        assert_eq!(set.to_fields_v1(), fields);
    }
}
