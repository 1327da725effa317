//! The columns of every kind, as upstream prints them (`pkg/printers/internalversion/printers.go`).

use super::{Cell, cells, pod};
use crate::resource::Column;

mod cluster;
mod network;
mod workload;

pub(crate) use cluster::*;
pub(crate) use network::*;
pub(crate) use workload::*;

const fn column(name: &'static str, cell: Cell, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description, cell }
}

/// A column that only `-o wide` shows.
const fn wide(name: &'static str, cell: Cell, description: &'static str) -> Column {
    Column { priority: 1, ..column(name, cell, description) }
}

const fn integer(name: &'static str, cell: Cell, description: &'static str) -> Column {
    Column { kind: "integer", ..column(name, cell, description) }
}

const NAME: Column = Column {
    format: "name",
    ..column("Name", Cell::At("/metadata/name"), "The object's name in its namespace.")
};

const AGE: Column =
    column("Age", Cell::Age("/metadata/creationTimestamp"), "The time since the object was created.");

/// Pods.
pub(crate) const POD: &[Column] = &[
    NAME,
    column("Ready", Cell::Of(pod::ready), "The containers that are ready, of all."),
    column("Status", Cell::Of(pod::status), "The phase, or the reason that stands out of the containers'."),
    column("Restarts", Cell::Of(pod::restarts), "The restarts of the containers, and when the last one was."),
    AGE,
    wide("IP", Cell::Of(pod::ip), "The pod's address."),
    wide("Node", Cell::Of(pod::node), "The node the pod is bound to."),
    wide("Nominated Node", Cell::Of(pod::nominated_node), "The node the pod waits for."),
    wide("Readiness Gates", Cell::Of(pod::readiness_gates), "The readiness gates that are passed, of all."),
];

/// Nodes.
pub(crate) const NODE: &[Column] = &[
    NAME,
    column("Status", Cell::Of(cells::node_status), "Whether the node is ready, and takes pods."),
    column("Roles", Cell::Of(cells::node_roles), "The roles that the node's labels name."),
    AGE,
    column("Version", Cell::At("/status/nodeInfo/kubeletVersion"), "The version of the kubelet."),
    wide("Internal-IP", Cell::Of(cells::internal_ip), "The address within the cluster."),
    wide("External-IP", Cell::Of(cells::external_ip), "The address from outside."),
    wide("OS-Image", Cell::Of(cells::os_image), "The operating system."),
    wide("Kernel-Version", Cell::Of(cells::kernel_version), "The kernel."),
    wide("Container-Runtime", Cell::Of(cells::container_runtime), "The container runtime and its version."),
];

/// Namespaces.
pub(crate) const NAMESPACE: &[Column] =
    &[NAME, column("Status", Cell::At("/status/phase"), "Active, or Terminating."), AGE];

/// Custom resource definitions.
pub(crate) const CUSTOM_RESOURCE_DEFINITION: &[Column] =
    &[NAME, column("Created At", Cell::At("/metadata/creationTimestamp"), "When the object was created.")];

/// Services.
pub(crate) const SERVICE: &[Column] = &[
    NAME,
    column("Type", Cell::At("/spec/type"), "How the service is exposed."),
    column("Cluster-IP", Cell::Of(cells::cluster_ip), "The address within the cluster."),
    column("External-IP", Cell::Of(cells::service_external_ip), "The addresses from outside."),
    column("Port(s)", Cell::Of(cells::service_ports), "The ports, with their node ports."),
    AGE,
    wide("Selector", Cell::Of(cells::service_selector), "The labels of the pods behind the service."),
];

/// Deployments.
pub(crate) const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", Cell::Of(cells::ready_replicas), "The pods that are ready, of those wanted."),
    integer("Up-to-date", Cell::Of(cells::updated_replicas), "The pods made from the newest template."),
    integer("Available", Cell::Of(cells::available_replicas), "The pods ready for long enough."),
    AGE,
    wide("Containers", Cell::Of(cells::container_names), "The containers of the template."),
    wide("Images", Cell::Of(cells::container_images), "The images of the template's containers."),
    wide("Selector", Cell::Of(cells::label_selector), "The labels of the pods."),
];

/// Replica sets.
pub(crate) const REPLICA_SET: &[Column] = &[
    NAME,
    integer("Desired", Cell::Of(cells::desired_replicas), "The pods wanted."),
    integer("Current", Cell::Of(cells::current_replicas), "The pods that exist."),
    integer("Ready", Cell::Of(cells::ready_count), "The pods that are ready."),
    AGE,
    wide("Containers", Cell::Of(cells::container_names), "The containers of the template."),
    wide("Images", Cell::Of(cells::container_images), "The images of the template's containers."),
    wide("Selector", Cell::Of(cells::label_selector), "The labels of the pods."),
];

/// Config maps.
pub(crate) const CONFIG_MAP: &[Column] =
    &[NAME, column("Data", Cell::Of(cells::data_count), "The number of keys."), AGE];

/// Secrets.
pub(crate) const SECRET: &[Column] = &[
    NAME,
    column("Type", Cell::At("/type"), "What the secret is for."),
    column("Data", Cell::Of(cells::data_count), "The number of keys."),
    AGE,
];

/// Service accounts.
pub(crate) const SERVICE_ACCOUNT: &[Column] =
    &[NAME, column("Secrets", Cell::Of(cells::secret_count), "The number of secrets it may use."), AGE];

/// Endpoints.
pub(crate) const ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", Cell::Of(cells::endpoints), "The addresses and ports."), AGE];

/// Endpoint slices.
pub(crate) const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    column("AddressType", Cell::At("/addressType"), "IPv4, IPv6 or FQDN."),
    column("Ports", Cell::Of(cells::slice_ports), "The ports."),
    column("Endpoints", Cell::Of(cells::slice_endpoints), "The addresses."),
    AGE,
];

/// Leases.
pub(crate) const LEASE: &[Column] =
    &[NAME, column("Holder", Cell::At("/spec/holderIdentity"), "Who holds the lease."), AGE];

/// Events, of either group.
pub(crate) const EVENT: &[Column] = &[
    column("Last Seen", Cell::Of(cells::event_last_seen), "The time since it last happened."),
    column("Type", Cell::At("/type"), "Normal or Warning."),
    column("Reason", Cell::At("/reason"), "Why, in one word."),
    column("Object", Cell::Of(cells::event_object), "What it is about."),
    wide("Subobject", Cell::Of(cells::event_subobject), "The part of the object it is about."),
    wide("Source", Cell::Of(cells::event_source), "Who reports it."),
    column("Message", Cell::Of(cells::event_message), "What happened."),
    wide("First Seen", Cell::Of(cells::event_first_seen), "The time since it first happened."),
    wide("Count", Cell::Of(cells::event_count), "How often it happened."),
    Column { priority: 1, ..NAME },
];
