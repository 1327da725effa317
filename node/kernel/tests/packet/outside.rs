//! Services through the link programs alone: clients outside the cluster, and pods without socket hooks.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::programs::XdpMode;
use fairlead_abi::{
    Addr16, Be16, DropReason,
    names::{
        self,
        globals::{FORWARD_DIRECT_RETURN, FORWARD_ENCAPSULATED, FORWARD_MASQUERADED},
    },
    node::{ADDRESS_SERVICE, AddressValue},
    service::{
        BACKEND_CLUSTER, BACKEND_HERE, BACKEND_HOST, BACKEND_LOCAL, BACKEND_SERVING, BackendValue,
        SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_EXTERNAL, SERVICE_EXTERNAL_LOCAL, SERVICE_HAS_ENDPOINTS,
        ServiceKey, ServiceValue, TCP, UDP,
    },
};
use fairlead_testkit::eventually;

use crate::{
    nodes::{Node, Pod, nodes_and_a_client},
    support::{Netns, addr, exchange, ip},
};

const WAIT: Duration = Duration::from_secs(5);
pub(crate) const NODE_PORT: u16 = 30_080;
pub(crate) const PORT: u16 = 80;
const TARGET: u16 = 8_080;
pub(crate) const BALANCER: [&str; 2] = ["203.0.113.9", "2001:db8:1::9"];
const CLUSTER: [&str; 2] = ["10.96.0.20", "fd00:96::20"];

/// Each backend that is written is another one, as with the agent: what was known of the former one no longer stands.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// A backend as one node sees it.
#[derive(Clone, Copy)]
struct Backend {
    address: IpAddr,
    flags: u8,
}

impl Node {
    /// Gives the service of a family and protocol these backends; the first `local` are of this node.
    fn serve(&mut self, family: usize, proto: u8, backends: &[Backend], flags: u32) {
        let first = 1 + (family as u32 * 2 + u32::from(proto == UDP)) * 8;
        for (index, backend) in (first..).zip(backends) {
            let value = BackendValue {
                addr: backend.address.into(),
                port: Be16::new(TARGET),
                proto,
                flags: backend.flags | BACKEND_CLUSTER | BACKEND_SERVING,
                generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            };
            self.loaded.array::<BackendValue>(names::BACKENDS).set(index, value, 0).unwrap();
            self.loaded.array::<u32>(names::SLOTS).set(index, index, 0).unwrap();
        }
        let value = ServiceValue {
            first,
            active: backends.len() as u32,
            local: backends.iter().filter(|backend| backend.flags & BACKEND_LOCAL != 0).count() as u32,
            flags: flags | if backends.is_empty() { 0 } else { SERVICE_HAS_ENDPOINTS },
            service_id: first,
            generation: 1,
            ..ServiceValue::default()
        };
        let any = [Addr16::UNSPECIFIED_V4, Addr16::UNSPECIFIED][family];
        let frontends = [
            (any, NODE_PORT, SCOPE_NODE_PORT, SERVICE_EXTERNAL),
            (addr(BALANCER[family]), PORT, SCOPE_ADDRESS, SERVICE_EXTERNAL),
            (addr(CLUSTER[family]), PORT, SCOPE_ADDRESS, 0),
        ];
        for (addr, port, scope, flags) in frontends {
            let key = ServiceKey { addr, port: Be16::new(port), proto, scope };
            let value = ServiceValue { flags: value.flags | flags, ..value };
            self.loaded.hash(names::SERVICES).insert(key, value, 0).unwrap();
        }
        for address in [BALANCER[family], CLUSTER[family]] {
            let value = AddressValue { flags: ADDRESS_SERVICE };
            self.loaded.hash(names::ADDRESSES).insert(addr(address), value, 0).unwrap();
        }
    }
}

/// Where the one backend is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Place {
    PodHere,
    PodElsewhere,
    HostHere,
    HostElsewhere,
}

pub(crate) const PLACES: [Place; 4] =
    [Place::PodHere, Place::PodElsewhere, Place::HostHere, Place::HostElsewhere];

/// Two nodes with a pod each, and a client outside that reaches the first.
pub(crate) struct World {
    pub(crate) a: Node,
    pub(crate) b: Node,
    client: Netns,
    pods: [Pod; 2],
    pub(crate) lan: Netns,
}

