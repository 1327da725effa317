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

/// A UDP flow as conntrack has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flow {
    /// Who sent the first datagram.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// Who answers, or would.
    pub answered_by: SocketAddr,
}

/// The flows that go to an endpoint which does not serve any more.
pub fn stale(view: &View, config: &Config, family: Family, flows: &[Flow]) -> Vec<Flow> {
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
    let of_service =
        |to: &SocketAddr| addresses.get(&(to.ip(), to.port())).or_else(|| node_ports.get(&to.port()));
    let is_stale = |flow: &&Flow| {
        let answering = Target { address: flow.answered_by.ip(), port: flow.answered_by.port() };
        of_service(&flow.to).is_some_and(|serving| !serving.contains(&answering))
    };
    flows.iter().filter(is_stale).copied().collect()
}

/// Reads what `conntrack -L -p udp` prints: per line the flow as it was sent, then as it is answered.
pub fn parse(listing: &str) -> Vec<Flow> {
    listing.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Flow> {
    let values = |key: &str| -> Vec<&str> {
        line.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let (src, dst, sport, dport) = (values("src"), values("dst"), values("sport"), values("dport"));
    let socket = |address: Option<&&str>, port: Option<&&str>| {
        Some(SocketAddr::new(address?.parse().ok()?, port?.parse().ok()?))
    };
    Some(Flow {
        from: socket(src.first(), sport.first())?,
        to: socket(dst.first(), dport.first())?,
        answered_by: socket(src.get(1), sport.get(1))?,
    })
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
";

    fn ports(view: &View) -> Vec<u16> {
        let stale = stale(view, &config(true, false), Family::V4, &parse(LISTING));
        stale.iter().map(|flow| flow.from.port()).collect()
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
        assert_eq!(ports(&view(vec![udp(), udp_slice(false)])), [4001, 4002, 4003]);
    }

    #[test]
    fn an_endpoint_that_drains_keeps_its_flows() {
        assert_eq!(ports(&view(vec![udp(), udp_slice(true)])), [4003]);
    }

    #[test]
    fn the_last_endpoint_takes_all_flows_along() {
        assert_eq!(ports(&view(vec![udp()])), [4000, 4001, 4002, 4003]);
    }

    #[test]
    fn flows_of_nobody_are_left_alone() {
        assert!(ports(&view(Vec::new())).is_empty());
    }
}
