//! Pods, as far as names for addresses go.

use std::net::IpAddr;

use crate::ObjectName;

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
}
