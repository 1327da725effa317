//! What the node is by itself: what its interfaces say, as the planner wants to know it.

use std::net::IpAddr;

use fairlead_kernel::LocalState;
use fairlead_plan::{LocalNode, ebpf::contains};

use crate::{NodePortAddresses, ServiceConfig};

/// The node with these interfaces.
pub(crate) fn local_node(state: &LocalState, config: &ServiceConfig) -> LocalNode {
    let serves = |address: &IpAddr| match &config.node_port_addresses {
        NodePortAddresses::All => true,
        NodePortAddresses::Primary => config.addresses.contains(address),
        NodePortAddresses::Within(networks) => networks.iter().any(|network| contains(network, *address)),
    };
    LocalNode {
        addresses: state.addresses.keys().map(|address| (*address, serves(address))).collect(),
        masquerade: [true, false].into_iter().filter_map(|v4| masquerade(state, config, v4)).collect(),
        mtu: state.mtu,
    }
}

/// The node's own address of a family; the uplink's when there is none, or when no interface has it.
fn masquerade(state: &LocalState, config: &ServiceConfig, v4: bool) -> Option<IpAddr> {
    let own = config.addresses.iter().find(|a| a.is_ipv4() == v4 && state.addresses.contains_key(a));
    let uplink = state.addresses.iter().find(|(a, on_uplink)| a.is_ipv4() == v4 && **on_uplink);
    own.or(uplink.map(|(address, _)| address)).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_model::Prefix;

    use super::*;

    #[test]
    fn node_ports_are_served_where_it_is_said() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let [loopback, second, first, six] = ["127.0.0.1", "172.29.0.5", "172.29.0.11", "fd00:29::b"].map(ip);
        let state = LocalState {
            addresses: BTreeMap::from([(loopback, false), (second, true), (first, true), (six, true)]),
            mtu: 1500,
        };
        let network = Prefix { address: ip("172.29.0.0"), length: 29 };
        for (node_port_addresses, expected) in [
            (NodePortAddresses::All, vec![loopback, second, first, six]),
            (NodePortAddresses::Primary, vec![first]),
            (NodePortAddresses::Within(vec![network]), vec![second]),
        ] {
            let config =
                ServiceConfig { addresses: vec![first], node_port_addresses, ..ServiceConfig::default() };
            let node = local_node(&state, &config);
            let serving: Vec<_> =
                node.addresses.iter().filter(|(_, serves)| **serves).map(|(a, _)| *a).collect();
            assert_eq!(serving, expected);
            assert_eq!((node.addresses.len(), node.masquerade), (4, vec![first, six]));
        }
    }
}
