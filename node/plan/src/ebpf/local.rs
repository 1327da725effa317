//! What the node is by itself, apart from the cluster.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use fairlead_abi::{Addr16, names, node::NodeValue};

/// The node's own addresses and what follows from them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalNode {
    /// Addresses of the node's interfaces, and whether node ports and host ports are served on them.
    pub addresses: BTreeMap<IpAddr, bool>,
    /// Addresses to masquerade with, at most one per family.
    pub masquerade: Vec<IpAddr>,
    /// Largest network packet that the uplink takes, in bytes.
    pub mtu: u32,
}

impl LocalNode {
    pub(super) fn value(&self) -> NodeValue {
        let of_family = |v4| {
            let found = self.masquerade.iter().find(|address| address.is_ipv4() == v4);
            found.map_or(Addr16::UNSPECIFIED, |address| Addr16::from(*address))
        };
        NodeValue { v4: of_family(true), v6: of_family(false), mtu: self.mtu, _pad: 0 }
    }
}

/// What the programs of the node are made for: how many entries the maps hold, and which ports they look up as node
/// ports, and whom they serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of `SERVICES`.
    pub frontends: u32,
    /// Of `SLOTS`.
    pub slots: u32,
    /// Of `BACKENDS`.
    pub backends: u32,
    /// Of `SOURCE_RANGES`.
    pub source_ranges: u32,
    /// Of `ADDRESSES`.
    pub addresses: u32,
    /// Of `ROUTES`.
    pub routes: u32,
    /// Where node ports are.
    pub node_ports: RangeInclusive<u16>,
    /// Clients outside the cluster are denied cluster addresses.
    pub deny_outside: bool,
}

/// The API server's default range of node ports.
pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

impl Default for Limits {
    fn default() -> Self {
        Self {
            frontends: names::SERVICES.capacity,
            slots: names::SLOTS.capacity,
            backends: names::BACKENDS.capacity,
            source_ranges: names::SOURCE_RANGES.capacity,
            addresses: names::ADDRESSES.capacity,
            routes: names::ROUTES.capacity,
            node_ports: NODE_PORTS,
            deny_outside: false,
        }
    }
}
