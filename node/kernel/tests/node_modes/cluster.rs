//! The services of the lab, as the feed would tell of them.

use std::{net::IpAddr, ops::RangeInclusive};

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Prefix, Protocol, Revision, Service,
    ServicePort, TrafficPolicy, Update, View,
};

use crate::{
    behaviour::{AWAY, EMPTY, EVERYBODY, EXTERNAL_LOCAL, INTERNAL_LOCAL, OPEN, RESTRICTED, SELF},
    lab::{Lab, PORT},
    mode::is_of,
};

/// Port of the services.
pub(crate) const SERVICE_PORT: u16 = 80;

/// The pods' networks of the nodes.
pub(crate) const NETWORKS: [[(&str, u8); 2]; 2] =
    [[("10.244.1.0", 24), ("fd00:244:0:1::", 64)], [("10.244.2.0", 24), ("fd00:244:0:2::", 64)]];

/// A complete view.
pub(crate) fn view(sequence: u64, changes: &[Change]) -> View {
    let mut view = View::default();
    view.apply(Update {
        revision: Revision { epoch: 1, sequence },
        snapshot: true,
        changes: changes.to_vec(),
    });
    view
}

/// The address of a service, by kind and family.
pub(crate) fn address(kind: &str, service: u8, v4: bool) -> IpAddr {
    let (v4_start, v6_start) = match kind {
        "cluster" => ("10.96.0.", "fd00:96::"),
        "balancer" => ("198.51.100.", "fd00:51::"),
        "external" => ("198.51.101.", "fd00:52::"),
        other => panic!("{other}"),
    };
    let text = if v4 { format!("{v4_start}{service}") } else { format!("{v6_start}{service}") };
    text.parse().expect("an address")
}

/// Where node ports are; not in the API server's default range.
pub(crate) const NODE_PORTS: RangeInclusive<u16> = 20_000..=20_099;

/// Node port of a service.
pub(crate) fn node_port(service: u8) -> u16 {
    NODE_PORTS.start() + u16::from(service)
}

/// Everything that the table of behaviours asks for.
pub(crate) fn all(lab: &Lab) -> Vec<Change> {
    let mut changes = nodes(lab);
    for (number, endpoints) in [
        (OPEN, &["near", "far"][..]),
        (EXTERNAL_LOCAL, &["near", "far"]),
        (INTERNAL_LOCAL, &["near", "far"]),
        (EMPTY, &[]),
        (AWAY, &["far"]),
        (RESTRICTED, &["near", "far"]),
        (SELF, &["client"]),
        (EVERYBODY, &["near", "far"]),
    ] {
        let mut service = service(number, &[Protocol::Tcp, Protocol::Udp]);
        if [EXTERNAL_LOCAL, AWAY].contains(&number) {
            service.external_policy = TrafficPolicy::Local;
        }
        if [INTERNAL_LOCAL, AWAY].contains(&number) {
            service.internal_policy = TrafficPolicy::Local;
        }
        let source_ranges: &[(&str, u8)] = match number {
            RESTRICTED => &[
                ("203.0.113.0", 24),
                ("192.0.2.77", 25),
                ("255.255.255.255", 32),
                ("2001:db8:1::7", 48),
                ("2001:db8::7", 128),
            ],
            EVERYBODY => &[("203.0.113.0", 24), ("0.0.0.0", 0), ("::", 0)],
            _ => &[],
        };
        service.source_ranges = source_ranges.iter().copied().map(prefix).collect();
        changes.push(Change::PutService(service));
        changes.extend(slices(lab, number, &[Protocol::Tcp, Protocol::Udp], endpoints));
    }
    changes
}

/// A UDP service with these endpoints.
pub(crate) fn udp(lab: &Lab, endpoints: &[&str]) -> Vec<Change> {
    let mut changes = nodes(lab);
    changes.push(Change::PutService(service(OPEN, &[Protocol::Udp])));
    changes.extend(slices(lab, OPEN, &[Protocol::Udp], endpoints));
    changes
}

/// Another endpoint of that service: where the node sends a datagram to everybody.
pub(crate) fn everybody_of_the_link() -> Change {
    Change::PutSlice(EndpointSlice {
        name: ObjectName::new("demo", "everybody"),
        service: format!("svc{OPEN}"),
        ports: vec![EndpointPort {
            name: port_name(Protocol::Udp).into(),
            protocol: Protocol::Udp,
            port: PORT,
        }],
        endpoints: vec![Endpoint::ready_at(IpAddr::from([172, 29, 0, 255]), "b")],
        triggered_unix_ns: 0,
    })
}

fn nodes(lab: &Lab) -> Vec<Change> {
    let node = |(name, addresses, networks): (&str, &[IpAddr], [(&str, u8); 2])| {
        Change::PutNode(Node {
            name: name.into(),
            addresses: addresses.to_vec(),
            pod_networks: networks.map(prefix).to_vec(),
            ..Node::default()
        })
    };
    [("a", lab.node().addresses.as_slice(), NETWORKS[0]), ("b", &lab.other().addresses, NETWORKS[1])]
        .map(node)
        .to_vec()
}

fn prefix((text, length): (&str, u8)) -> Prefix {
    Prefix { address: text.parse().expect("an address"), length }
}

fn service(number: u8, protocols: &[Protocol]) -> Service {
    let both = |kind: &str| [true, false].map(|v4| address(kind, number, v4)).to_vec();
    let port = |protocol: &Protocol| ServicePort {
        name: port_name(*protocol).into(),
        protocol: *protocol,
        port: SERVICE_PORT,
        node_port: node_port(number),
    };
    Service {
        name: ObjectName::new("demo", format!("svc{number}")),
        addresses: both("cluster"),
        load_balancer_addresses: both("balancer"),
        external_addresses: both("external"),
        ports: protocols.iter().map(port).collect(),
        ..Service::default()
    }
}

fn slices(lab: &Lab, number: u8, protocols: &[Protocol], names: &[&str]) -> Vec<Change> {
    let port = |protocol: &Protocol| EndpointPort {
        name: port_name(*protocol).into(),
        protocol: *protocol,
        port: PORT,
    };
    let slice = |v4: bool| {
        let pods = names.iter().map(|name| lab.pod(name));
        let endpoints = pods.flat_map(|pod| {
            let of_family = pod.addresses.iter().filter(move |address| is_of(address, v4));
            of_family.map(|address| Endpoint::ready_at(*address, pod.node))
        });
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("demo", format!("svc{number}-{v4}")),
            service: format!("svc{number}"),
            ports: protocols.iter().map(port).collect(),
            endpoints: endpoints.collect(),
            triggered_unix_ns: 0,
        })
    };
    vec![slice(true), slice(false)]
}

fn port_name(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Udp { "datagrams" } else { "web" }
}
