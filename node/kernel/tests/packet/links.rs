//! Real packets between pods of one node and of two, through the TCX programs.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use aya::{
    maps::{LpmTrie, lpm_trie::Key},
    programs::{SchedClassifier, TcAttachType, tc::qdisc_add_clsact},
};
use fairlead_abi::{
    Addr16, DropReason,
    names::{self, link},
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
};
use zerocopy::IntoBytes;

use crate::support::{Loaded, Netns, addr, exchange, ip};

const WAIT: Duration = Duration::from_secs(5);
const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 1, 0];
const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 2, 0];

#[test]
fn pods_reach_pods_of_their_node_and_of_another() {
    let (mut a, mut b) = nodes();
    let (client, neighbour) = (Pod::new(&mut a, 1), Pod::new(&mut a, 2));
    let remote = Pod::new(&mut b, 1);
    for (server, node) in [(&neighbour, &a), (&remote, &b)] {
        for family in [0, 1] {
            let before = (a.loaded.counters(client.slot), node.loaded.counters(server.slot));
            converse(&client, server, family);
            let after = (a.loaded.counters(client.slot), node.loaded.counters(server.slot));
            let sent = after.0.tx_packets - before.0.tx_packets;
            assert!(sent >= 5, "a handshake, a request and an end");
            assert_eq!(sent, after.1.rx_packets - before.1.rx_packets, "what was sent was received");
            assert_eq!(after.0.tx_bytes - before.0.tx_bytes, after.1.rx_bytes - before.1.rx_bytes);
            assert_eq!(after.0.rx_bytes - before.0.rx_bytes, after.1.tx_bytes - before.1.tx_bytes);
        }
    }
    assert_eq!((a.loaded.drops(), b.loaded.drops()), (Vec::new(), Vec::new()));
}

#[test]
fn a_forged_source_reaches_nobody_and_is_counted() {
    let (mut a, _b) = nodes();
    let (client, neighbour) = (Pod::new(&mut a, 1), Pod::new(&mut a, 2));
    let listening = neighbour.netns.run(|| UdpSocket::bind(neighbour.at(0, 7000)).unwrap());
    client.netns.run(|| {
        ip("address add 10.244.1.77/32 dev eth0");
        let forged = UdpSocket::bind("10.244.1.77:0").unwrap();
        forged.send_to(b"forged", neighbour.at(0, 7000)).unwrap();
        let own = UdpSocket::bind(client.at(0, 0)).unwrap();
        own.send_to(b"own", neighbour.at(0, 7000)).unwrap();
    });
    listening.set_read_timeout(Some(WAIT)).unwrap();
    let mut buffer = [0; 16];
    let (len, _) = listening.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"own", "the forged datagram was sent first");
    assert_eq!(a.loaded.drop_count(client.slot, DropReason::SourceNotOwned), 1);
}

#[test]
fn an_address_that_no_pod_has_is_refused_and_not_swallowed() {
    let (mut a, mut b) = nodes();
    let client = Pod::new(&mut a, 1);
    let _remote = Pod::new(&mut b, 1);
    for address in ["10.244.1.99:80", "[fd00:244:0:1::99]:80", "10.244.2.99:80", "[fd00:244:0:2::99]:80"] {
        let to: SocketAddr = address.parse().unwrap();
        let error = client.netns.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::TimedOut, "{address}: {error}");
    }
    assert!(a.loaded.drop_count(client.slot, DropReason::UnknownPod) >= 2, "{:?}", a.loaded.drops());
    assert!(b.loaded.drop_count(0, DropReason::UnknownPod) >= 2, "{:?}", b.loaded.drops());
    assert!(a.loaded.counters(client.slot).rx_packets >= 2, "the answers of the host's stack are counted");
}

#[test]
fn the_host_reaches_its_pods_and_they_reach_it() {
    let (mut a, _b) = nodes();
    let pod = Pod::new(&mut a, 1);
    let listener = pod.netns.run(|| TcpListener::bind(pod.at(0, 7001)).unwrap());
    let mut probe = a.netns.run(|| TcpStream::connect_timeout(&pod.at(0, 7001), WAIT)).unwrap();
    exchange(&mut probe, &mut listener.accept().unwrap().0);
    assert!(a.loaded.counters(pod.slot).rx_packets >= 3);

    let host: SocketAddr = "172.29.0.11:7002".parse().unwrap();
    let listener = a.netns.run(|| TcpListener::bind(host).unwrap());
    let mut client = pod.netns.run(|| TcpStream::connect_timeout(&host, WAIT)).unwrap();
    exchange(&mut client, &mut listener.accept().unwrap().0);
}

/// A conversation over one connection, opened and ended by the client; it returns when both sides have ended.
fn converse(client: &Pod, server: &Pod, family: usize) {
    let listener = server.netns.run(|| TcpListener::bind(server.at(family, 7000)).unwrap());
    let to = server.at(family, 7000);
    let mut client = client.netns.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(WAIT)).unwrap();
    client.set_write_timeout(Some(WAIT)).unwrap();
    exchange(&mut client, &mut server);
    // Large segments, whose checksums nobody has computed yet.
    let bulk: Vec<u8> = (0..1 << 20).map(|index: u32| (index * 7) as u8).collect();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| std::io::Write::write_all(&mut client, &bulk).unwrap());
        let mut received = vec![0; bulk.len()];
        std::io::Read::read_exact(&mut server, &mut received).unwrap();
        assert!(received == bulk, "what was sent arrived as it was");
        sender.join().unwrap();
    });
    // A reset is one packet and nothing follows it, so that the counters are at rest.
    client.set_linger_to_zero();
    drop(client);
    let mut rest = Vec::new();
    let ended = std::io::Read::read_to_end(&mut server, &mut rest).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
}

