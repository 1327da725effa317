//! What of an object has an owner of its own; the rows are made by the build script.

use crate::resource::Resource;

/// A type with named fields.
#[derive(Debug)]
pub(super) struct Struct {
    /// In the order of their names.
    pub(super) fields: &'static [Field],
}

/// A field of a type.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// Whether it is there, empty, before anybody writes it.
    pub(super) always: bool,
}

/// How a value is owned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// As a whole: scalars, atomic lists, maps and types.
    Leaf,
    /// Field by field: its row in [`STRUCTS`].
    Struct(u16),
    /// Entry by entry.
    Map(&'static Shape),
    /// Value by value: a list of scalars.
    Set,
    /// Element by element, and in each field by field.
    List { keys: &'static [Key], items: u16 },
}

/// A field that tells the elements of a list apart.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What its absence means; empty when it must be there.
    pub(super) absent: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/apply_table.rs"));

impl Shape {
    /// The shape of a kind's objects; one without a row has one owner.
    pub(super) fn of(resource: &Resource) -> Self {
        let version = resource.api_version();
        let row = KINDS.iter().find(|(v, kind, _)| (*v, *kind) == (version.as_str(), resource.kind));
        row.map_or(Self::Leaf, |(_, _, number)| Self::Struct(*number))
    }

    /// The field of a type, if this is one and has it.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        let Self::Struct(number) = self else { return None };
        let fields = STRUCTS[usize::from(*number)].fields;
        fields.binary_search_by_key(&name, |field| field.name).ok().map(|at| &fields[at])
    }

    /// The shape of what lies under a name.
    pub(super) fn under(&self, name: &str) -> Self {
        match self {
            Self::Map(values) => **values,
            _ => self.field(name).map_or(Self::Leaf, |field| field.shape),
        }
    }

    /// The shape of a list's elements.
    pub(super) fn element(&self) -> Self {
        match self {
            Self::List { items, .. } => Self::Struct(*items),
            _ => Self::Leaf,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{RESOURCES, find};

    #[test]
    fn every_kind_has_a_shape() {
        for resource in RESOURCES {
            assert!(matches!(Shape::of(resource), Shape::Struct(_)), "{}", resource.kind);
        }
    }

    #[test]
    fn lists_are_told_apart_by_upstreams_keys() {
        let deployments = find("apps", "v1", "deployments").expect("the kind has a row");
        let pod = Shape::of(deployments).under("spec").under("template").under("spec");
        let rows = [
            (pod.under("containers"), "name"),
            (pod.under("containers").element().under("ports"), "containerPort,protocol=TCP"),
            (pod.under("containers").element().under("volumeMounts"), "mountPath"),
            (pod.under("topologySpreadConstraints"), "topologyKey,whenUnsatisfiable"),
            (Shape::of(deployments).under("metadata").under("ownerReferences"), "uid"),
            (Shape::of(deployments).under("status").under("conditions"), "type"),
        ];
        for (shape, expected) in rows {
            let Shape::List { keys, .. } = shape else { panic!("{shape:?} is no list by {expected}") };
            let row = |key: &Key| match key.absent {
                "" => key.name.to_owned(),
                absent => format!("{}={absent}", key.name),
            };
            assert_eq!(keys.iter().map(row).collect::<Vec<_>>().join(","), expected);
        }
        assert!(matches!(pod.under("tolerations"), Shape::Leaf));
        assert!(matches!(pod.under("nodeSelector"), Shape::Leaf));
        assert!(matches!(Shape::of(deployments).under("metadata").under("finalizers"), Shape::Set));
        assert!(matches!(Shape::of(deployments).under("metadata").under("labels"), Shape::Map(_)));
        assert!(matches!(Shape::of(deployments).under("spec").under("selector"), Shape::Leaf));
    }
}
