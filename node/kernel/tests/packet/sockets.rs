//! Real sockets under the cgroup hooks.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use fairlead_abi::{
    Addr16, Be16, DropReason,
    event::{FLOW_DENIED, FLOW_END, FLOW_START, FlowEvent, ROLE_CLIENT, ROLE_SERVER},
    names,
    node::{ADDRESS_LOCAL, ADDRESS_NODE_PORT, ADDRESS_SERVICE, AddressValue},
    pod::InterfaceValue,
    service::{
        BACKEND_CLUSTER, BACKEND_SERVING, BackendValue, SCOPE_ADDRESS, SCOPE_NODE_PORT,
        SERVICE_HAS_ENDPOINTS, SERVICE_HOST_ALLOWED, SERVICE_INTERNAL_LOCAL, SERVICE_SOURCE_RANGES,
        ServiceKey, ServiceValue, SourceRange, TCP, UDP,
    },
};

use crate::support::{Cgroup, Loaded, UPLINK, addr, exchange, in_netns};

/// Slot of the pod that the test's network namespace is.
const POD: u32 = 9;
const POD_ADDRESSES: [&str; 2] = ["10.244.9.5", "fd00:244:9::5"];
/// Addresses of the backends, on loopback.
const BACKENDS: &[&str] = &[
    "10.244.9.1/32",
    "10.244.9.2/32",
    "10.244.9.3/32",
    "fd00:244:9::1/128",
    "10.244.9.5/32",
    "fd00:244:9::5/128",
];
const WAIT: Duration = Duration::from_secs(5);
/// Longest wait for what comes for certain, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST: u32 = 100;

/// One test, because the process is in one cgroup at a time.
#[test]
fn applications_see_services_and_packets_see_backends() {
    let cgroup = Cgroup::enter();
    let mut loaded = Loaded::new();
    cgroup.attach(&mut loaded);
    in_netns(BACKENDS, || {
        loaded.own_this_netns();
        for scenario in SCENARIOS {
            loaded.events();
            scenario(&mut loaded);
        }
    });
    drop(loaded);

    let mut loaded = Loaded::with_globals(UPLINK, false);
    cgroup.attach(&mut loaded);
    in_netns(BACKENDS, || {
        loaded.own_this_netns();
        without_flow_events_only_counters_are_kept(&mut loaded);
    });
    drop(loaded);

    in_netns(BACKENDS, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let netns = socket_option(socket.as_raw_fd(), libc::SO_NETNS_COOKIE);
        let mut loaded = Loaded::of_host(netns);
        cgroup.attach(&mut loaded);
        the_hosts_ports_are_reserved_and_only_its_sockets_are_translated(&mut loaded);
    });
}

const SCENARIOS: &[fn(&mut Loaded)] = &[
    a_tcp_connection_is_translated_once_and_shows_the_service,
    a_mapped_address_in_an_ipv6_socket_is_translated,
    connections_spread_over_all_backends,
    a_service_without_endpoints_refuses_at_once,
    a_local_policy_without_local_endpoints_is_not_permitted,
    what_is_no_service_is_left_alone,
    an_unconnected_udp_socket_hears_the_service_answer,
    a_connected_udp_socket_is_translated_once,
    a_backend_given_to_another_endpoint_no_longer_answers_for_the_service,
    the_datagrams_of_a_socket_stay_with_their_backend_while_it_serves,
    a_client_with_affinity_stays_with_its_backend,
    source_ranges_are_checked_by_the_pods_address,
    a_node_port_is_served_on_every_address_of_the_node_and_on_loopback,
    an_unknown_port_of_a_service_address_is_refused_at_once,
    a_process_of_the_host_may_not_listen_on_a_node_port,
    a_refused_datagram_fails_at_once,
    a_service_that_points_at_nothing_refuses,
];

