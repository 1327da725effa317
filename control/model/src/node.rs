//! Nodes.

use std::net::IpAddr;

/// A prefix: network address and length in bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// Network address; the bits behind the prefix are zero.
    pub address: IpAddr,
    /// Length in bits.
    pub length: u8,
}

/// A node, as other nodes need to know it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Internal addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Pod networks, at most one per family (`spec.podCIDRs`).
    pub pod_networks: Vec<Prefix>,
    /// Zone (`topology.kubernetes.io/zone`); empty when unset.
    pub zone: String,
    /// The Ready condition is True.
    pub ready: bool,
    /// It is being deleted, or an autoscaler has marked it for that (taint `ToBeDeletedByClusterAutoscaler`): load
    /// balancers should stop sending to it.
    pub leaving: bool,
}
