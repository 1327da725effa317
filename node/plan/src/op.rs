//! What a plan is made of.

use std::net::IpAddr;

use fairlead_abi::service::{BackendValue, ServiceKey, ServiceValue};
use fairlead_model::Prefix;

/// One change of kernel state. Operations are applied in order; each is idempotent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes a backend slot that no frontend refers to.
    WriteBackend {
        /// Index into `BACKENDS`.
        slot: u32,
        /// Its new content; the default value voids whatever remembers the slot.
        value: BackendValue,
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