impl World {
    pub(crate) fn new(forwarding: u32) -> Self {
        let (mut a, mut b, client, lan) = nodes_and_a_client(forwarding);
        let pods = [Pod::new(&mut a, 1), Pod::new(&mut b, 1)];
        client.run(|| {
            // The balancer's address is the first node's business.
            ip(&format!("route add {}/32 via {}", BALANCER[0], a.address(0)));
            ip(&format!("route add {}/128 via {}", BALANCER[1], a.address(1)));
        });
        Self { a, b, client, pods, lan }
    }

    /// Puts the backend of a family at a place and tells both nodes; returns its address and the name of its namespace.
    pub(crate) fn serve_at(&mut self, place: Place, family: usize, flags: u32) -> (SocketAddr, String) {
        let address = match place {
            Place::PodHere => self.pods[0].at(family, TARGET),
            Place::PodElsewhere => self.pods[1].at(family, TARGET),
            Place::HostHere => socket(&self.a.address(family), TARGET),
            Place::HostElsewhere => socket(&self.b.address(family), TARGET),
        };
        let host = if matches!(place, Place::HostHere | Place::HostElsewhere) { BACKEND_HOST } else { 0 };
        let at_a = matches!(place, Place::PodHere | Place::HostHere);
        for proto in [TCP, UDP] {
            let here = |is: bool| if is { BACKEND_HERE | BACKEND_LOCAL } else { 0 };
            let backend = |flags| Backend { address: address.ip(), flags };
            self.a.serve(family, proto, &[backend(host | here(at_a))], flags);
            self.b.serve(family, proto, &[backend(host | here(!at_a))], flags);
        }
        let netns = match place {
            Place::PodHere => &self.pods[0].netns,
            Place::PodElsewhere => &self.pods[1].netns,
            Place::HostHere => &self.a.netns,
            Place::HostElsewhere => &self.b.netns,
        };
        (address, netns.name().to_owned())
    }
}

pub(crate) fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// The address that a client outside has.
const CLIENT: [&str; 2] = ["172.29.0.7", "fd00:29::7"];

#[test]
fn a_client_outside_reaches_every_backend_and_keeps_its_address() {
    for forwarding in [FORWARD_ENCAPSULATED, FORWARD_DIRECT_RETURN] {
        let mut world = World::new(forwarding);
        everywhere(&mut world, &|_, family, seen, _, context| {
            assert_eq!(seen, CLIENT[family].parse::<IpAddr>().unwrap(), "{context}, forwarding {forwarding}");
        });
        // Nothing is lost but what is too long for the overlay, of which the sender is told.
        let told = |(_, reason, _): &(u32, u32, u64)| *reason == DropReason::TooBig as u32;
        for node in [&world.a, &world.b] {
            assert!(node.loaded.drops().iter().all(told), "{:?}", node.loaded.drops());
        }
    }
}

#[test]
fn a_masqueraded_client_has_the_nodes_address() {
    let mut world = World::new(FORWARD_MASQUERADED);
    let nodes = [world.a.address(0), world.a.address(1)];
    everywhere(&mut world, &|place, family, seen, _, context| {
        // A process of the node would not believe that a packet from outside comes from the node.
        let expected = if place == Place::HostHere { CLIENT[family] } else { &nodes[family] };
        assert_eq!(seen, expected.parse::<IpAddr>().unwrap(), "{context}");
    });
}

/// Which backends are on another machine, for the driver's program to carry packets there.
const ELSEWHERE: [Place; 2] = [Place::PodElsewhere, Place::HostElsewhere];

#[test]
fn the_driver_carries_what_goes_on_to_another_node_and_nothing_else() {
    for forwarding in [FORWARD_ENCAPSULATED, FORWARD_DIRECT_RETURN, FORWARD_MASQUERADED] {
        for mode in [XdpMode::Driver, XdpMode::Skb] {
            let mut world = World::new(forwarding);
            let _driven = world.a.drive(mode, &world.lan);
            let before = std::cell::Cell::new(0);
            let nodes = [world.a.address(0), world.a.address(1)];
            everywhere(&mut world, &|place, family, seen, carried, context| {
                let context = format!("{context}, forwarding {forwarding}, {mode:?}");
                let masqueraded = forwarding == FORWARD_MASQUERADED && place != Place::HostHere;
                let expected = if masqueraded { &nodes[family] } else { CLIENT[family] };
                assert_eq!(seen, expected.parse::<IpAddr>().unwrap(), "{context}");
                let packets = carried - before.replace(carried);
                if ELSEWHERE.contains(&place) {
                    assert!(packets > 0, "{context}: the driver has carried nothing");
                } else {
                    assert_eq!(packets, 0, "{context}: what stays here is not the driver's");
                }
            });
        }
    }
}

