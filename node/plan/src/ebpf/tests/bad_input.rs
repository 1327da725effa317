//! What the API should not have let through: left out, with one warning, and nothing else suffers.

use super::*;

/// What is said about a service, and how many frontends it has all the same.
fn said(changed: Service) -> (Vec<String>, usize) {
    let mut world = World::new();
    let neighbour = vec![Change::PutService(service("good", &["10.96.0.99"])), slice("good", &[1])];
    world.change(neighbour);
    world.change(vec![node("there", &["172.29.0.12"])]);
    let plan = world.change(vec![Change::PutService(changed), slice("echo", &[2])]);
    assert_eq!(world.cluster(&key("10.96.0.99")), [1], "another service does not suffer");
    assert_eq!(world.restart().ops, [], "and a restart finds everything done");
    (plan.problems.iter().map(ToString::to_string).collect(), world.maps.services.len() - 1)
}

#[test]
fn input_that_means_nothing_is_left_out_and_named() {
    let echo = || service("echo", &[VIP]);
    let node_port = |port: ServicePort| ServicePort { node_port: 30_080, ..port };
    let sctp = |number, node_port| ServicePort { protocol: Protocol::Sctp, node_port, ..port(number) };
    let table = [
        (
            Service { ports: vec![port(0), ServicePort { name: "b".into(), ..port(81) }], ..echo() },
            1,
            "port \"\" is 0",
        ),
        (Service { ports: vec![port(80), port(81)], ..echo() }, 1, "two ports are called \"\""),
        (
            Service { ports: vec![port(80), ServicePort { name: "b".into(), ..port(80) }], ..echo() },
            1,
            "two of its ports are 10.96.0.20:80/TCP",
        ),
        (
            Service {
                ports: vec![node_port(port(80)), node_port(ServicePort { name: "b".into(), ..port(81) })],
                ..echo()
            },
            3,
            "two of its ports are node port 30080/TCP",
        ),
        (
            Service { addresses: vec![ip("0.0.0.0"), ip(VIP)], ..echo() },
            1,
            "0.0.0.0 cannot be a service's address",
        ),
        (Service { external_addresses: vec![ip("127.0.0.1")], ..echo() }, 1, "127.0.0.1 cannot be"),
        (
            Service { external_addresses: vec![ip("fd00::1")], ..echo() },
            1,
            "no cluster address of its family",
        ),
        (Service { addresses: vec![ip("172.29.0.11")], ..echo() }, 0, "172.29.0.11 is a node's address"),
        (Service { addresses: vec![ip("172.29.0.12")], ..echo() }, 0, "172.29.0.12 is a node's address"),
        (
            Service { addresses: vec![ip("10.96.0.99")], ..echo() },
            0,
            "service demo/good has that address and port",
        ),
        (
            Service {
                load_balancer_addresses: vec![ip("192.0.2.2")],
                source_ranges: vec![prefix("fd00::/64")],
                ..echo()
            },
            2,
            "everybody may use it",
        ),
        (
            Service {
                load_balancer_addresses: vec![ip("192.0.2.2")],
                source_ranges: vec![prefix("10.0.0.0/33")],
                ..echo()
            },
            2,
            "source range 10.0.0.0/33 is left out",
        ),
        (
            Service { ports: vec![ServicePort { node_port: 20_080, ..port(80) }], ..echo() },
            1,
            "node port 20080/TCP: this node serves 30000 to 32767",
        ),
        (Service { ports: vec![sctp(80, 0)], ..echo() }, 1, "port 80/SCTP cannot lead to port 8080"),
        (
            Service { ports: vec![sctp(8080, 30_080)], ..echo() },
            1,
            "node port 30080/SCTP cannot lead to port 8080",
        ),
    ];
    for (service, frontends, expected) in table {
        let (problems, served) = said(service);
        assert_eq!((problems.len(), served), (1, frontends), "{expected}: {problems:?}");
        assert!(
            problems[0].contains(expected) && problems[0].contains("demo/echo"),
            "{expected}: {problems:?}"
        );
    }
}

