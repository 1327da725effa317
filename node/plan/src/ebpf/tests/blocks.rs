//! What blocks and frontends look like.

use super::*;

#[test]
fn each_policy_has_its_window_and_the_frontend_is_written_last() {
    let mut world = World::new();
    world.change(vec![node("here", &["172.29.0.11"])]);
    let mut hinted: Vec<Endpoint> = [1, 2, 3, 4].map(|last| endpoint(last, 'r')).into();
    for endpoint in &mut hinted {
        endpoint.hint_nodes =
            [if endpoint.address == ip("10.244.0.4") { "there" } else { "here" }.into()].into();
    }
    let plan =
        world.change(vec![Change::PutService(service("echo", &[VIP])), slice_of("echo", hinted.clone())]);
    assert_eq!((world.cluster(&key(VIP)), world.local(&key(VIP))), (vec![1, 2, 3], vec![2, 4]));
    let value = world.maps.value(&key(VIP));
    assert_eq!((value.skip, value.local, value.active), (1, 2, 3));
    let kinds: Vec<_> = plan.ops.iter().map(|op| format!("{op:?}")[..8].to_owned()).collect();
    assert_eq!(kinds, ["WriteBac", "WriteBac", "WriteBac", "WriteBac", "WriteSlo", "PutServi", "PutAddre"]);
}

#[test]
fn a_service_without_endpoints_has_a_frontend_that_leads_nowhere() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP]))]);
    assert_eq!(world.cluster(&key(VIP)), []);
    assert_eq!(world.maps.value(&key(VIP)).flags, 0, "refused");
    world.change(vec![slice("echo", &[1])]);
    assert_eq!(world.local(&key(VIP)), []);
    assert_eq!(world.maps.value(&key(VIP)).flags, SERVICE_HAS_ENDPOINTS, "dropped where it must be local");
}

#[test]
fn each_family_has_its_own_block() {
    let mut world = World::new();
    let mut six = endpoint(1, 'r');
    six.address = ip("fd00:244::7");
    let Change::PutSlice(mut slice6) = slice_of("echo", vec![six]) else { unreachable!() };
    slice6.name = name("echo-v6");
    world.change(vec![
        Change::PutService(service("echo", &[VIP, VIP6])),
        slice("echo", &[1]),
        Change::PutSlice(slice6),
    ]);
    assert_eq!((world.cluster(&key(VIP)), world.cluster(&key(VIP6))), (vec![1], vec![7]));
    assert_ne!(world.maps.value(&key(VIP)).service_id, world.maps.value(&key(VIP6)).service_id);
}

#[test]
fn only_cluster_addresses_are_kept_from_clients_outside() {
    for (deny_outside, flags) in [(false, 0), (true, SERVICE_INSIDE_ONLY)] {
        let mut world = World::with(Limits { deny_outside, ..Limits::default() });
        let everything = Service {
            ports: vec![ServicePort { node_port: 30_080, ..port(80) }],
            external_addresses: vec![ip("192.0.2.1")],
            load_balancer_addresses: vec![ip("192.0.2.2")],
            ..service("echo", &[VIP])
        };
        world.change(vec![Change::PutService(everything), slice("echo", &[1])]);
        for key in [key("192.0.2.1"), key("192.0.2.2"), node_port(30_080)] {
            assert_eq!(world.maps.value(&key).flags & SERVICE_INSIDE_ONLY, 0, "{key:?}");
        }
        assert_eq!(world.maps.value(&key(VIP)).flags, flags | SERVICE_HAS_ENDPOINTS);
    }
}

