//! What the node is by itself: what its interfaces say, as the planner wants to know it.

use std::{collections::BTreeMap, net::IpAddr};

use fairlead_kernel::{Interface, LocalState};
use fairlead_model::{Prefix, View};
use fairlead_plan::{LocalNode, ebpf::contains};

use crate::{NodePortAddresses, ServiceConfig};

/// The `ServiceCIDR` that an API server makes of its `--service-cluster-ip-range`.
const DEFAULT_SERVICE_NETWORKS: &str = "kubernetes";

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

/// The networks of services, each in no other, and those that cannot be used: where a node's or a pod's address is in
/// one, it is not known to whom its addresses belong. The node's flag has the last word; else everybody's in the
/// cluster count, those that the API server was started with (`kubernetes`) first.
pub(crate) fn service_networks(config: &ServiceConfig, view: &View) -> (Vec<Prefix>, Vec<Prefix>) {
    let mut named: Vec<_> = view.service_networks().collect();
    named.sort_by_key(|(name, _)| *name != DEFAULT_SERVICE_NETWORKS);
    let told =
        named.iter().flat_map(|(_, networks)| *networks).filter(|_| config.service_networks.is_empty());
    let overlaps = |a: &Prefix, b: &Prefix| contains(a, b.address) || contains(b, a.address);
    let is_free = |network: &&Prefix| {
        view.nodes().all(|node| {
            !node.addresses.iter().any(|address| contains(network, *address))
                && !node.pod_networks.iter().any(|pods| overlaps(network, pods))
        })
    };
    let (free, taken) = config.service_networks.iter().chain(told).partition::<Vec<&Prefix>, _>(is_free);
    let mut networks: Vec<Prefix> = Vec::new();
    for network in free {
        let is_wider = |other: &Prefix| other.length <= network.length && contains(other, network.address);
        if !networks.iter().any(is_wider) {
            networks.retain(|other| !(network.length <= other.length && contains(network, other.address)));
            networks.push(*network);
        }
    }
    (networks, taken.into_iter().copied().collect())
}

/// Kinds of interfaces, as the kernel names them, behind which there is a network; a network card has none.
const KINDS: &[&str] = &["bond", "ipvlan", "macvlan", "team", "vlan"];
/// Those by which network plugins lead to pods, too.
const KINDS_OF_PLUGINS: &[&str] = &["bridge", "veth"];