#[test]
fn sctp_is_served_where_no_port_has_to_change() {
    let mut world = World::with(Limits { node_ports: 8000..=9000, ..Limits::default() });
    let sctp = |number, node_port| ServicePort { protocol: Protocol::Sctp, node_port, ..port(number) };
    let of = |frontend: ServiceKey, number| ServiceKey { proto: 132, port: Be16::new(number), ..frontend };
    world.change(vec![
        Change::PutService(Service { ports: vec![sctp(8080, 8080)], ..service("same", &[VIP]) }),
        slice("same", &[1]),
        Change::PutService(Service { ports: vec![sctp(81, 0)], ..service("other", &["10.96.0.21"]) }),
        slice("other", &[2]),
    ]);
    for frontend in [of(key(VIP), 8080), of(node_port(8080), 8080)] {
        assert_eq!(world.cluster(&frontend), [1]);
    }
    let other = world.maps.value(&of(key("10.96.0.21"), 81));
    assert_eq!((other.active, other.flags), (0, 0), "its clients are refused at once");
    assert_eq!(world.restart().ops, []);
}

#[test]
fn of_two_services_with_one_address_the_first_keeps_it_until_it_goes() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("b", &[VIP])), slice("b", &[1])]);
    let plan = world.change(vec![Change::PutService(service("a", &[VIP])), slice("a", &[2])]);
    let frontend = format!("{VIP}:80/TCP");
    assert_eq!(plan.problems, [Problem::Taken { owner: owner("a"), frontend, by: owner("b") }]);
    assert_eq!(world.cluster(&key(VIP)), [1]);
    assert_eq!(world.change(vec![]).problems.len(), 1, "it stays a problem");
    assert_eq!(world.change(vec![Change::DeleteService(name("b"))]).problems, []);
    assert_eq!(world.cluster(&key(VIP)), [2]);
    assert!(world.maps.addresses.contains_key(&ip(VIP)));
}

#[test]
fn five_thousand_endpoints_are_served() {
    let mut world = World::new();
    let many = |from: u16, to: u16| {
        let ready = (from..to).map(|number| {
            let [high, low] = number.to_be_bytes();
            Endpoint { address: IpAddr::from([10, 244, high, low]), ..endpoint(1, 'r') }
        });
        slice_of("echo", ready.collect())
    };
    let maglev = Service { algorithm: Algorithm::Maglev, ..service("echo", &[VIP]) };
    world.change(vec![Change::PutService(maglev), many(0, 5_000)]);
    let value = world.maps.value(&key(VIP));
    assert_eq!((value.active, value.table_len), (5_000, 16_381));
    let plan = world.change(vec![many(1, 5_001)]);
    let written = plan.ops.iter().filter(|op| matches!(op, Op::WriteBackend { .. })).count();
    assert_eq!(written, 2, "one that came and one that left");
}

#[test]
fn endpoints_that_cannot_be_reached_are_left_out_and_named_with_their_slice() {
    let addresses = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.0.1", "255.255.255.255", "::1", "fe80::1"];
    for address in addresses {
        let mut world = World::new();
        let bad = Endpoint { address: ip(address), ..endpoint(1, 'r') };
        world.change(vec![Change::PutService(service("good", &["10.96.0.99"])), slice("good", &[1])]);
        let endpoints = slice_of("echo", vec![endpoint(2, 'r'), bad]);
        let plan = world.change(vec![Change::PutService(service("echo", &[VIP])), endpoints]);
        let said: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 1, "{address}: {said:?}");
        assert!(said[0].starts_with("service demo/echo: 1 of its endpoints"), "{said:?}");
        assert_eq!((world.cluster(&key(VIP)), world.cluster(&key("10.96.0.99"))), (vec![2], vec![1]));
    }
}

#[test]
fn a_slice_of_a_family_that_the_service_does_not_have_changes_nothing() {
    let mut world = World::new();
    let six = Endpoint { address: ip("fd00:244::9"), ..endpoint(1, 'r') };
    let Change::PutSlice(mut foreign) = slice_of("echo", vec![six]) else { unreachable!("it is a slice") };
    foreign.name = name("echo-6");
    let changes =
        vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[2]), Change::PutSlice(foreign)];
    assert_eq!(world.change(changes).problems, []);
    assert_eq!((world.cluster(&key(VIP)), world.maps.services.len()), (vec![2], 1));
}
