//! How the lists and maps of each type merge in a strategic patch, as upstream's `patchStrategy` and `patchMergeKey`.
//!
//! A list without a row is replaced as a whole, such as a pod's tolerations or a node's taints.

use super::Resource;
use super::path::Below;

/// One list or map that does not merge in the plain way.
#[derive(Debug, Clone, Copy)]
pub struct MergeRule {
    /// The field, below the row's place, without list indices.
    pub path: &'static str,
    /// How it merges.
    pub merge: ListMerge,
}

/// How a list, or a map, merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListMerge {
    /// A list of objects that a field identifies.
    ByKey(&'static str),
    /// A list of objects that a field identifies, each with at most one of several alternatives (`$retainKeys`).
    ByKeyRetaining(&'static str),
    /// A list of scalars that is a set.
    Set,
    /// A list that is replaced as a whole. What has no row is this.
    Atomic,
}

/// How the list at `path` (no indices) of an object of this kind merges.
pub(crate) fn list_merge(resource: &Resource, path: &str) -> ListMerge {
    let tables = resource.strategy.merge.iter().chain(META);
    tables
        .filter_map(|table| Some((table, below(path, table.at)?)))
        .find_map(|(table, rest)| table.rules.iter().find(|rule| rule.path == rest))
        .map_or(ListMerge::Atomic, |rule| rule.merge)
}

/// Every row that applies to a kind, with its place.
#[cfg(test)]
pub(crate) fn merge_rules(resource: &Resource) -> impl Iterator<Item = (&'static str, &'static MergeRule)> {
    let tables = resource.strategy.merge.iter().chain(META);
    tables.flat_map(|table| table.rules.iter().map(|rule| (table.at, rule)))
}

fn below<'p>(path: &'p str, at: &str) -> Option<&'p str> {
    if at.is_empty() { Some(path) } else { path.strip_prefix(at)?.strip_prefix('.') }
}

const fn by(path: &'static str, key: &'static str) -> MergeRule {
    MergeRule { path, merge: ListMerge::ByKey(key) }
}

const fn retaining(path: &'static str, key: &'static str) -> MergeRule {
    MergeRule { path, merge: ListMerge::ByKeyRetaining(key) }
}

const fn set(path: &'static str) -> MergeRule {
    MergeRule { path, merge: ListMerge::Set }
}

static META: &[Below<MergeRule>] = &[
    Below { at: "metadata", rules: OBJECT_META },
    Below { at: "spec.template.metadata", rules: OBJECT_META },
];

const OBJECT_META: &[MergeRule] = &[by("ownerReferences", "uid"), set("finalizers")];

/// Rows of `status` that many kinds share.
pub(crate) const CONDITIONS: &[MergeRule] = &[by("conditions", "type")];

/// A pod's own rows, below `spec` or `spec.template.spec`.
pub(crate) const POD_SPEC: &[MergeRule] = &[
    by("containers", "name"),
    by("containers.env", "name"),
    by("containers.ports", "containerPort"),
    by("containers.volumeMounts", "mountPath"),
    by("containers.volumeDevices", "devicePath"),
    by("initContainers", "name"),
    by("initContainers.env", "name"),
    by("initContainers.ports", "containerPort"),
    by("initContainers.volumeMounts", "mountPath"),
    by("initContainers.volumeDevices", "devicePath"),
    by("ephemeralContainers", "name"),
    by("ephemeralContainers.env", "name"),
    by("ephemeralContainers.ports", "containerPort"),
    by("ephemeralContainers.volumeMounts", "mountPath"),
    by("ephemeralContainers.volumeDevices", "devicePath"),
    by("hostAliases", "ip"),
    by("imagePullSecrets", "name"),
    retaining("resourceClaims", "name"),
    by("schedulingGates", "name"),
    by("topologySpreadConstraints", "topologyKey"),
    retaining("volumes", "name"),
];

/// A pod's status.
pub(crate) const POD_STATUS: &[MergeRule] =
    &[by("conditions", "type"), by("hostIPs", "ip"), by("podIPs", "ip")];

/// A node's rows.
pub(crate) const NODE: &[MergeRule] =
    &[set("spec.podCIDRs"), by("status.addresses", "type"), by("status.conditions", "type")];

/// A service's rows.
pub(crate) const SERVICE: &[MergeRule] = &[by("spec.ports", "port"), by("status.conditions", "type")];

/// A service account's rows.
pub(crate) const SERVICE_ACCOUNT: &[MergeRule] = &[by("secrets", "name")];

/// The drivers of a node.
pub(crate) const CSI_NODE: &[MergeRule] = &[by("drivers", "name")];

/// The webhooks of a configuration.
pub(crate) const WEBHOOKS: &[MergeRule] = &[by("webhooks", "name"), by("webhooks.matchConditions", "name")];

/// What an admission policy is made of.
pub(crate) const ADMISSION_POLICY: &[MergeRule] = &[by("matchConditions", "name"), by("variables", "name")];