fn a_tcp_connection_is_translated_once_and_shows_the_service(loaded: &mut Loaded) {
    for (service, backend, client) in [
        ("10.96.0.10:80", "10.244.9.1:8080", "10.244.9.5:0"),
        ("[fd00:96::a]:80", "[fd00:244:9::1]:8080", "[fd00:244:9::5]:0"),
    ] {
        let (service, backend) = (socket_addr(service), socket_addr(backend));
        loaded.serve(TCP, service, &[backend], 0);
        let before = loaded.counters(POD);
        let listener = TcpListener::bind(backend).unwrap();
        let mut client = tcp_from(socket_addr(client), service).unwrap_or_else(|e| panic!("{service}: {e}"));
        let (mut server, client_seen) = listener.accept().unwrap();
        exchange(&mut client, &mut server);
        let local = client.local_addr().unwrap();
        assert_eq!(client.peer_addr().unwrap(), service, "getpeername shows what the client asked for");
        assert_eq!(client_seen, local, "the server sees the client's own address");
        assert_eq!(server.local_addr().unwrap(), backend);
        let cookies = (cookie(client.as_raw_fd()), cookie(server.as_raw_fd()));
        drop(client);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut server, &mut rest).unwrap();
        drop(server);

        let after = loaded.counters(POD);
        assert_eq!(after.connections_opened - before.connections_opened, 1);
        assert_eq!(after.connections_accepted - before.connections_accepted, 1);
        let events = wait_for(loaded, |events| {
            let ends = events.iter().filter(|event| event.kind == FLOW_END);
            ends.count() == 2
        });
        let of = |cookie: u64, kind: u8| {
            *events
                .iter()
                .find(|event| (event.cookie, event.kind) == (cookie, kind))
                .expect("the record is there")
        };
        for (kind, sent) in [(FLOW_START, false), (FLOW_END, true)] {
            let event = of(cookies.0, kind);
            check_ends(&event, local, backend);
            assert_eq!((event.role, event.proto), (ROLE_CLIENT, TCP));
            assert_eq!((event.service, event.service_port), (service.ip().into(), Be16::new(service.port())));
            assert_eq!(event.service_id, SERVICE_ID);
            assert_eq!(event.bytes_sent >= 4 && event.bytes_received >= 4, sent);
            assert!(event.start_ns > 0 && event.start_ns <= event.time_ns);
            let event = of(cookies.1, kind);
            check_ends(&event, backend, local);
            assert_eq!((event.role, event.service_id), (ROLE_SERVER, 0));
        }
        let end = of(cookies.0, FLOW_END);
        assert!(end.time_ns > end.start_ns && end.srtt_us > 0, "{end:?}");
    }
}

fn a_mapped_address_in_an_ipv6_socket_is_translated(loaded: &mut Loaded) {
    let backend = socket_addr("10.244.9.1:8080");
    loaded.serve(TCP, socket_addr("10.96.0.10:80"), &[backend], 0);
    let listener = TcpListener::bind(backend).unwrap();
    let mapped = socket_addr("[::ffff:10.96.0.10]:80");
    let mut client = TcpStream::connect_timeout(&mapped, WAIT).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    exchange(&mut client, &mut server);
    assert_eq!(client.peer_addr().unwrap(), mapped);

    loaded.serve(UDP, socket_addr("10.96.0.10:53"), &[socket_addr("10.244.9.1:5353")], 0);
    let server = udp(socket_addr("10.244.9.1:5353"));
    let client = udp(socket_addr("[::]:0"));
    let mapped = socket_addr("[::ffff:10.96.0.10]:53");
    client.send_to(b"ask", mapped).unwrap();
    let from = answer(&server);
    assert!(from.is_ipv4());
    assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (3, mapped));
}

fn connections_spread_over_all_backends(loaded: &mut Loaded) {
    let backends = ["10.244.9.1:8080", "10.244.9.2:8080", "10.244.9.3:8080"].map(socket_addr);
    let service = socket_addr("10.96.0.11:80");
    loaded.serve(TCP, service, &backends, 0);
    let listeners = backends.map(|backend| TcpListener::bind(backend).unwrap());
    let mut counts = [0; 3];
    let streams: Vec<_> = (0..300).map(|_| TcpStream::connect_timeout(&service, WAIT).unwrap()).collect();
    for (listener, count) in listeners.iter().zip(&mut counts) {
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_ok() {
            *count += 1;
        }
    }
    assert_eq!(counts.iter().sum::<usize>(), streams.len());
    // 100 expected each, with a standard deviation of 8: six of them.
    assert!(counts.iter().all(|count| (52..=148).contains(count)), "{counts:?}");
}

