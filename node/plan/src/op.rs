//! What a plan is made of.

use std::net::IpAddr;

use fairlead_abi::{
    node::NodeValue,
    service::{BackendValue, ServiceKey, ServiceValue},
};
use fairlead_model::Prefix;

/// One change of kernel state. Operations are applied in order; each is idempotent. Neighbours of one kind may be applied
/// together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes a backend.
    WriteBackend {
        /// Index into `BACKENDS`.
        index: u32,
        /// Its new content.
        value: BackendValue,
    },
    /// Writes a range of slots that no frontend refers to.
    WriteSlots {
        /// Index of the first into `SLOTS`.
        first: u32,
        /// Their content.
        backends: Vec<u32>,
    },
    /// Commits a frontend: from here on packets see the new backends.
    PutService {
        /// The frontend.
        key: ServiceKey,
        /// Where it leads.
        value: ServiceValue,
    },
    /// Removes a frontend.
    DeleteService {
        /// The frontend.
        key: ServiceKey,
    },
    /// Lets clients use a restricted load balancer's address.
    PutSourceRange {
        /// Whose address it is.
        service_id: u32,
        /// Where the clients are.
        range: Prefix,
    },
    /// Lets them no longer.
    DeleteSourceRange {
        /// Whose address it is.
        service_id: u32,
        /// Where the clients are.
        range: Prefix,
    },
    /// Forgets flows of datagrams that began at frontends which are another service's now, or nobody's.
    EndFlows {
        /// The frontends, and whose they were (service id).
        frontends: Vec<(ServiceKey, u32)>,
    },
    /// Says what an address is.
    PutAddress {
        /// The address.
        address: IpAddr,
        /// Bits of `ADDRESS_*`.
        flags: u32,
    },
    /// Forgets an address.
    DeleteAddress {
        /// The address.
        address: IpAddr,
    },
    /// Says what this node is.
    PutNode {
        /// What it is.
        value: NodeValue,
    },
    /// Sends a prefix to another node from the link programs.
    PutRoute {
        /// Pod network.
        prefix: Prefix,
        /// Address of the node; none marks this node's own network, where only its pods are.
        next_hop: Option<IpAddr>,
    },
    /// Removes a prefix from the link programs.
    DeleteRoute {
        /// The prefix.
        prefix: Prefix,
    },
    /// Sends a prefix to another node, or nowhere, from the kernel's own stack.
    PutKernelRoute {
        /// Pod network.
        prefix: Prefix,
        /// Address of the node; none makes the prefix unreachable but for more specific routes.
        next_hop: Option<IpAddr>,
    },
    /// Removes a route of ours from the kernel's table.
    DeleteKernelRoute {
        /// The prefix.
        prefix: Prefix,
    },
}