#[test]
fn all_frontends_of_a_block_lead_to_one_range() {
    let mut world = World::new();
    let everything = Service {
        ports: vec![ServicePort { node_port: 30_080, ..port(80) }],
        external_addresses: vec![ip("192.0.2.1")],
        load_balancer_addresses: vec![ip("192.0.2.2")],
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        source_ranges: vec![prefix("172.29.0.0/24"), prefix("198.51.100.0/24")],
        ..service("echo", &[VIP])
    };
    world.change(vec![Change::PutService(everything.clone()), slice("echo", &[1, 2])]);
    let external = SERVICE_EXTERNAL | SERVICE_EXTERNAL_LOCAL;
    let restricted = SERVICE_SOURCE_RANGES | SERVICE_HOST_ALLOWED;
    for (key, flags) in [
        (key(VIP), SERVICE_INTERNAL_LOCAL),
        (key("192.0.2.1"), external),
        (key("192.0.2.2"), external | restricted),
        (node_port(30_080), external),
    ] {
        let value = world.maps.value(&key);
        assert_eq!(value.flags, flags | SERVICE_HAS_ENDPOINTS, "{key:?}");
        assert_eq!((world.cluster(&key), world.local(&key)), (vec![1, 2], vec![2]));
        let cluster = world.maps.value(&super::key(VIP));
        assert_eq!(value.first, cluster.first);
        assert_eq!(value.service_id, cluster.service_id, "clients' sessions are the same at all of them");
    }
    let id = world.maps.value(&key(VIP)).service_id;
    let ranges = BTreeSet::from([(id, prefix("172.29.0.0/24")), (id, prefix("198.51.100.0/24"))]);
    assert_eq!(world.maps.source_ranges, ranges);
    assert_eq!(
        world.planner.block(id).map(|(owner, _)| owner.to_string()).as_deref(),
        Some("service demo/echo")
    );

    let open = Service { source_ranges: vec![prefix("0.0.0.0/0")], ..everything.clone() };
    world.change(vec![Change::PutService(open)]);
    assert_eq!(world.maps.value(&key("192.0.2.2")).flags, external | SERVICE_HAS_ENDPOINTS, "open to all");
    assert_eq!(world.maps.source_ranges, BTreeSet::new());

    let inside = Service {
        ports: vec![port(80)],
        external_addresses: vec![],
        load_balancer_addresses: vec![],
        ..everything
    };
    world.change(vec![Change::PutService(inside)]);
    assert_eq!(world.maps.services.len(), 1);
}

#[test]
fn a_tcp_and_a_udp_port_of_one_number_are_two_blocks() {
    let mut world = World::new();
    let udp = ServicePort { protocol: Protocol::Udp, node_port: 30_080, ..port(80) };
    let ports = vec![ServicePort { node_port: 30_080, ..port(80) }, udp];
    world.change(vec![Change::PutService(Service { ports, ..service("echo", &[VIP]) }), slice("echo", &[1])]);
    let datagrams = ServiceKey { proto: 17, ..key(VIP) };
    assert_ne!(world.maps.value(&key(VIP)).service_id, world.maps.value(&datagrams).service_id);
    assert_eq!(world.maps.services.len(), 4);
    world.change(vec![Change::PutService(service("echo", &[VIP]))]);
    assert_eq!(world.maps.services.len(), 1);
    assert_eq!(world.cluster(&key(VIP)), [1]);
}

#[test]
fn an_entry_stays_where_it_is_while_its_endpoint_serves() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 3])]);
    let index_of = |world: &World, last: u8| {
        let found = |(_, value): &(&u32, &BackendValue)| {
            value.addr.to_ip() == IpAddr::from([10, 244, 0, last]) && value.flags != 0
        };
        let (index, value) = world.maps.backends.iter().find(found).expect("it serves");
        (*index, value.generation, value.flags)
    };
    let (index, generation, flags) = index_of(&world, 3);
    assert_eq!(flags, BACKEND_SERVING | BACKEND_CLUSTER);
    world.change(vec![slice_of("echo", vec![endpoint(1, 'r'), endpoint(3, 't')])]);
    assert_eq!(world.cluster(&key(VIP)), [1]);
    assert_eq!(index_of(&world, 3), (index, generation, BACKEND_SERVING), "it goes on with what it has");
    assert_eq!(world.restart(), Plan::default(), "found again though no slot names it");
    world.change(vec![slice_of("echo", vec![endpoint(3, 't')])]);
    assert_eq!(world.cluster(&key(VIP)), [3], "nobody else is left");
    assert_eq!(index_of(&world, 3), (index, generation, BACKEND_SERVING | BACKEND_CLUSTER));
}

