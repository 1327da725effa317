//! Entries of conntrack that a UDP service outlived.
//!
//! Conntrack keeps the endpoint that the first datagram of a flow was sent to for as long as datagrams come. When that
//! endpoint stops serving, the flow's entry has to go, so that the next datagram is sent to another. As in kube-proxy,
//! an endpoint that terminates but serves keeps its flows, and traffic policies do not matter; unlike there, a service
//! that has no endpoint left is cleaned as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use fairlead_model::{Protocol, View};

use super::{Config, Family, Port};
use crate::select::{Place, Target, node_addresses};

/// Where UDP flows go, as conntrack has it; whose they are does not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Way {
    /// Where the first datagram was sent to.
    pub to: SocketAddr,
    /// Who answers, or would.
    pub answered_by: SocketAddr,
}

/// Those that lead to an endpoint which does not serve any more.
pub fn stale(view: &View, config: &Config, family: Family, ways: &BTreeSet<Way>) -> Vec<Way> {
    let nodes = node_addresses(view);
    let zone = view.node(&config.node).map(|node| node.zone.clone()).unwrap_or_default();
    let place = Place { node: &config.node, zone: &zone, node_addresses: &nodes };
    let mut addresses: BTreeMap<(IpAddr, u16), BTreeSet<Target>> = BTreeMap::new();
    let mut node_ports: BTreeMap<u16, BTreeSet<Target>> = BTreeMap::new();
    for service in view.services() {
        let ports = Port::all(view, &service.name, family, place);
        for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            let serving: BTreeSet<Target> = port.serving.iter().copied().collect();
            let external = port.external_addresses.iter().chain(&port.balancer_addresses);
            for address in std::iter::once(&port.cluster_address).chain(external) {
                addresses.entry((*address, port.port)).or_default().extend(&serving);
            }
            if port.node_port != 0 {
                node_ports.entry(port.node_port).or_default().extend(&serving);
            }
        }
    }
    // Another machine's port of that number has nothing to do with it.
    let is_here = |address: IpAddr| address.is_loopback() || config.local_addresses.contains(&address);
    let of_service = |to: &SocketAddr| {
        let node_port = || node_ports.get(&to.port()).filter(|_| is_here(to.ip()));
        addresses.get(&(to.ip(), to.port())).or_else(node_port)
    };
    let is_stale = |way: &&Way| {
        let answering = Target { address: way.answered_by.ip(), port: way.answered_by.port() };
        of_service(&way.to).is_some_and(|serving| !serving.contains(&answering))
    };
    ways.iter().filter(is_stale).copied().collect()
}

/// Reads a line of what `conntrack -L -p udp` prints: the flow as it was sent, then as it is answered.
pub fn parse(line: &str) -> Option<Way> {
    let values = |key: &str| -> Vec<&str> {
        line.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let (src, dst, sport, dport) = (values("src"), values("dst"), values("sport"), values("dport"));
    let socket = |address: Option<&&str>, port: Option<&&str>| {
        Some(SocketAddr::new(address?.parse().ok()?, port?.parse().ok()?))
    };
    Some(Way { to: socket(dst.first(), dport.first())?, answered_by: socket(src.get(1), sport.get(1))? })
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change, ServicePort};

    use super::*;
    use crate::classic::trace::table::{NODE, config, endpoint, service, slice, view};

    const LISTING: &str = "\
udp      17 29 src=10.244.1.9 dst=10.96.0.1 sport=4000 dport=80 [UNREPLIED] src=10.244.1.1 dst=10.244.1.9 sport=8080 dport=4000 mark=0 use=1
udp      17 29 src=10.244.1.9 dst=10.96.0.1 sport=4001 dport=80 src=10.244.1.7 dst=10.244.1.9 sport=8080 dport=4001 [ASSURED] mark=0 use=1
udp      17 29 src=203.0.113.7 dst=192.0.2.11 sport=4002 dport=30001 src=10.244.1.7 dst=192.0.2.11 sport=8080 dport=4002 mark=0 use=1
udp      17 29 src=10.244.1.9 dst=10.96.0.1 sport=4003 dport=80 [UNREPLIED] src=10.96.0.1 dst=10.244.1.9 sport=80 dport=4003 mark=0 use=1
udp      17 29 src=10.244.1.9 dst=198.18.0.1 sport=4004 dport=80 src=198.18.0.1 dst=10.244.1.9 sport=80 dport=4004 mark=0 use=1
udp      17 29 src=10.244.1.9 dst=198.18.0.1 sport=4005 dport=30001 src=198.18.0.1 dst=10.244.1.9 sport=30001 dport=4005 mark=0 use=1
udp      17 29 src=10.244.1.8 dst=10.96.0.1 sport=4001 dport=80 src=10.244.1.7 dst=10.244.1.8 sport=8080 dport=4001 [ASSURED] mark=0 use=1
";
    /// Ways of the listing.
    const TO_SERVING: (&str, &str) = ("10.96.0.1:80", "10.244.1.1:8080");
    const TO_GONE: (&str, &str) = ("10.96.0.1:80", "10.244.1.7:8080");
    const TO_GONE_BY_NODE: (&str, &str) = ("192.0.2.11:30001", "10.244.1.7:8080");
    const TO_NOBODY: (&str, &str) = ("10.96.0.1:80", "10.96.0.1:80");

    fn assert_stale(view: &View, expected: &[(&str, &str)]) {
        let ways = LISTING.lines().filter_map(parse).collect();
        let found = stale(view, &config(true, false), Family::V4, &ways);
        let socket = |text: &str| text.parse().expect("a socket");
        let expected = expected.iter().map(|(to, from)| Way { to: socket(to), answered_by: socket(from) });
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    fn udp() -> Change {
        let mut service = service(1);
        let first = service.ports.remove(0);
        service.ports.push(ServicePort { protocol: Protocol::Udp, ..first });
        Change::PutService(service)
    }

    fn udp_slice(draining: bool) -> Change {
        let mut gone = endpoint("10.244.1.7", NODE);
        (gone.ready, gone.serving, gone.terminating) = (false, draining, true);
        match slice(1, vec![endpoint("10.244.1.1", NODE), gone]) {
            Change::PutSlice(mut slice) => {
                slice.ports[0].protocol = Protocol::Udp;
                Change::PutSlice(slice)
            }
            other => other,
        }
    }

    #[test]
    fn flows_to_an_endpoint_that_left_go_and_so_do_those_that_began_when_there_was_none() {
        assert_stale(&view(vec![udp(), udp_slice(false)]), &[TO_NOBODY, TO_GONE, TO_GONE_BY_NODE]);
    }

    #[test]
    fn an_endpoint_that_drains_keeps_its_flows() {
        assert_stale(&view(vec![udp(), udp_slice(true)]), &[TO_NOBODY]);
    }

    #[test]
    fn the_last_endpoint_takes_all_flows_along() {
        assert_stale(&view(vec![udp()]), &[TO_NOBODY, TO_SERVING, TO_GONE, TO_GONE_BY_NODE]);
    }

    #[test]
    fn flows_of_nobody_are_left_alone() {
        assert_stale(&view(Vec::new()), &[]);
    }
}