fn a_service_without_endpoints_refuses_at_once(loaded: &mut Loaded) {
    for (service, own) in [("10.96.0.12:80", POD_ADDRESSES[0]), ("[fd00:96::c]:80", POD_ADDRESSES[1])] {
        let service = socket_addr(service);
        loaded.serve(TCP, service, &[], 0);
        let before = (loaded.counters(POD), loaded.drop_count(POD, DropReason::NoEndpoints));
        let error = TcpStream::connect_timeout(&service, WAIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(loaded.counters(POD).connections_refused - before.0.connections_refused, 1);
        assert_eq!(loaded.drop_count(POD, DropReason::NoEndpoints) - before.1, 1);
        let events = denials(loaded);
        let [event] = events[..] else { panic!("one record: {events:?}") };
        assert_eq!(event.reason, DropReason::NoEndpoints as u32);
        assert_eq!((event.local, event.service), (addr(own), service.ip().into()));
        assert_eq!((event.service_port, event.service_id), (Be16::new(80), SERVICE_ID));
    }
}

fn a_local_policy_without_local_endpoints_is_not_permitted(loaded: &mut Loaded) {
    let service = socket_addr("10.96.0.13:80");
    loaded.serve(
        TCP,
        service,
        &[socket_addr("10.244.9.1:8080")],
        SERVICE_INTERNAL_LOCAL | SERVICE_HAS_ENDPOINTS,
    );
    let error = TcpStream::connect_timeout(&service, WAIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(loaded.drop_count(POD, DropReason::NoLocalEndpoints), 1);
    assert_eq!(denials(loaded)[0].reason, DropReason::NoLocalEndpoints as u32);
}

fn what_is_no_service_is_left_alone(loaded: &mut Loaded) {
    loaded.serve(TCP, socket_addr("10.244.9.1:7000"), &[], 0);
    let own = socket_addr("10.244.9.1:7001");
    let listener = TcpListener::bind(own).unwrap();
    let client = TcpStream::connect_timeout(&own, WAIT).unwrap();
    let (_server, _) = listener.accept().unwrap();
    assert_eq!(client.peer_addr().unwrap(), own);
    // The same address and port of the other protocol is another frontend.
    let udp_server = udp(socket_addr("10.244.9.1:7000"));
    let client = udp(socket_addr("10.244.9.5:0"));
    client.send_to(b"ask", socket_addr("10.244.9.1:7000")).unwrap();
    assert_eq!(answer(&udp_server), client.local_addr().unwrap());
}

fn an_unconnected_udp_socket_hears_the_service_answer(loaded: &mut Loaded) {
    for (service, backend, own) in [
        ("10.96.0.10:53", "10.244.9.1:5353", "10.244.9.5:0"),
        ("[fd00:96::a]:53", "[fd00:244:9::1]:5353", "[fd00:244:9::5]:0"),
    ] {
        let (service, backend) = (socket_addr(service), socket_addr(backend));
        loaded.serve(UDP, service, &[backend], 0);
        let (server, client) = (udp(backend), udp(socket_addr(own)));
        for _ in 0..2 {
            client.send_to(b"ask", service).unwrap();
            assert_eq!(answer(&server), client.local_addr().unwrap());
            assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (3, service));
        }
        // Of a socket that never asked the service, the backend's answer is the backend's.
        let stranger = udp(socket_addr(own));
        stranger.send_to(b"ask", backend).unwrap();
        answer(&server);
        assert_eq!(stranger.recv_from(&mut [0; 8]).unwrap(), (3, backend));
    }
}

fn a_connected_udp_socket_is_translated_once(loaded: &mut Loaded) {
    let (service, backend) = (socket_addr("10.96.0.10:53"), socket_addr("10.244.9.1:5353"));
    loaded.serve(UDP, service, &[backend], 0);
    let (server, client) = (udp(backend), udp(socket_addr("10.244.9.5:0")));
    client.connect(service).unwrap();
    assert_eq!(client.peer_addr().unwrap(), service);
    client.send(b"ask").unwrap();
    answer(&server);
    assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (3, service));
}

fn a_backend_given_to_another_endpoint_no_longer_answers_for_the_service(loaded: &mut Loaded) {
    let (service, backend) = (socket_addr("10.96.0.10:53"), socket_addr("10.244.9.1:5353"));
    loaded.serve(UDP, service, &[backend], 0);
    let (server, client) = (udp(backend), udp(socket_addr("10.244.9.5:0")));
    client.send_to(b"ask", service).unwrap();
    loaded.array::<BackendValue>(names::BACKENDS).set(FIRST, backend_value(UDP, backend, 77), 0).unwrap();
    answer(&server);
    assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (3, backend));
}