#[test]
fn an_endpoint_that_stops_is_marked_after_the_commit_and_its_entry_gets_another_generation() {
    let mut world = World::with(Limits { backends: 2, ..Limits::default() });
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 3])]);
    let plan = world.change(vec![slice("echo", &[1])]);
    let marked =
        plan.ops.iter().position(|op| matches!(op, Op::WriteBackend { value, .. } if value.flags == 0));
    let committed = plan.ops.iter().position(|op| matches!(op, Op::PutService { .. }));
    assert!(committed < marked, "{plan:?}");
    assert_eq!(world.planner.next_release_ms(), Some(GRACE_MS));
    let void = BackendValue { generation: 1, ..BackendValue::default() };
    assert_eq!(world.rest().ops, [Op::WriteBackend { index: 1, value: void }]);
    world.restart();
    world.change(vec![slice("echo", &[1, 5])]);
    assert_eq!(world.maps.backends[&1].generation, 2, "also after a restart");
}

#[test]
fn sockets_of_a_udp_endpoint_are_ended_when_the_last_block_lets_go_of_it() {
    let udp = |name: &str, vip: &str| {
        let ports = vec![ServicePort { protocol: Protocol::Udp, ..port(80) }];
        Change::PutService(Service { ports, ..service(name, &[vip]) })
    };
    let mut world = World::new();
    world.change(vec![udp("a", VIP), udp("b", "10.96.0.21"), slice("a", &[1, 2]), slice("b", &[1])]);
    assert_eq!(world.change(vec![slice("a", &[2])]).stopped, [], "b still has it");
    let one = Target { address: ip("10.244.0.1"), port: 8080 };
    assert_eq!(world.change(vec![slice("b", &[2])]).stopped, [(Protocol::Udp, one)]);
    world.update(vec![slice("a", &[]), slice("b", &[])]);
    let two = Target { address: ip("10.244.0.2"), port: 8080 };
    assert_eq!(world.restart().stopped, [(Protocol::Udp, two)], "also what stopped meanwhile");
}

#[test]
fn services_that_are_not_ours_to_serve_have_no_frontend_and_turning_into_one_removes_it() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1])]);
    let echo = || service("echo", &[VIP]);
    for other in [
        Service { kind: ServiceKind::Headless, ..echo() },
        Service { kind: ServiceKind::ExternalName("example.org".into()), ..echo() },
        Service { foreign_proxy: true, ..echo() },
    ] {
        world.change(vec![Change::PutService(other)]);
        assert_eq!(world.maps.services.len(), 0);
        assert!(!world.maps.addresses.contains_key(&ip(VIP)));
        world.change(vec![Change::PutService(service("echo", &[VIP]))]);
        assert_eq!(world.cluster(&key(VIP)), [1]);
    }
}

#[test]
fn an_address_passes_from_a_deleted_service_to_a_new_one_in_one_commit() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("z", &[VIP])), slice("z", &[1])]);
    let plan = world.change(vec![
        Change::DeleteService(name("z")),
        Change::PutService(service("a", &[VIP])),
        slice("a", &[2]),
    ]);
    assert!(!plan.ops.contains(&Op::DeleteService { key: key(VIP) }), "{plan:?}");
    assert_eq!(world.cluster(&key(VIP)), [2]);
    assert_eq!(world.maps.addresses[&ip(VIP)], ADDRESS_SERVICE);
}

#[test]
fn two_ports_of_a_service_may_swap_their_numbers() {
    let mut world = World::new();
    let named = |name: &str, number| ServicePort { name: name.into(), ..port(number) };
    let endpoints = |name: &str, last| {
        let Change::PutSlice(mut slice) = slice("echo", &[last]) else { unreachable!() };
        slice.name = super::name(name);
        slice.ports[0].name = name.into();
        Change::PutSlice(slice)
    };
    let ports = |ports| Change::PutService(Service { ports, ..service("echo", &[VIP]) });
    world.change(vec![ports(vec![named("a", 80), named("b", 81)]), endpoints("a", 1), endpoints("b", 2)]);
    let other = ServiceKey { port: Be16::new(81), ..key(VIP) };
    assert_eq!((world.cluster(&key(VIP)), world.cluster(&other)), (vec![1], vec![2]));
    world.change(vec![ports(vec![named("a", 81), named("b", 80)])]);
    assert_eq!((world.cluster(&key(VIP)), world.cluster(&other)), (vec![2], vec![1]));
    assert_eq!(world.restart(), Plan::default());
}

