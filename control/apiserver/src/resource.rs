//! The kinds the API serves: one row per kind, and the pure functions that read the rows.
//!
//! A [`Resource`] says everything the verbs need to know of a kind: its names, where it is stored, what it prints,
//! what may select it, what is defaulted, what must hold and what may change. Nothing outside `resource/` matches on
//! a kind's name. Objects are [`serde_json::Value`]s throughout; there is no I/O here. Start at [`RESOURCES`].

use serde_json::Value;

mod catalog;
mod convert;
mod decode;
mod defaults;
mod error;
#[cfg(test)]
mod laws;
pub(crate) mod merge;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod quantity;
mod reviews;
mod strategy;
mod validate;

pub use catalog::RESOURCES;
pub use convert::{from_storage, to_storage};
pub(crate) use decode::remove_nulls;
pub use decode::{TypeError, check_types, prune, unknown_fields};
pub use defaults::default;
pub use error::{FieldError, FieldErrorReason, aggregate};
#[cfg(test)]
pub(crate) use merge::merge_rules;
pub use merge::{ListMerge, MergeRule};
pub use reviews::REVIEWS;
pub(crate) use strategy::pod_quality;
pub use strategy::{prepare_for_create, prepare_for_update};
pub(crate) use validate::access::SYSTEM_PRIORITIES;
pub use validate::validate;
pub(crate) use validate::validate_write;

use self::path::Below;
use crate::table::Cell;

/// One kind of the API, as data.
#[derive(Debug)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version within the group, such as `v1`.
    pub version: &'static str,
    /// The kind, such as `Pod`.
    pub kind: &'static str,
    /// The kind of a list of these objects, such as `PodList`.
    pub list_kind: &'static str,
    /// The name in paths, such as `pods`.
    pub plural: &'static str,
    /// The name for one object, such as `pod`.
    pub singular: &'static str,
    /// What users may type instead, such as `po`.
    pub short_names: &'static [&'static str],
    /// The groups of kinds this one is printed with, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The verbs the kind itself answers.
    pub verbs: &'static [&'static str],
    /// The subresources: `status`, `scale`, `binding`, `log`, `finalize`, `eviction`.
    pub subresources: &'static [&'static str],
    /// Where objects are stored below `/registry/`, in upstream's layout (`minions`, `services/specs`).
    pub storage_prefix: &'static str,
    /// What a table shows of an object.
    pub columns: &'static [Column],
    /// What a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub field_selectors: &'static [FieldLabel],
    /// Whether status is written through its own subresource.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the desired state.
    pub has_generation: bool,
    /// What the kind needs beyond the generic rules.
    pub strategy: &'static Strategy,
}

impl Resource {
    /// The `apiVersion` of the kind's objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The name used in messages, such as `pods` or `deployments.apps`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The kind used in messages, such as `Pod` or `Deployment.apps`.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// The behaviour of a kind, each part a table or a pure function.
#[derive(Debug)]
pub struct Strategy {
    /// Tables of defaults, in the order they are applied.
    pub(crate) defaults: &'static [&'static [Below<defaults::Default>]],
    /// Tables of what every object must satisfy.
    pub(crate) rules: &'static [&'static [Below<validate::Rule>]],
    /// What an update may not change.
    pub(crate) immutable: &'static [validate::Immutable],
    /// How lists and maps merge in a strategic patch.
    pub(crate) merge: &'static [Below<MergeRule>],
    /// What happens to status when an object is created.
    pub(crate) status_on_create: strategy::StatusOnCreate,
    /// The syntax of `metadata.name`.
    pub(crate) name: validate::NameSyntax,
    /// Where the desired state is, for `metadata.generation`.
    pub(crate) generation_of: &'static [&'static str],
    /// The typed decoder that knows the kind's fields.
    pub(crate) decode: decode::Decode,
    /// The conversion between this kind and the one it is stored as, if they differ.
    pub(crate) conversion: Option<convert::Conversion>,
}

/// One column of a kind's table.
#[derive(Debug)]
pub struct Column {
    /// The heading, such as `Ready`.
    pub name: &'static str,
    /// The JSON type of the cell: `string`, `integer`, `date`.
    pub kind: &'static str,
    /// `name` for the column with the object's name, else empty.
    pub format: &'static str,
    /// 0 is shown always, 1 with `-o wide`.
    pub priority: i64,
    /// What the cell means.
    pub description: &'static str,
    /// Where the cell's value comes from.
    pub cell: Cell,
}

/// A field that a field selector may name.
#[derive(Debug)]
pub struct FieldLabel {
    /// The name in the selector, such as `spec.nodeName`.
    pub label: &'static str,
    /// The path of the value in the object.
    pub path: &'static str,
    /// The path that is taken when the first holds nothing; may be empty.
    pub otherwise: &'static str,
    /// The value when the field is absent.
    pub absent: &'static str,
}

/// The kind behind a path such as `/apis/apps/v1/…/deployments`.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    served().find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// Everything with a path: the kinds that are stored, and the questions that are only answered.
pub fn served() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().chain(REVIEWS)
}

/// The kind that an object names itself.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.group == group && r.version == version && r.kind == kind)
}

/// The string at a JSON pointer, or the empty string.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_path_and_by_its_kind() {
        for resource in RESOURCES {
            let Resource { group, version, plural, kind, .. } = resource;
            assert!(std::ptr::eq(find(group, version, plural).expect(plural), resource));
            assert!(std::ptr::eq(by_kind(group, version, kind).expect(kind), resource));
            assert_eq!(resource.has_status, resource.subresources.contains(&"status"), "{kind}");
            assert_eq!(resource.list_kind, format!("{kind}List"));
        }
    }

    #[test]
    fn names_in_messages_carry_the_group() {
        let deployments = find("apps", "v1", "deployments").expect("the kind has a row");
        assert_eq!(deployments.api_version(), "apps/v1");
        assert_eq!(deployments.group_resource(), "deployments.apps");
        assert_eq!(deployments.group_kind(), "Deployment.apps");
        let pods = find("", "v1", "pods").expect("the kind has a row");
        assert_eq!((pods.api_version(), pods.group_resource()), ("v1".to_owned(), "pods".to_owned()));
    }

    #[test]
    fn kinds_are_stored_where_upstream_stores_them() {
        let rows = [
            ("", "nodes", "minions"),
            ("", "services", "services/specs"),
            ("", "endpoints", "services/endpoints"),
            ("", "pods", "pods"),
            ("", "events", "events"),
            ("events.k8s.io", "events", "events"),
            ("coordination.k8s.io", "leases", "leases"),
            ("apps", "deployments", "deployments"),
        ];
        for (group, plural, expected) in rows {
            assert_eq!(find(group, "v1", plural).expect(plural).storage_prefix, expected);
        }
    }
}
