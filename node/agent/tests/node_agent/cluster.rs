//! Changes that the feed tells of.

use std::net::IpAddr;

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Pod, Prefix, Protocol, Service,
    ServicePort,
};
use fairlead_testkit::echo::{TCP_PORT, UDP_PORT};

pub(crate) const VIP4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20));
pub(crate) const VIP6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x20));

/// Ports of an echo server, by the names that services have for them.
pub(crate) const ECHO: [(&str, Protocol, u16); 2] =
    [("http", Protocol::Tcp, TCP_PORT), ("dns", Protocol::Udp, UDP_PORT)];

/// How an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Ready,
    Terminating,
}

pub(crate) fn node(name: &str, octet: u8, addresses: &[IpAddr]) -> Change {
    let v6 = format!("fd00:244:0:{octet}::").parse().expect("an address");
    Change::PutNode(Node {
        name: name.into(),
        addresses: addresses.to_vec(),
        pod_networks: vec![
            Prefix { address: IpAddr::from([10, 244, octet, 0]), length: 24 },
            Prefix { address: v6, length: 64 },
        ],
        ready: true,
        ..Node::default()
    })
}

/// A service with ports for both protocols, and no node ports.
pub(crate) fn echo_service() -> Service {
    let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: 0 };
    Service {
        name: ObjectName::new("demo", "echo"),
        addresses: vec![VIP4, VIP6],
        ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
        ..Service::default()
    }
}

pub(crate) fn service() -> Change {
    Change::PutService(Service {
        name: ObjectName::new("demo", "echo"),
        addresses: vec![VIP4, VIP6],
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
        ..Service::default()
    })
}

pub(crate) fn pod(name: &str, node: &str, addresses: &[IpAddr]) -> Change {
    Change::PutPod(Pod {
        name: ObjectName::new("demo", name),
        uid: format!("uid-{name}"),
        node: node.into(),
        addresses: addresses.to_vec(),
        ..Pod::default()
    })
}

/// The slices of the service: one per family.
pub(crate) fn endpoints(of: &[(&str, &[IpAddr])]) -> Vec<Change> {
    slices("echo", &[("http", Protocol::Tcp, TCP_PORT)], of)
}

/// The slices of a service with these ports of its endpoints: one per family.
pub(crate) fn slices(
    service: &str,
    ports: &[(&str, Protocol, u16)],
    of: &[(&str, &[IpAddr])],
) -> Vec<Change> {
    let ready: Vec<_> = of.iter().map(|(node, addresses)| (*node, *addresses, State::Ready)).collect();
    slices_of(service, ports, &ready)
}

/// The same where endpoints may be on their way out.
pub(crate) fn slices_of(
    service: &str,
    ports: &[(&str, Protocol, u16)],
    of: &[(&str, &[IpAddr], State)],
) -> Vec<Change> {
    let slice = |v4: bool| {
        let endpoints = of.iter().flat_map(|(node, addresses, state)| {
            let of_family = addresses.iter().filter(move |address| address.is_ipv4() == v4);
            of_family.map(move |address| Endpoint {
                ready: *state == State::Ready,
                terminating: *state == State::Terminating,
                ..Endpoint::ready_at(*address, node)
            })
        });
        let ports = ports.iter().map(|(name, protocol, port)| EndpointPort {
            name: (*name).into(),
            protocol: *protocol,
            port: *port,
        });
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("demo", format!("{service}-{}", if v4 { 4 } else { 6 })),
            service: service.into(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
            triggered_unix_ns: 0,
        })
    };
    vec![slice(true), slice(false)]
}