#[test]
fn a_maglev_service_has_a_table_over_the_backends_of_the_policy_cluster() {
    let mut world = World::new();
    let maglev = Service { algorithm: Algorithm::Maglev, affinity_secs: 10_800, ..service("echo", &[VIP]) };
    world.change(vec![Change::PutService(maglev), slice("echo", &[1, 2, 3])]);
    let value = world.maps.value(&key(VIP));
    assert_eq!((value.table_len, value.affinity_secs), (509, 10_800));
    let [cluster, _, table] = world.maps.read(&value);
    let shares = |backend| table.iter().filter(|entry| *entry == backend).count();
    assert!(cluster.iter().all(|backend| (169..=170).contains(&shares(backend))));
    assert_eq!(world.restart(), Plan::default());
    world.change(vec![Change::PutService(service("echo", &[VIP]))]);
    assert_eq!(world.maps.value(&key(VIP)).table_len, 0);
}

#[test]
fn a_host_port_is_served_on_the_node_s_addresses_or_on_the_one_it_names() {
    let mut world = World::new();
    let host_port = |address: Option<&str>, port| HostPort {
        address: address.map(ip),
        protocol: Protocol::Tcp,
        port,
        pod_port: 8080,
    };
    let pod = |node: &str| {
        Change::PutPod(Pod {
            name: name("web-0"),
            node: node.into(),
            addresses: vec![ip("10.244.0.2"), ip("fd00:244::2")],
            host_ports: vec![
                host_port(None, 80),
                host_port(Some("172.29.0.11"), 81),
                host_port(Some("10.9.9.9"), 82),
            ],
            ..Pod::default()
        })
    };
    world.change(vec![pod("there")]);
    assert_eq!(world.maps.services.len(), 0, "another node's pod");
    world.change(vec![pod("here")]);
    let second = ServiceKey { port: Be16::new(81), ..key("172.29.0.11") };
    for frontend in [key("172.29.0.11"), key("fd00:29::b"), second] {
        assert_eq!((world.cluster(&frontend), world.local(&frontend)), (vec![2], vec![2]), "{frontend:?}");
        assert_eq!(world.maps.value(&frontend).flags, SERVICE_EXTERNAL | SERVICE_HAS_ENDPOINTS);
    }
    assert_eq!(world.maps.services.len(), 3, "none on an address without node ports, or on somebody else's");
    world.local.addresses.insert(ip("172.29.1.11"), true);
    world.change(vec![]);
    assert_eq!(world.cluster(&key("172.29.1.11")), [2], "an address that came later");
    assert_eq!(world.restart(), Plan::default());
    world.change(vec![Change::DeletePod(name("web-0"))]);
    assert_eq!(world.maps.services.len(), 0);
}

/// A pod of this node with one host port, 30080, at 10.244.0.`last`.
fn pod_with_host_port(pod: &str, last: u8, address: Option<&str>, protocol: Protocol) -> Change {
    Change::PutPod(Pod {
        name: name(pod),
        node: "here".into(),
        addresses: vec![IpAddr::from([10, 244, 0, last])],
        host_ports: vec![HostPort { address: address.map(ip), protocol, port: 30_080, pod_port: 8080 }],
        ..Pod::default()
    })
}

#[test]
fn of_two_pods_with_one_host_port_the_first_has_it_until_it_goes() {
    let tcp = Protocol::Tcp;
    // The second pod's address and protocol, whether the first is in its way.
    let rows = [(None, tcp, true), (Some("172.29.0.11"), tcp, true), (None, Protocol::Udp, false)];
    let frontend = ServiceKey { port: Be16::new(30_080), ..key("172.29.0.11") };
    for (address, protocol, clash) in rows {
        let mut world = World::new();
        world.change(vec![pod_with_host_port("z", 2, None, tcp)]);
        let plan = world.change(vec![pod_with_host_port("a", 4, address, protocol)]);
        let said: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        let expected =
            "pod demo/a is not served on 172.29.0.11:30080/TCP: pod demo/z has that address and port";
        assert_eq!(said, if clash { vec![expected] } else { vec![] }, "{address:?} {protocol:?}");
        assert_eq!(world.cluster(&frontend), [2]);
        assert_eq!(world.restart().ops, [], "a restart changes nothing");
        assert_eq!(world.change(vec![Change::DeletePod(name("z"))]).problems, []);
        let after = ServiceKey { proto: protocol.number(), ..frontend };
        assert_eq!(world.cluster(&after), [4]);
    }
    let mut world = World::new();
    world.local.addresses.insert(ip("172.29.1.11"), true);
    let elsewhere = pod_with_host_port("b", 6, Some("172.29.1.11"), tcp);
    let plan = world.change(vec![pod_with_host_port("a", 2, Some("172.29.0.11"), tcp), elsewhere]);
    assert_eq!(plan.problems, [], "each has an address of its own");
    let second = ServiceKey { port: Be16::new(30_080), ..key("172.29.1.11") };
    assert_eq!((world.cluster(&frontend), world.cluster(&second)), (vec![2], vec![6]));
}

