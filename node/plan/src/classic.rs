//! What the iptables, nftables and IPVS modes have in common: their settings, and service ports as they look at them.
//!
//! The three follow kube-proxy 1.36 (`pkg/proxy/{iptables,nftables,ipvs}`) in what they lay out and under which names,
//! so that what is measured and debugged is what clusters run. Each works on one address family at a time. Start
//! reading at [`port::Port`].

use std::net::IpAddr;

use fairlead_model::Prefix;

pub mod conntrack;
pub(crate) mod hash;
pub mod port;
mod problems;
#[cfg(test)]
pub(crate) mod trace;

pub use port::Port;
pub use problems::Problems;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Of an address.
    pub const fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Loopback as a prefix.
    pub const fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.0/8",
            Self::V6 => "::1/128",
        }
    }

    /// Only the addresses of this family.
    pub fn only<'a>(self, addresses: &'a [IpAddr]) -> impl Iterator<Item = IpAddr> + 'a {
        addresses.iter().copied().filter(move |address| Self::of(address) == self)
    }

    /// Only the prefixes of this family.
    pub fn only_prefixes<'a>(self, prefixes: &'a [Prefix]) -> impl Iterator<Item = Prefix> + 'a {
        prefixes.iter().copied().filter(move |prefix| Self::of(&prefix.address) == self)
    }
}

/// Which addresses of the node serve node ports (`--nodeport-addresses`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum NodePortAddresses {
    /// Every local one.
    #[default]
    All,
    /// These.
    Only(Vec<IpAddr>),
}

/// Settings, as kube-proxy has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name of the node.
    pub node: String,
    /// Masquerade everything that is sent to a cluster address (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Bit of the packet mark that asks for masquerading (`--iptables-masquerade-bit`).
    pub masquerade_bit: u8,
    /// Where this node's clients that are pods are (`--cluster-cidr`); empty: nobody can tell.
    pub pod_networks: Vec<Prefix>,
    /// The node's own addresses, at most one per family.
    pub node_addresses: Vec<IpAddr>,
    /// Where node ports are served.
    pub node_ports: NodePortAddresses,
    /// Every address of an interface but loopback and `kube-ipvs0`; IPVS has one virtual server for each.
    pub local_addresses: Vec<IpAddr>,
    /// IPv4 node ports on loopback, iptables mode only (`--iptables-localhost-nodeports`).
    pub localhost_node_ports: bool,
    /// Prefixes that cluster addresses come from; nftables mode drops what is sent to one that nobody has.
    pub service_networks: Vec<Prefix>,
    /// Packets that conntrack finds invalid are let through (`nf_conntrack_tcp_be_liberal`).
    pub tcp_be_liberal: bool,
}

/// Bit 14, kube-proxy's default.
pub const MASQUERADE_BIT: u8 = 14;

impl Default for Config {
    fn default() -> Self {
        Self {
            node: String::new(),
            masquerade_all: false,
            masquerade_bit: MASQUERADE_BIT,
            pod_networks: Vec::new(),
            node_addresses: Vec::new(),
            node_ports: NodePortAddresses::default(),
            local_addresses: Vec::new(),
            localhost_node_ports: true,
            service_networks: Vec::new(),
            tcp_be_liberal: false,
        }
    }
}

impl Config {
    /// The mark as the tools write it.
    pub fn mark(&self) -> String {
        format!("{:#010x}", 1u32 << self.masquerade_bit)
    }

    /// The first pod network of a family: what tells a local pod from everybody else.
    pub fn pod_network(&self, family: Family) -> Option<String> {
        family.only_prefixes(&self.pod_networks).next().map(text)
    }

    /// Addresses that serve node ports, when not all do.
    pub(crate) fn selected_node_ports(&self, family: Family) -> Option<Vec<IpAddr>> {
        match &self.node_ports {
            NodePortAddresses::All => None,
            NodePortAddresses::Only(addresses) => Some(family.only(addresses).collect()),
        }
    }
}

/// `address/length`.
pub(crate) fn text(prefix: Prefix) -> String {
    format!("{}/{}", prefix.address, prefix.length)
}

/// The same network, without bits behind the prefix.
pub(crate) fn masked(prefix: Prefix) -> Prefix {
    let length = u32::from(prefix.length);
    let address = match prefix.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    };
    Prefix { address, ..prefix }
}

/// Whether the prefix covers the address.
pub(crate) fn contains(prefix: Prefix, address: IpAddr) -> bool {
    let shift = |bits: u32, length: u8| bits - u32::from(length).min(bits);
    match (prefix.address, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = u64::from(u32::from(network) ^ u32::from(address));
            differ >> shift(32, prefix.length) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = u128::from(network) ^ u128::from(address);
            differ.checked_shr(shift(128, prefix.length)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_its_addresses_and_no_other() {
        let prefix = |address: &str, length| Prefix { address: address.parse().expect("address"), length };
        let rows = [
            (prefix("10.0.0.0", 8), "10.255.0.1", true),
            (prefix("10.0.0.0", 8), "11.0.0.1", false),
            (prefix("0.0.0.0", 0), "203.0.113.7", true),
            (prefix("::", 0), "2001:db8::1", true),
            (prefix("fd00:244::", 56), "fd00:244:0:1::2", true),
            (prefix("fd00:244::", 64), "fd00:244:0:1::2", false),
            (prefix("::", 0), "10.0.0.1", false),
        ];
        for (prefix, address, covered) in rows {
            assert_eq!(contains(prefix, address.parse().expect("address")), covered, "{prefix:?} {address}");
        }
    }

    #[test]
    fn bits_behind_a_prefix_are_cleared_and_no_other() {
        let rows = [
            ("203.0.113.7", 32, "203.0.113.7"),
            ("203.0.113.7", 24, "203.0.113.0"),
            ("203.0.113.7", 0, "0.0.0.0"),
            ("fd00:244::7", 128, "fd00:244::7"),
            ("fd00:244::7", 64, "fd00:244::"),
            ("fd00:244::7", 0, "::"),
        ];
        for (address, length, network) in rows {
            let prefix = Prefix { address: address.parse().expect("address"), length };
            assert_eq!(masked(prefix).address.to_string(), network, "{address}/{length}");
        }
    }
}
