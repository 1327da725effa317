//! Every kind, one row each, in one file for each family of kinds.

use super::decode::decode;
use super::path::Below;
use super::strategy::*;
use super::validate::{Immutable, NameSyntax, Rule, rows as rules};
use super::{FieldLabel, MergeRule, Resource, Strategy, convert, defaults, merge};
use crate::table::columns;

mod cluster;
mod core;
mod network;
mod workloads;

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Of kinds that clients look for, and of which there are none.
const READ_VERBS: &[&str] = &["get", "list", "watch"];
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

/// Every kind the API serves.
pub static RESOURCES: &[Resource] = &[
    core::NAMESPACE,
    core::NODE,
    core::POD,
    core::SERVICE,
    core::CONFIG_MAP,
    core::SECRET,
    core::EVENT,
    core::SERVICE_ACCOUNT,
    core::ENDPOINTS,
    core::REPLICATION_CONTROLLER,
    core::POD_TEMPLATE,
    core::RESOURCE_QUOTA,
    core::LIMIT_RANGE,
    core::VOLUME,
    core::VOLUME_CLAIM,
    network::ENDPOINT_SLICE,
    cluster::LEASE,
    cluster::NEW_EVENT,
    workloads::DEPLOYMENT,
    workloads::REPLICA_SET,
    workloads::STATEFUL_SET,
    workloads::DAEMON_SET,
    workloads::CONTROLLER_REVISION,
    workloads::JOB,
    workloads::CRON_JOB,
    workloads::AUTOSCALER,
    workloads::OLD_AUTOSCALER,
    workloads::DISRUPTION_BUDGET,
    network::INGRESS,
    network::INGRESS_CLASS,
    network::NETWORK_POLICY,
    network::IP_ADDRESS,
    network::SERVICE_CIDR,
    cluster::ROLE,
    cluster::CLUSTER_ROLE,
    cluster::ROLE_BINDING,
    cluster::CLUSTER_ROLE_BINDING,
    cluster::PRIORITY_CLASS,
    cluster::RUNTIME_CLASS,
    cluster::STORAGE_CLASS,
    cluster::ATTRIBUTES_CLASS,
    cluster::VOLUME_ATTACHMENT,
    cluster::CSI_DRIVER,
    cluster::CSI_NODE,
    cluster::STORAGE_CAPACITY,
    cluster::SIGNING_REQUEST,
    cluster::MUTATING_WEBHOOKS,
    cluster::VALIDATING_WEBHOOKS,
    cluster::VALIDATING_POLICY,
    cluster::VALIDATING_POLICY_BINDING,
    cluster::MUTATING_POLICY,
    cluster::MUTATING_POLICY_BINDING,
    cluster::CUSTOM_RESOURCE_DEFINITION,
];

/// What a kind of the core group is unless its row says otherwise.
pub(super) const fn plain(
    kind: &'static str,
    list_kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Resource {
    Resource {
        group: "",
        version: "v1",
        kind,
        list_kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        storage_prefix: plural,
        columns: &[],
        field_selectors: &[],
        has_status: false,
        has_generation: false,
        strategy: &PLAIN,
    }
}

const fn field(label: &'static str, absent: &'static str) -> FieldLabel {
    FieldLabel { label, path: label, otherwise: "", absent }
}

/// A label whose name is not the path of its value.
const fn named(label: &'static str, path: &'static str, otherwise: &'static str) -> FieldLabel {
    FieldLabel { label, path, otherwise, absent: "" }
}

/// What a kind does unless its row says otherwise.
pub(super) const PLAIN: Strategy = Strategy {
    defaults: &[OBJECT],
    rules: &[],
    immutable: &[],
    merge: &[],
    status_on_create: StatusOnCreate::Start(empty_status),
    name: NameSyntax::Subdomain,
    generation_of: &["spec"],
    decode: |_, _| Ok(()),
    conversion: None,
};

/// What every kind is given.
const OBJECT: &[Below<defaults::Default>] = &[at("", defaults::OBJECT)];

/// What the pods of every workload are made from.
const TEMPLATE_DEFAULTS: &[Below<defaults::Default>] = &[
    at("spec.template.spec", defaults::POD_SPEC),
    at("spec.template.spec.containers|initContainers[*]", defaults::CONTAINER),
    at(
        "spec.template.spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe",
        defaults::PROBE,
    ),
];

/// How the lists of a workload merge.
const TEMPLATE_MERGE: &[Below<MergeRule>] =
    &[at("spec.template.spec", merge::POD_SPEC), at("status", merge::CONDITIONS)];

/// The pods run until somebody deletes them.
const ALWAYS_RESTARTED: &[Below<Rule>] = &[at("spec.template", rules::LASTING_TEMPLATE)];

/// The pods run until they are done.
const EVENTUALLY_ENDED: &[Below<Rule>] = &[at("spec.template", rules::ENDING_TEMPLATE)];

/// What must hold of the pods of every workload.
const TEMPLATE_RULES: &[Below<Rule>] = &[
    at("spec.template", rules::TEMPLATE),
    at("spec.template.spec", rules::POD_SPEC),
    at("spec.template.spec.containers|initContainers[*]", rules::CONTAINER),
    at(
        "spec.template.spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe",
        rules::PROBE,
    ),
];

const fn at<T>(at: &'static str, rules: &'static [T]) -> Below<T> {
    Below { at, rules }
}