#[test]
fn a_host_port_comes_before_a_node_port_and_that_is_said() {
    let service = Change::PutService(Service {
        ports: vec![ServicePort { node_port: 30_080, ..port(80) }],
        ..service("echo", &[VIP])
    });
    let pod = pod_with_host_port("web", 2, Some("172.29.0.11"), Protocol::Tcp);
    let frontend = ServiceKey { port: Be16::new(30_080), ..key("172.29.0.11") };
    for changes in [vec![service.clone(), pod.clone()], vec![pod, service]] {
        let mut world = World::new();
        let mut plan = Plan::default();
        for change in changes {
            plan = world.change(vec![change, slice("echo", &[1])]);
        }
        let said: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        let expected = "service demo/echo is not served on 172.29.0.11:30080/TCP: pod demo/web has that address and port";
        assert_eq!(said, [expected]);
        assert_eq!(world.change(vec![]).problems.len(), 1, "it is said once, whoever came first");
        assert_eq!((world.cluster(&frontend), world.cluster(&node_port(30_080))), (vec![2], vec![1]));
        assert_eq!(world.restart().ops, []);
        assert_eq!(world.change(vec![Change::DeletePod(name("web"))]).problems, []);
    }
}

#[test]
fn a_frontend_of_datagrams_that_leaves_a_service_takes_its_flows_along() {
    // What the port has been and becomes, which frontend is left.
    let udp = |number, node_port| ServicePort { protocol: Protocol::Udp, node_port, ..port(number) };
    let of = |frontend: ServiceKey| ServiceKey { proto: 17, ..frontend };
    let rows = [
        (udp(80, 30_053), udp(80, 0), Some(of(node_port(30_053)))),
        (udp(80, 0), udp(81, 0), Some(of(key(VIP)))),
        (udp(80, 0), udp(80, 30_053), None),
        (port(80), port(81), None),
    ];
    for (before, after, left) in rows {
        let mut world = World::new();
        let with = |port: &ServicePort| {
            Change::PutService(Service { ports: vec![port.clone()], ..service("echo", &[VIP]) })
        };
        world.change(vec![with(&before), slice("echo", &[1])]);
        let id = world.maps.services.values().next().expect("it is served").1.service_id;
        let plan = world.change(vec![with(&after)]);
        let ended =
            plan.ops.iter().filter(|op| matches!(op, Op::EndFlows { .. })).cloned().collect::<Vec<_>>();
        let expected = left.map(|frontend| Op::EndFlows { frontends: vec![(frontend, id)] });
        assert_eq!(ended, expected.into_iter().collect::<Vec<_>>(), "{before:?} to {after:?}");
    }
}

#[test]
fn a_load_balancer_needs_no_node_port() {
    let mut world = World::new();
    let balanced = Service { load_balancer_addresses: vec![ip("192.0.2.7")], ..service("echo", &[VIP]) };
    let plan = world.change(vec![Change::PutService(balanced), slice("echo", &[1])]);
    assert_eq!((world.cluster(&key("192.0.2.7")), plan.problems), (vec![1], vec![]));
    assert_eq!(world.maps.services.len(), 2, "its addresses, and no node port");
}

/// `ipMode: Proxy`: clients here ask the load balancer itself, as those outside do.
#[test]
fn an_address_that_becomes_a_load_balancers_own_is_left_to_it_and_may_come_back() {
    let mut world = World::new();
    let (of_nodes, balancer) = (service("echo", &[VIP]), "192.0.2.2");
    let of_balancer = Service { load_balancer_addresses: vec![ip(balancer)], ..of_nodes.clone() };
    for _ in 0..2 {
        world.change(vec![Change::PutService(of_balancer.clone()), slice("echo", &[1])]);
        assert_eq!(world.cluster(&key(balancer)), [1]);
        assert_eq!(world.maps.addresses[&ip(balancer)], ADDRESS_SERVICE);
        world.change(vec![Change::PutService(of_nodes.clone())]);
        assert_eq!(
            (world.maps.chosen(&key(balancer)), world.maps.addresses.get(&ip(balancer))),
            (None, None)
        );
        assert_eq!(world.cluster(&key(VIP)), [1], "the service is served all the same");
    }
}