fn the_datagrams_of_a_socket_stay_with_their_backend_while_it_serves(loaded: &mut Loaded) {
    let service = socket_addr("10.96.0.15:53");
    let backends = ["10.244.9.1:5353", "10.244.9.2:5353", "10.244.9.3:5353"].map(socket_addr);
    loaded.serve(UDP, service, &backends, 0);
    let servers = backends.map(udp);
    let client = udp(socket_addr("10.244.9.5:0"));
    let ask = || {
        client.send_to(b"ask", service).unwrap();
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (3, service));
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        let serving = servers.each_ref().map(|server| {
            server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            scope.spawn(|| {
                let (mut buffer, mut count) = ([0; 8], 0);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok((len, from)) = server.recv_from(&mut buffer) {
                        server.send_to(&buffer[..len], from).unwrap();
                        count += 1;
                    }
                }
                count
            })
        });
        (0..60).for_each(|_| ask());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        serving.map(|thread| thread.join().unwrap())
    });
    assert!(counts.contains(&60), "one backend has answered all: {counts:?}");
    let chosen = counts.iter().position(|count| *count == 60).unwrap();
    let index = FIRST + chosen as u32;
    let gone = BackendValue { flags: 0, ..backend_value(UDP, backends[chosen], index) };
    loaded.array::<BackendValue>(names::BACKENDS).set(index, gone, 0).unwrap();
    let left: Vec<_> = backends.iter().filter(|backend| **backend != backends[chosen]).copied().collect();
    // What no longer serves is no longer in the service's range either.
    for (slot, backend) in (FIRST..).zip(&left) {
        let index = FIRST + backends.iter().position(|other| other == backend).unwrap() as u32;
        loaded.array::<u32>(names::SLOTS).set(slot, index, 0).unwrap();
    }
    let key = ServiceKey { addr: service.ip().into(), port: Be16::new(53), proto: UDP, scope: SCOPE_ADDRESS };
    let value = ServiceValue { first: FIRST, active: 2, ..service_value() };
    loaded.hash::<ServiceKey, ServiceValue>(names::SERVICES).insert(key, value, 0).unwrap();
    client.send_to(b"ask", service).unwrap();
    let heard = |server: &UdpSocket| server.recv_from(&mut [0; 8]).is_ok();
    assert!(!heard(&servers[chosen]), "the one that is gone is not asked");
    assert!(servers.iter().enumerate().any(|(at, server)| at != chosen && heard(server)));
}

fn a_client_with_affinity_stays_with_its_backend(loaded: &mut Loaded) {
    let service = socket_addr("10.96.0.16:80");
    let backends = ["10.244.9.1:8080", "10.244.9.2:8080", "10.244.9.3:8080"].map(socket_addr);
    let value = ServiceValue { affinity_secs: 60, ..service_value() };
    loaded.serve_as(TCP, service, SCOPE_ADDRESS, &backends, value);
    let listeners = backends.map(|backend| TcpListener::bind(backend).unwrap());
    let streams: Vec<_> = (0..40).map(|_| TcpStream::connect_timeout(&service, WAIT).unwrap()).collect();
    let counts = listeners.map(|listener| {
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    });
    assert!(counts.contains(&streams.len()), "{counts:?}");
}

fn source_ranges_are_checked_by_the_pods_address(loaded: &mut Loaded) {
    let (service, backend) = (socket_addr("203.0.113.9:80"), socket_addr("10.244.9.1:8080"));
    let restricted = ServiceValue { flags: SERVICE_SOURCE_RANGES, service_id: 4_712, ..service_value() };
    loaded.serve_as(TCP, service, SCOPE_ADDRESS, &[backend], restricted);
    let _listener = TcpListener::bind(backend).unwrap();
    let refused = TcpStream::connect_timeout(&service, WAIT).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert_eq!(loaded.drop_count(POD, DropReason::SourceNotAllowed), 1);
    // A host that is allowed is not this pod.
    let host_only = ServiceValue { flags: SERVICE_SOURCE_RANGES | SERVICE_HOST_ALLOWED, ..restricted };
    loaded.serve_as(TCP, service, SCOPE_ADDRESS, &[backend], host_only);
    assert!(TcpStream::connect_timeout(&service, WAIT).is_err());
    loaded.allow(4_712, POD_ADDRESSES[0], 96 + 24);
    TcpStream::connect_timeout(&service, WAIT).unwrap();
}