trait SetLinger {
    fn set_linger_to_zero(&self);
}

impl SetLinger for TcpStream {
    fn set_linger_to_zero(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(self, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    }
}

/// A node: its network namespace and its programs.
struct Node {
    number: u8,
    netns: Netns,
    loaded: Loaded,
}

/// Two nodes that are joined by a cable.
fn nodes() -> (Node, Node) {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    ip(&format!("link add uplink netns {} type veth peer name uplink netns {}", a.name(), b.name()));
    (Node::new(1, a), Node::new(2, b))
}

impl Node {
    fn new(number: u8, netns: Netns) -> Self {
        let ifindex = netns.run(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            ip("link set uplink up");
            ip(&format!("address add 172.29.0.1{number}/24 dev uplink"));
            ip(&format!("address add fd00:29::1{number}/64 dev uplink nodad"));
            ip(&format!("route add unreachable 10.244.{number}.0/24"));
            ip(&format!("route add unreachable fd00:244:0:{number}::/64"));
            // The other node's pods, for what this host's stack sends to them.
            let other = 3 - number;
            ip(&format!("route add 10.244.{other}.0/24 via 172.29.0.1{other}"));
            ip(&format!("route add fd00:244:0:{other}::/64 via fd00:29::1{other}"));
            interface_index("uplink")
        });
        let mut loaded = Loaded::with_globals(ifindex, true);
        netns.run(|| attach(&mut loaded, link::FROM_UPLINK, "uplink", TcAttachType::Ingress));
        let routes = loaded.ebpf.map_mut(names::ROUTES.name).expect("the object has it");
        let mut routes = LpmTrie::<_, [u8; 16], RouteValue>::try_from(routes).unwrap();
        let mut route = |prefix: String, len: u32, next_hop: Addr16| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(addr(&prefix).as_bytes());
            routes.insert(&Key::new(len, bytes), RouteValue { next_hop, ifindex: 0 }, 0).unwrap();
        };
        let other = 3 - number;
        route(format!("10.244.{number}.0"), 96 + 24, Addr16::UNSPECIFIED);
        route(format!("fd00:244:0:{number}::"), 64, Addr16::UNSPECIFIED);
        route(format!("10.244.{other}.0"), 96 + 24, addr(&format!("172.29.0.1{other}")));
        route(format!("fd00:244:0:{other}::"), 64, addr(&format!("fd00:29::1{other}")));
        Self { number, netns, loaded }
    }
}

/// A pod: its network namespace and addresses.
struct Pod {
    netns: Netns,
    addresses: [String; 2],
    slot: u32,
}

impl Pod {
    /// Makes a pod the way a node does: host routes, a gateway that is no address of anybody, and its map entries.
    fn new(node: &mut Node, number: u8) -> Self {
        let netns = Netns::new("pod");
        let v4 = format!("10.244.{}.{number}", node.number);
        let v6 = format!("fd00:244:0:{}::{number}", node.number);
        let host = format!("h{number}");
        let (mut mac, mut host_mac) = (POD_MAC, HOST_MAC);
        (mac[5], host_mac[5]) = (number, number);
        ip(&format!(
            "link add {host} netns {} address {} type veth peer name eth0 netns {} address {}",
            node.netns.name(),
            text(host_mac),
            netns.name(),
            text(mac)
        ));
        let gateway = text(host_mac);
        netns.run(|| {
            ip("link set eth0 up");
            ip(&format!("address add {v4}/32 dev eth0"));
            ip(&format!("address add {v6}/128 dev eth0 nodad"));
            ip(&format!("neighbour add 169.254.1.1 lladdr {gateway} nud permanent dev eth0"));
            ip(&format!("neighbour add fe80::1 lladdr {gateway} nud permanent dev eth0"));
            ip("route add default via 169.254.1.1 dev eth0 onlink");
            ip("route add default via fe80::1 dev eth0 onlink");
        });
        let slot = u32::from(number) + 4;
        let loaded = &mut node.loaded;
        let ifindex = node.netns.run(|| {
            ip(&format!("link set {host} up"));
            ip(&format!("route add {v4} dev {host}"));
            ip(&format!("route add {v6} dev {host}"));
            ip(&format!("neighbour add {v4} lladdr {} nud permanent dev {host}", text(mac)));
            ip(&format!("neighbour add {v6} lladdr {} nud permanent dev {host}", text(mac)));
            interface_index(&host)
        });
        let owner = InterfaceValue { v4: addr(&v4), v6: addr(&v6), slot };
        loaded.hash::<u32, InterfaceValue>(names::INTERFACES).insert(ifindex, owner, 0).unwrap();
        let pod = PodValue { ifindex, slot, mac, host_mac };
        for address in [owner.v4, owner.v6] {
            loaded.hash::<Addr16, PodValue>(names::PODS).insert(address, pod, 0).unwrap();
        }
        // Last: an interface without an entry may send nothing.
        node.netns.run(|| {
            attach(loaded, link::FROM_POD, &host, TcAttachType::Ingress);
            attach(loaded, link::TO_POD, &host, TcAttachType::Egress);
        });
        Self { netns, addresses: [v4, v6], slot }
    }

    /// The pod's address of a family (0 is IPv4), with a port.
    fn at(&self, family: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[family].parse().unwrap(), port)
    }
}

fn attach(loaded: &mut Loaded, program: &str, interface: &str, side: TcAttachType) {
    let classifier: &mut SchedClassifier =
        loaded.ebpf.program_mut(program).expect(program).try_into().expect("a classifier");
    // Before TCX a filter needs it; it may be there already.
    let _exists = qdisc_add_clsact(interface);
    classifier.attach(interface, side).unwrap_or_else(|error| panic!("{program} on {interface}: {error}"));
}

fn interface_index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