#[test]
fn of_two_slices_one_may_go() {
    let mut world = World::new();
    let Change::PutSlice(mut second) = slice("echo", &[2, 3]) else { unreachable!("it is a slice") };
    second.name = name("echo-2");
    world.change(vec![
        Change::PutService(service("echo", &[VIP])),
        slice("echo", &[1, 2]),
        Change::PutSlice(second),
    ]);
    assert_eq!(world.cluster(&key(VIP)), [1, 2, 3]);
    world.change(vec![Change::DeleteSlice(name("echo"))]);
    assert_eq!(world.cluster(&key(VIP)), [2, 3], "an endpoint that was in both stays");
    world.change(vec![Change::DeleteSlice(name("echo-2"))]);
    assert_eq!(world.cluster(&key(VIP)), [0; 0]);
}

#[test]
fn affinity_that_is_put_on_and_off_changes_the_frontend_and_nothing_else() {
    let mut world = World::new();
    let with = |affinity_secs| {
        let port = ServicePort { node_port: 30_080, ..port(80) };
        Change::PutService(Service { affinity_secs, ports: vec![port], ..service("echo", &[VIP]) })
    };
    world.change(vec![with(0), slice("echo", &[1, 2])]);
    for secs in [600, 10, 0] {
        let plan = world.change(vec![with(secs)]);
        assert_eq!(plan.ops.len(), 2, "the two frontends: {:?}", plan.ops);
        for frontend in [key(VIP), node_port(30_080)] {
            assert_eq!(world.maps.value(&frontend).affinity_secs, secs);
        }
        let ids = [key(VIP), node_port(30_080)].map(|frontend| world.maps.value(&frontend).service_id);
        assert_eq!(ids[0], ids[1], "a client is known at all addresses of a port");
    }
}

#[test]
fn addresses_are_the_node_s_other_nodes_or_services() {
    let mut world = World::new();
    world.change(vec![
        node("here", &["172.29.0.11"]),
        node("there", &["172.29.0.12"]),
        Change::PutService(Service {
            external_addresses: vec![ip("172.29.0.12"), ip("192.0.2.1")],
            ..service("echo", &[VIP])
        }),
    ]);
    let both = ADDRESS_LOCAL | ADDRESS_NODE_PORT;
    let expected = [
        ("172.29.0.11", both),
        ("fd00:29::b", both),
        ("10.0.0.1", ADDRESS_LOCAL),
        ("172.29.0.12", ADDRESS_NODE),
        ("192.0.2.1", ADDRESS_SERVICE),
        (VIP, ADDRESS_SERVICE),
    ];
    assert_eq!(world.maps.addresses, expected.map(|(address, flags)| (ip(address), flags)).into());
    assert_eq!((world.maps.node.v4.to_ip(), world.maps.node.mtu), (ip("172.29.0.11"), 1500));
    assert_eq!(
        world.maps.value(&key("172.29.0.12")).flags,
        SERVICE_EXTERNAL,
        "a node's address may be an external one"
    );
    world.change(vec![Change::DeleteNode("there".into())]);
    assert_eq!(world.maps.addresses[&ip("172.29.0.12")], ADDRESS_SERVICE);
    world.change(vec![Change::DeleteService(name("echo"))]);
    assert_eq!(world.maps.addresses.len(), 3);
}

#[test]
fn endpoints_become_hosts_when_their_node_is_known() {
    let mut world = World::new();
    let mut on_node = endpoint(1, 'r');
    on_node.address = ip("172.29.0.12");
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice_of("echo", vec![on_node])]);
    let flags = |world: &World| world.maps.read(&world.maps.value(&key(VIP)))[0][0].flags;
    let pod = BACKEND_SERVING | BACKEND_CLUSTER;
    assert_eq!(flags(&world), pod);
    world.change(vec![node("there", &["172.29.0.12"])]);
    assert_eq!(flags(&world), pod | fairlead_abi::service::BACKEND_HOST);
    assert_eq!(flags(&world) & BACKEND_LOCAL, 0);
}
