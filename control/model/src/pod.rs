//! Pods, as far as names for addresses go.

use std::net::IpAddr;

use crate::{ObjectName, Protocol};

/// A pod that has addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// UID.
    pub uid: String,
    /// Node it runs on.
    pub node: String,
    /// Addresses, primary family first.
    pub addresses: Vec<IpAddr>,
    /// Shares its node's network; then its addresses are the node's.
    pub host_network: bool,
    /// Ports of its containers that its node's addresses have, too; none for a pod on its node's network.
    pub host_ports: Vec<HostPort>,
}

/// A container's `hostPort`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// `hostIP`; none is every address of the node.
    pub address: Option<IpAddr>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the node.
    pub port: u16,
    /// Port of the pod.
    pub pod_port: u16,
}