/// The interfaces by which clients outside come, with their indexes: the uplink, network cards, and what has an address of
/// the node and a network behind it. A part of another interface has nothing to itself, and what only has addresses of the
/// node's `pod_networks` (a network plugin's bridge) leads to pods, whose own sockets are translated. Where pods are not ours,
/// which networks they have need not be known, and a plugin's interface cannot be told from another: an answer that is
/// translated where it comes from its pod has an address of the node, and the kernel drops it.
pub(crate) fn entrances(
    interfaces: &[Interface],
    pod_networks: &[Prefix],
    pods_are_ours: bool,
) -> BTreeMap<String, u32> {
    let of_pods = |address: &IpAddr| pod_networks.iter().any(|network| contains(network, *address));
    let is_one = |interface: &&Interface| {
        let kind = interface.kind.as_deref();
        let leads_outside = match kind {
            None => interface.addresses.is_empty() || !interface.addresses.iter().all(of_pods),
            Some(kind) => {
                let leads = KINDS.contains(&kind) || pods_are_ours && KINDS_OF_PLUGINS.contains(&kind);
                leads && !interface.addresses.iter().all(of_pods)
            }
        };
        interface.is_uplink || interface.is_ethernet && !interface.is_part && leads_outside
    };
    interfaces.iter().filter(is_one).map(|interface| (interface.name.clone(), interface.index)).collect()
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change, Node, Revision, Update};

    use super::*;

    #[test]
    fn a_network_of_services_in_which_nodes_or_pods_are_is_nobodys() {
        let prefix = |text: &str, length| Prefix { address: text.parse().expect("an address"), length };
        let network = prefix("10.96.0.0", 16);
        let other = prefix("fd00:96::", 112);
        let config = ServiceConfig { service_networks: vec![network, other], ..ServiceConfig::default() };
        let table: [(&[&str], &[Prefix], &[Prefix]); 4] = [
            (&["172.29.0.11", "fd00:29::b"], &[prefix("10.244.1.0", 24)], &[network, other]),
            (&["10.96.3.4"], &[], &[other]),
            (&[], &[prefix("10.96.128.0", 24)], &[other]),
            (&[], &[prefix("10.0.0.0", 8), prefix("fd00::", 16)], &[]),
        ];
        for (addresses, pod_networks, expected) in table {
            let node = Node {
                name: "a".into(),
                addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
                pod_networks: pod_networks.to_vec(),
                ..Node::default()
            };
            let mut view = View::default();
            let revision = Revision { epoch: 1, sequence: 1 };
            view.apply(Update { revision, snapshot: true, changes: vec![Change::PutNode(node)] });
            let found = service_networks(&config, &view);
            assert_eq!(found.0, expected, "{addresses:?} {pod_networks:?}");
            assert_eq!(found.0.len() + found.1.len(), 2);
        }
    }

    #[test]
    fn the_cluster_says_where_services_are_unless_the_flag_does() {
        let prefix = |text: &str, length| Prefix { address: text.parse().expect("an address"), length };
        let [first, six] = [prefix("10.96.0.0", 16), prefix("fd00:96::", 112)];
        let (more, part) = (prefix("10.112.0.0", 16), prefix("10.96.128.0", 24));
        let put = |name: &str, networks: &[Prefix]| Change::PutServiceNetworks {
            name: name.into(),
            networks: networks.to_vec(),
        };
        let mut view = View::default();
        let revision = Revision { epoch: 1, sequence: 1 };
        let changes = vec![put("a", &[part, more]), put("kubernetes", &[first, six]), put("z", &[first])];
        view.apply(Update { revision, snapshot: true, changes });
        let none = ServiceConfig::default();
        assert_eq!(
            service_networks(&none, &view),
            (vec![first, six, more], vec![]),
            "each once, the default first"
        );
        let given = ServiceConfig { service_networks: vec![more], ..ServiceConfig::default() };
        assert_eq!(service_networks(&given, &view), (vec![more], vec![]));
        assert_eq!(service_networks(&none, &View::default()), (vec![], vec![]));
    }

    #[test]
    fn clients_come_by_cards_and_by_what_has_an_address_and_a_network_behind_it() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let pods = [Prefix { address: ip("10.244.1.0"), length: 24 }];
        let plain = |name: &str, kind: Option<&str>, addresses: &[&str]| Interface {
            name: name.into(),
            index: 7,
            kind: kind.map(Into::into),
            is_ethernet: true,
            addresses: addresses.iter().map(|address| ip(address)).collect(),
            ..Interface::default()
        };
        let part = |interface| Interface { is_part: true, ..interface };
        let without_ethernet = |interface| Interface { is_ethernet: false, ..interface };
        let outside = ["172.30.0.11"];
        let table = [
            (plain("eth1", None, &outside), true),
            // Its addresses may be on the loopback interface, and routes say who has it as a next hop.
            (plain("eth2", None, &[]), true),
            (part(plain("eth3", None, &[])), false),
            (without_ethernet(plain("lo", None, &["127.0.0.1", "203.0.113.5"])), false),
            (without_ethernet(plain("wg0", Some("wireguard"), &outside)), false),
            (plain("bond0", Some("bond"), &outside), true),
            (plain("eth0.12", Some("vlan"), &outside), true),
            (plain("vlan-without", Some("vlan"), &[]), false),
            (plain("br0", Some("bridge"), &outside), true),
            (plain("cni0", Some("bridge"), &["10.244.1.1"]), false),
            (plain("both", Some("bridge"), &["10.244.1.1", "172.30.0.11"]), true),
            (plain("flp1", Some("veth"), &[]), false),
            (plain("ptp", Some("veth"), &["10.244.1.1"]), false),
            (plain("second", Some("veth"), &outside), true),
            (plain("fairlead-vx", Some("vxlan"), &[]), false),
            (plain("vxlan.calico", Some("vxlan"), &["192.168.0.0"]), false),
            (plain("kube-ipvs0", Some("dummy"), &["10.96.0.1"]), false),
            (Interface { is_uplink: true, ..plain("flannel.1", Some("vxlan"), &outside) }, true),
        ];
        for (interface, expected) in table {
            let found = |ours| entrances(std::slice::from_ref(&interface), &pods, ours);
            let itself = BTreeMap::from([(interface.name.clone(), 7)]);
            assert_eq!(found(true), if expected { itself.clone() } else { BTreeMap::new() }, "{interface:?}");
            let may_be_a_plugins = matches!(interface.kind.as_deref(), Some("bridge" | "veth"));
            let expected = expected && !may_be_a_plugins;
            assert_eq!(found(false), if expected { itself } else { BTreeMap::new() }, "{interface:?}");
        }
    }

    #[test]
    fn node_ports_are_served_where_it_is_said() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let [loopback, second, first, six] = ["127.0.0.1", "172.29.0.5", "172.29.0.11", "fd00:29::b"].map(ip);
        let state = LocalState {
            addresses: BTreeMap::from([(loopback, false), (second, true), (first, true), (six, true)]),
            mtu: 1500,
            interfaces: Vec::new(),
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