/// Every backend place, family, frontend and protocol; `check` is told the client's address as the backend saw it, and
/// how much the first node's driver has carried.
fn everywhere(world: &mut World, check: &dyn Fn(Place, usize, IpAddr, u64, &str)) {
    for place in PLACES {
        for family in [0, 1] {
            let node = socket(&world.a.address(family), NODE_PORT);
            let balancer = socket(BALANCER[family], PORT);
            let client_netns = world.client.name().to_owned();
            let (address, server) = world.serve_at(place, family, 0);
            for to in [node, balancer] {
                let context = format!("{place:?} by {to} in {client_netns}");
                let seen = tcp(&server, address, to, &client_netns, &context);
                check(place, family, seen, world.a.loaded.carried(), &context);
                let seen = udp(&server, address, to, &client_netns, &context);
                check(place, family, seen, world.a.loaded.carried(), &context);
            }
        }
    }
}

/// A conversation over TCP with a megabyte each way, in segments of full size; returns the client as the server saw it.
pub(crate) fn tcp(server: &str, at: SocketAddr, to: SocketAddr, client: &str, context: &str) -> IpAddr {
    let listener = inside(server, || bind(|| TcpListener::bind(at)));
    let mut stream = inside(client, || TcpStream::connect_timeout(&to, WAIT))
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let (mut accepted, from) = listener.accept().unwrap();
    for stream in [&stream, &accepted] {
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
    }
    exchange(&mut stream, &mut accepted);
    assert_eq!(stream.peer_addr().unwrap(), to);
    bulk(&mut stream, &mut accepted, context);
    bulk(&mut accepted, &mut stream, context);
    from.ip()
}

fn bulk(from: &mut TcpStream, to: &mut TcpStream, context: &str) {
    let sent: Vec<u8> = (0..1 << 20).map(|index: u32| (index * 7) as u8).collect();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| from.write_all(&sent));
        let mut received = vec![0; sent.len()];
        to.read_exact(&mut received).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(received == sent, "{context}: what was sent arrived as it was");
        sender.join().unwrap().unwrap_or_else(|error| panic!("{context}: {error}"));
    });
}

/// Every client asks from this port: what a former one was told of a former backend must not hold for it.
const CLIENT_PORT: u16 = 40_001;

/// Questions and answers over UDP, small and so large that they come in fragments, from a connected and an unconnected
/// socket.
pub(crate) fn udp(server: &str, at: SocketAddr, to: SocketAddr, client: &str, context: &str) -> IpAddr {
    let server = inside(server, || bind(|| UdpSocket::bind(at)));
    server.set_read_timeout(Some(WAIT)).unwrap();
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
    let mut seen = None;
    for connected in [true, false] {
        let asking = inside(client, || bind(|| UdpSocket::bind((any, CLIENT_PORT))));
        asking.set_read_timeout(Some(WAIT)).unwrap();
        if connected {
            asking.connect(to).unwrap();
        }
        let mut buffer = vec![0; 8_000];
        for len in [4, 4_000] {
            let question = vec![len as u8; len];
            // Where a packet is too long for the way, the sender learns it by an error, and sends shorter ones then.
            let mut attempts = 0;
            let from = loop {
                let sent = if connected { asking.send(&question) } else { asking.send_to(&question, to) };
                if let Err(error) = sent {
                    assert!(attempts < 20, "{context}, {len} bytes: {error}");
                }
                server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                match server.recv_from(&mut buffer) {
                    Ok((received, from)) if received == len => break from,
                    // A question that was asked twice because its answer was late.
                    Ok(_) => {}
                    Err(error) => assert!(attempts < 20, "{context}, {len} bytes: {error}"),
                }
                attempts += 1;
            };
            seen = Some(from.ip());
            let mut attempts = 0;
            loop {
                server.send_to(&buffer[..len], from).ok();
                asking.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                match asking.recv_from(&mut buffer) {
                    Ok((received, answered)) => {
                        assert_eq!(answered, to, "{context}");
                        if received == len {
                            break;
                        }
                    }
                    Err(error) => assert!(attempts < 20, "{context}, answer of {len} bytes: {error}"),
                }
                attempts += 1;
            }
        }
    }
    seen.unwrap()
}