fn a_node_port_is_served_on_every_address_of_the_node_and_on_loopback(loaded: &mut Loaded) {
    for (any, backend, addresses) in [
        ("0.0.0.0:30080", "10.244.9.1:8080", ["127.0.0.1:30080", "10.244.9.2:30080"]),
        ("[::]:30080", "[fd00:244:9::1]:8080", ["[::1]:30080", "[fd00:244:9::5]:30080"]),
    ] {
        let (any, backend) = (socket_addr(any), socket_addr(backend));
        let key = if any.is_ipv4() { Addr16::UNSPECIFIED_V4 } else { Addr16::UNSPECIFIED };
        assert_eq!(Addr16::from(any.ip()), key);
        loaded.serve_as(TCP, any, SCOPE_NODE_PORT, &[backend], service_value());
        let listener = TcpListener::bind(backend).unwrap();
        for to in addresses.map(socket_addr) {
            let closed = TcpStream::connect_timeout(&to, WAIT).unwrap_err();
            assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "{to} serves no node ports yet");
            loaded.know(&to.ip().to_string(), ADDRESS_LOCAL | ADDRESS_NODE_PORT);
            let mut client = TcpStream::connect_timeout(&to, WAIT).unwrap_or_else(|e| panic!("{to}: {e}"));
            exchange(&mut client, &mut listener.accept().unwrap().0);
            assert_eq!(client.peer_addr().unwrap(), to);
        }
    }
}

fn an_unknown_port_of_a_service_address_is_refused_at_once(loaded: &mut Loaded) {
    loaded.know("10.96.0.10", ADDRESS_SERVICE);
    let error = TcpStream::connect_timeout(&socket_addr("10.96.0.10:9999"), WAIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(loaded.drop_count(POD, DropReason::NoPort), 1);
}

fn a_process_of_the_host_may_not_listen_on_a_node_port(loaded: &mut Loaded) {
    // A pod may: the test's namespace is a pod's, not the host's.
    let own = TcpListener::bind("0.0.0.0:30080").unwrap();
    drop(own);
    let any = socket_addr("0.0.0.0:30080");
    loaded.serve_as(TCP, any, SCOPE_NODE_PORT, &[socket_addr("10.244.9.1:8080")], service_value());
    TcpListener::bind(any).unwrap();
    assert_eq!(loaded.drop_count(0, DropReason::PortReserved), 0);
}

fn the_hosts_ports_are_reserved_and_only_its_sockets_are_translated(loaded: &mut Loaded) {
    let any = socket_addr("0.0.0.0:30080");
    loaded.serve_as(TCP, any, SCOPE_NODE_PORT, &[socket_addr("10.244.9.1:8080")], service_value());
    let error = TcpListener::bind(any).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::AddrInUse), "{error}");
    assert_eq!(loaded.drop_count(0, DropReason::PortReserved), 1);
    TcpListener::bind("0.0.0.0:30081").unwrap();
    TcpListener::bind("[::]:30080").expect_err("it would take IPv4 connections, too");
    let (service, backend) = (socket_addr("10.96.0.10:80"), socket_addr("10.244.9.1:8080"));
    loaded.serve(TCP, service, &[backend], 0);
    let _listener = TcpListener::bind(backend).unwrap();
    TcpStream::connect_timeout(&service, WAIT).unwrap();
}

fn a_refused_datagram_fails_at_once(loaded: &mut Loaded) {
    let service = socket_addr("10.96.0.12:53");
    loaded.serve(UDP, service, &[], 0);
    let error = udp(socket_addr("10.244.9.5:0")).send_to(b"ask", service).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(denials(loaded)[0].proto, UDP);
}

