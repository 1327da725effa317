use std::net::IpAddr;

use fairlead_model::{
    Algorithm, Endpoint, EndpointPort, EndpointSlice, HostPort, Node, ObjectName, Pod, Prefix, Protocol,
    Service, ServiceKind, ServicePort, TrafficDistribution, TrafficPolicy,
};
use proptest::{collection::vec, prelude::*};

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9.-]{0,12}"
}

fn name() -> impl Strategy<Value = ObjectName> {
    (text(), text()).prop_map(|(namespace, name)| ObjectName::new(namespace, name))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

fn service() -> impl Strategy<Value = Service> {
    let kind = prop_oneof![
        Just(ServiceKind::ClusterIp),
        Just(ServiceKind::Headless),
        text().prop_map(ServiceKind::ExternalName)
    ];
    let port = (text(), protocol(), any::<(u16, u16)>())
        .prop_map(|(name, protocol, (port, node_port))| ServicePort { name, protocol, port, node_port });
    let policy = || prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    let distribution = prop_oneof![
        Just(TrafficDistribution::Any),
        Just(TrafficDistribution::SameZone),
        Just(TrafficDistribution::SameNode)
    ];
    let algorithm = prop_oneof![Just(Algorithm::Random), Just(Algorithm::Maglev)];
    let addresses = || vec(address(), 0..3);
    let outside = (addresses(), addresses(), vec(prefix(), 0..3), policy(), any::<u16>(), algorithm);
    let flags = any::<(u32, bool, bool)>();
    (name(), kind, addresses(), vec(port, 0..4), policy(), distribution, flags, outside).prop_map(
        |(name, kind, addresses, ports, internal_policy, distribution, flags, outside)| Service {
            name,
            kind,
            addresses,
            ports,
            external_addresses: outside.0,
            load_balancer_addresses: outside.1,
            source_ranges: outside.2,
            internal_policy,
            external_policy: outside.3,
            health_check_port: outside.4,
            algorithm: outside.5,
            distribution,
            affinity_secs: flags.0,
            publish_not_ready: flags.1,
            foreign_proxy: flags.2,
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let names = (text(), text(), text(), text(), vec(text(), 0..3), vec(text(), 0..3));
    let endpoint =
        (address(), any::<(bool, bool, bool)>(), names).prop_map(|(address, flags, names)| Endpoint {
            address,
            ready: flags.0,
            serving: flags.1,
            terminating: flags.2,
            node: names.0.into(),
            zone: names.1.into(),
            hostname: names.2.into(),
            pod: names.3.into(),
            hint_nodes: names.4.into(),
            hint_zones: names.5.into(),
        });
    let port = (text(), protocol(), any::<u16>()).prop_map(|(name, protocol, port)| EndpointPort {
        name,
        protocol,
        port,
    });
    (name(), text(), vec(port, 0..3), vec(endpoint, 0..5), any::<u64>()).prop_map(
        |(name, service, ports, endpoints, triggered_unix_ns)| EndpointSlice {
            name,
            service,
            ports,
            endpoints,
            triggered_unix_ns,
        },
    )
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0..=32u8).prop_map(|(address, length)| Prefix { address, length })
}

fn node() -> impl Strategy<Value = Node> {
    (text(), vec(address(), 0..3), vec(prefix(), 0..3), text(), any::<(bool, bool)>()).prop_map(
        |(name, addresses, pod_networks, zone, (ready, leaving))| Node {
            name,
            addresses,
            pod_networks,
            zone,
            ready,
            leaving,
        },
    )
}

fn pod() -> impl Strategy<Value = Pod> {
    let host_port = (proptest::option::of(address()), protocol(), any::<(u16, u16)>())
        .prop_map(|(address, protocol, (port, pod_port))| HostPort { address, protocol, port, pod_port });
    (name(), text(), text(), vec(address(), 0..3), any::<bool>(), vec(host_port, 0..3)).prop_map(
        |(name, uid, node, addresses, host_network, host_ports)| Pod {
            name,
            uid,
            node,
            addresses,
            host_network,
            host_ports,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        service().prop_map(Change::PutService),
        name().prop_map(Change::DeleteService),
        slice().prop_map(Change::PutSlice),
        name().prop_map(Change::DeleteSlice),
        node().prop_map(Change::PutNode),
        text().prop_map(Change::DeleteNode),
        pod().prop_map(Change::PutPod),
        name().prop_map(Change::DeletePod),
        text().prop_map(Change::PutNamespace),
        (text(), vec(prefix(), 0..3))
            .prop_map(|(name, networks)| Change::PutServiceNetworks { name, networks }),
        text().prop_map(Change::DeleteServiceNetworks),
        text().prop_map(Change::PutCorefile),
        Just(Change::DeleteCorefile),
        text().prop_map(Change::DeleteNamespace),
    ]
}

fn assemble(messages: Vec<proto::WatchResponse>) -> Option<Update> {
    let mut assembly = Assembly::default();
    let mut complete = None;
    for message in messages {
        assert!(complete.is_none(), "an update ended before its last message");
        let bytes = message.encode_to_vec();
        let message = proto::WatchResponse::decode(bytes.as_slice()).expect("what was encoded decodes");
        complete = assembly.push(message).expect("valid");
    }
    complete
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_update_survives_the_wire(
        changes in vec(change(), 0..20), snapshot: bool, epoch: u64, sequence: u64
    ) {
        let update = Update { revision: Revision { epoch, sequence }, snapshot, changes };
        prop_assert_eq!(assemble(responses(update.clone())), Some(update));
    }
}

#[test]
fn a_large_snapshot_is_cut_by_count_and_by_size() {
    let namespaces = (0..2500).map(|i| Change::PutNamespace(format!("ns-{i}")));
    let large = (0..40).map(|i| Change::PutNamespace(format!("{i}-{}", "x".repeat(100_000))));
    let revision = Revision { epoch: 1, sequence: 9 };
    let update = Update { revision, snapshot: true, changes: namespaces.chain(large).collect() };
    let messages = responses(update.clone());
    assert!(messages.len() >= 3 + 3);
    for (i, message) in messages.iter().enumerate() {
        assert!(message.changes.len() <= CHANGES_MAX);
        assert!(message.encoded_len() <= BYTES_MAX + 1024);
        assert_eq!(message.more, i + 1 < messages.len());
    }
    assert_eq!(assemble(messages), Some(update));
}

#[test]
fn invalid_messages_are_refused_with_the_field() {
    use proto::change::Change as Wire;
    let message = |change| proto::WatchResponse {
        revision: Some(proto::Revision { epoch: 1, sequence: 1 }),
        changes: vec![proto::Change { change }],
        ..Default::default()
    };
    let short =
        proto::Pod { name: Some(Default::default()), addresses: vec![vec![1, 2, 3]], ..Default::default() };
    let port = proto::Port { port: 70_000, ..Default::default() };
    let service = proto::Service { name: Some(Default::default()), ports: vec![port], ..Default::default() };
    let rows = [
        (None, WireError::Missing { field: "Change.change" }),
        (Some(Wire::PutPod(short)), WireError::AddressLength { field: "Pod.addresses", length: 3 }),
        (Some(Wire::PutService(service)), WireError::OutOfRange { field: "Port.port", value: 70_000 }),
        (Some(Wire::PutSlice(Default::default())), WireError::Missing { field: "EndpointSlice.name" }),
    ];
    for (change, expected) in rows {
        assert_eq!(Assembly::default().push(message(change)), Err(expected));
    }
    let none = proto::WatchResponse::default();
    assert_eq!(Assembly::default().push(none), Err(WireError::Missing { field: "WatchResponse.revision" }));
}
