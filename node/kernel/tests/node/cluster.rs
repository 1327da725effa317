//! The cluster as the feed would tell it.

use std::net::IpAddr;

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Prefix, Protocol, Revision, Service,
    ServicePort, Update, View,
};
use fairlead_testkit::{
    TwoNodes,
    echo::{TCP_PORT, UDP_PORT},
};

use crate::node::Pod;

/// Service addresses.
pub(crate) const VIP4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20));
pub(crate) const VIP6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x20));

/// One service, `echo`, and two nodes, `a` and `b`.
pub(crate) struct Cluster {
    pub(crate) view: View,
    sequence: u64,
}

impl Cluster {
    pub(crate) fn new(topology: &TwoNodes) -> Self {
        let node = |name: &str, octet: u8, addresses: &[IpAddr]| {
            let v6 = format!("fd00:244:0:{octet}::").parse().expect("an address");
            Change::PutNode(Node {
                name: name.into(),
                addresses: addresses.to_vec(),
                pod_networks: vec![
                    Prefix { address: IpAddr::from([10, 244, octet, 0]), length: 24 },
                    Prefix { address: v6, length: 64 },
                ],
                ..Node::default()
            })
        };
        let port =
            |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: 0 };
        let service = Change::PutService(Service {
            name: ObjectName::new("demo", "echo"),
            addresses: vec![VIP4, VIP6],
            ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, UDP_PORT)],
            ..Service::default()
        });
        let nodes = [node("a", 1, &topology.a.addresses), node("b", 2, &topology.b.addresses)];
        let mut cluster = Self { view: View::default(), sequence: 0 };
        cluster.apply(nodes.into_iter().chain([service]).collect());
        cluster
    }

    /// Replaces the endpoints by these pods, each with its node.
    pub(crate) fn set_endpoints(&mut self, pods: &[(&str, &Pod)]) {
        let slices = [true, false].map(|v4| {
            let endpoints = pods.iter().flat_map(|(node, pod)| {
                let of_family = pod.spec.addresses.iter().filter(move |address| address.is_ipv4() == v4);
                of_family.map(|address| Endpoint::ready_at(*address, node))
            });
            let port = |name: &str, protocol, port| EndpointPort { name: name.into(), protocol, port };
            Change::PutSlice(EndpointSlice {
                name: ObjectName::new("demo", if v4 { "echo-4" } else { "echo-6" }),
                service: "echo".into(),
                ports: vec![port("http", Protocol::Tcp, TCP_PORT), port("dns", Protocol::Udp, UDP_PORT)],
                endpoints: endpoints.collect(),
                triggered_unix_ns: 0,
            })
        });
        self.apply(slices.into());
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        self.view.apply(Update { revision, snapshot: false, changes });
    }
}