fn a_service_that_points_at_nothing_refuses(loaded: &mut Loaded) {
    let service = socket_addr("10.96.0.14:80");
    loaded.serve(TCP, service, &[socket_addr("10.244.9.1:8080")], 0);
    loaded.array::<BackendValue>(names::BACKENDS).set(FIRST, BackendValue::default(), 0).unwrap();
    let error = TcpStream::connect_timeout(&service, WAIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn without_flow_events_only_counters_are_kept(loaded: &mut Loaded) {
    let (service, backend) = (socket_addr("10.96.0.10:80"), socket_addr("10.244.9.1:8080"));
    loaded.serve(TCP, service, &[backend], 0);
    let listener = TcpListener::bind(backend).unwrap();
    let mut client = TcpStream::connect_timeout(&service, WAIT).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    exchange(&mut client, &mut server);
    assert_eq!(client.peer_addr().unwrap(), service);
    drop((client, server));
    loaded.serve(TCP, service, &[], 0);
    let refused = TcpStream::connect_timeout(&service, WAIT).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let counters = loaded.counters(POD);
    let counted = (counters.connections_opened, counters.connections_accepted, counters.connections_refused);
    assert_eq!(counted, (1, 1, 1));
    assert_eq!(loaded.events(), Vec::new());
}

/// The records of what was refused; connections of a former scenario may still be ending.
fn denials(loaded: &mut Loaded) -> Vec<FlowEvent> {
    loaded.events().into_iter().filter(|event| event.kind == FLOW_DENIED).collect()
}

const SERVICE_ID: u32 = 4_711;

impl Loaded {
    /// Writes a service with these backends, all of them on another node, in place of the backends of any other.
    fn serve(&mut self, proto: u8, service: SocketAddr, backends: &[SocketAddr], flags: u32) {
        self.serve_as(proto, service, SCOPE_ADDRESS, backends, ServiceValue { flags, ..service_value() });
    }

    fn serve_as(
        &mut self,
        proto: u8,
        service: SocketAddr,
        scope: u8,
        backends: &[SocketAddr],
        value: ServiceValue,
    ) {
        for (index, backend) in (FIRST..).zip(backends) {
            let value = backend_value(proto, *backend, index);
            self.array::<BackendValue>(names::BACKENDS).set(index, value, 0).unwrap();
            self.array::<u32>(names::SLOTS).set(index, index, 0).unwrap();
        }
        let key = ServiceKey { addr: service.ip().into(), port: Be16::new(service.port()), proto, scope };
        let value = ServiceValue { first: FIRST, active: backends.len() as u32, ..value };
        self.hash::<ServiceKey, ServiceValue>(names::SERVICES).insert(key, value, 0).unwrap();
    }

    fn allow(&mut self, service_id: u32, prefix: &str, len: u32) {
        let map = self.ebpf.map_mut(names::SOURCE_RANGES.name).expect("the object has it");
        let mut ranges = aya::maps::LpmTrie::<_, SourceRange, u8>::try_from(map).expect("a trie");
        let key = aya::maps::lpm_trie::Key::new(32 + len, SourceRange { service_id, addr: addr(prefix) });
        ranges.insert(&key, 1, 0).expect("there is room");
    }

    fn know(&mut self, address: &str, flags: u32) {
        self.hash(names::ADDRESSES).insert(addr(address), AddressValue { flags }, 0).unwrap();
    }

    /// Makes the network namespace of this thread that of the pod.
    fn own_this_netns(&mut self) {
        let [v4, v6] = POD_ADDRESSES.map(addr);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let netns = socket_option(socket.as_raw_fd(), libc::SO_NETNS_COOKIE);
        let pod = InterfaceValue { v4, v6, slot: POD };
        self.hash::<u64, InterfaceValue>(names::POD_NETNS).insert(netns, pod, 0).unwrap();
    }
}

fn backend_value(proto: u8, backend: SocketAddr, generation: u32) -> BackendValue {
    BackendValue {
        addr: backend.ip().into(),
        port: Be16::new(backend.port()),
        proto,
        flags: BACKEND_CLUSTER | BACKEND_SERVING,
        generation,
    }
}

fn service_value() -> ServiceValue {
    ServiceValue { service_id: SERVICE_ID, generation: 1, ..ServiceValue::default() }
}

fn check_ends(event: &FlowEvent, local: SocketAddr, remote: SocketAddr) {
    assert_eq!((event.local, event.local_port), (local.ip().into(), Be16::new(local.port())));
    assert_eq!((event.remote, event.remote_port), (remote.ip().into(), Be16::new(remote.port())));
}

/// Reads records until they are complete; the kernel ends a connection on its own time.
fn wait_for(loaded: &mut Loaded, complete: impl Fn(&[FlowEvent]) -> bool) -> Vec<FlowEvent> {
    let started = std::time::Instant::now();
    let mut events = loaded.events();
    while !complete(&events) {
        assert!(started.elapsed() < PATIENCE, "the records are not complete: {events:?}");
        std::thread::yield_now();
        events.extend(loaded.events());
    }
    events
}

fn socket_addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp_from(local: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}

fn udp(local: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

/// Answers one question and returns who asked.
fn answer(server: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 8];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..len], from).unwrap();
    from
}

fn cookie(socket: RawFd) -> u64 {
    socket_option(socket, libc::SO_COOKIE)
}

#[expect(unsafe_code, reason = "neither std nor nix reads this option")]
fn socket_option(socket: RawFd, option: libc::c_int) -> u64 {
    let mut value = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    let result =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}