/// Binds an address that was in use a moment ago: a program that another test is just starting still has the socket
/// that was closed here, until it has begun.
fn bind<S>(socket: impl Fn() -> std::io::Result<S>) -> S {
    eventually("the address is free", || match socket() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => Some(bound.unwrap()),
    })
}

/// Runs in a named network namespace.
fn inside<T: Send>(netns: &str, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{netns}")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            run()
        });
        entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn who_cannot_be_served_is_told_at_once() {
    let mut world = World::new(FORWARD_ENCAPSULATED);
    for family in [0, 1] {
        for proto in [TCP, UDP] {
            world.a.serve(family, proto, &[], 0);
        }
        for (to, reason) in [
            (socket(&world.a.address(family), NODE_PORT), DropReason::NoEndpoints),
            (socket(BALANCER[family], PORT), DropReason::NoEndpoints),
            (socket(BALANCER[family], PORT + 1), DropReason::NoPort),
        ] {
            let before = world.a.loaded.drop_count(0, reason);
            let refused = world.client.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
            let any: SocketAddr = if family == 0 { "0.0.0.0:0" } else { "[::]:40001" }.parse().unwrap();
            let socket = world.client.run(|| UdpSocket::bind(any).unwrap());
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket.send(b"ask").unwrap();
            let refused = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
            assert!(world.a.loaded.drop_count(0, reason) - before >= 2, "{to}");
        }
    }
}

#[test]
fn a_local_policy_keeps_the_clients_address_and_drops_where_no_endpoint_is() {
    let mut world = World::new(FORWARD_MASQUERADED);
    for family in [0, 1] {
        let to = socket(&world.a.address(family), NODE_PORT);
        let client = world.client.name().to_owned();
        let (address, server) = world.serve_at(Place::PodHere, family, SERVICE_EXTERNAL_LOCAL);
        let seen = tcp(&server, address, to, &client, "Local, endpoint here");
        assert_eq!(seen, CLIENT[family].parse::<IpAddr>().unwrap());
        world.serve_at(Place::PodElsewhere, family, SERVICE_EXTERNAL_LOCAL);
        let error =
            world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(200))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(world.a.loaded.drop_count(0, DropReason::NoLocalEndpoints) > 0);
    }
}

#[test]
fn a_backends_closed_port_is_told_through_the_service() {
    let mut world = World::new(FORWARD_ENCAPSULATED);
    for place in PLACES {
        for family in [0, 1] {
            let to = socket(&world.a.address(family), NODE_PORT);
            world.serve_at(place, family, 0);
            let any: SocketAddr = if family == 0 { "0.0.0.0:0" } else { "[::]:40001" }.parse().unwrap();
            let socket = world.client.run(|| UdpSocket::bind(any).unwrap());
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(WAIT)).unwrap();
            socket.send(b"ask").unwrap();
            let refused = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{place:?} {family}");
            let refused = world.client.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{place:?} {family}");
        }
    }
}

#[test]
fn a_pod_whose_sockets_nobody_translates_reaches_services_with_its_own_address() {
    let mut world = World::new(FORWARD_ENCAPSULATED);
    for place in PLACES {
        for family in [0, 1] {
            let pod = Pod::new(&mut world.a, 10 + family as u8 + 2 * place as u8);
            let own = pod.at(family, 0).ip();
            let frontends = [socket(CLUSTER[family], PORT), socket(&world.a.address(family), NODE_PORT)];
            let client = pod.netns.name().to_owned();
            let (address, server) = world.serve_at(place, family, 0);
            for to in frontends {
                let context = format!("a pod to {place:?} by {to}");
                assert_eq!(tcp(&server, address, to, &client, &context), own, "{context}");
                assert_eq!(udp(&server, address, to, &client, &context), own, "{context}");
            }
        }
    }
    // A pod that is its own backend sees the service as its client.
    for family in [0, 1] {
        let client = world.pods[0].netns.name().to_owned();
        let to = socket(CLUSTER[family], PORT);
        let (address, server) = world.serve_at(Place::PodHere, family, 0);
        assert_eq!(tcp(&server, address, to, &client, "a pod to itself"), to.ip());
    }
}
