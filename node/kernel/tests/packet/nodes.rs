//! Nodes and pods of network namespaces, wired as the agent does it.

use std::{fs, net::SocketAddr};

use aya::{
    maps::{LpmTrie, lpm_trie::Key},
    programs::{SchedClassifier, TcAttachType, Xdp, XdpMode, tc::qdisc_add_clsact},
};
use fairlead_abi::{
    Addr16,
    names::{self, driver, globals::FORWARD_ENCAPSULATED, link},
    node::{ADDRESS_LOCAL, ADDRESS_NODE, ADDRESS_NODE_PORT, AddressValue, NodeValue},
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
};
use zerocopy::IntoBytes;

use crate::support::{Loaded, Netns, addr, fill_in_checksums, ip};

const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 1, 0];
const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 2, 0];

/// A node: its network namespace and its programs.
pub(crate) struct Node {
    number: u8,
    pub(crate) netns: Netns,
    pub(crate) loaded: Loaded,
}

/// Two nodes that are joined by a cable.
pub(crate) fn nodes() -> (Node, Node) {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    ip(&format!("link add uplink netns {} type veth peer name uplink netns {}", a.name(), b.name()));
    (Node::new(1, a, FORWARD_ENCAPSULATED), Node::new(2, b, FORWARD_ENCAPSULATED))
}

/// Two nodes and a client that is no node on one link: 172.29.0.7 and fd00:29::7. The nodes forward as `forwarding` says.
pub(crate) fn nodes_and_a_client(forwarding: u32) -> (Node, Node, Netns, Netns) {
    let (lan, a, b, client) = (Netns::new("lan"), Netns::new("a"), Netns::new("b"), Netns::new("client"));
    lan.run(|| {
        ip("link add lan type bridge");
        ip("link set lan up");
    });
    for (port, netns) in [("port1", &a), ("port2", &b), ("port3", &client)] {
        ip(&format!(
            "link add {port} netns {} type veth peer name uplink netns {}",
            lan.name(),
            netns.name()
        ));
        // As on a wire: complete checksums.
        netns.run(|| fill_in_checksums("uplink"));
        lan.run(|| {
            ip(&format!("link set {port} master lan up"));
            fill_in_checksums(port);
        });
    }
    client.run(|| {
        ip("link set uplink up");
        ip("address add 172.29.0.7/24 dev uplink");
        ip("address add fd00:29::7/64 dev uplink nodad");
    });
    (Node::new(1, a, forwarding), Node::new(2, b, forwarding), client, lan)
}

impl Node {
    fn new(number: u8, netns: Netns, forwarding: u32) -> Self {
        let (uplink, overlay) = netns.run(|| {
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
            ip("link add overlay type vxlan external dstport 4789 udp6zerocsumrx");
            ip("link set overlay up");
            (interface_index("uplink"), interface_index("overlay"))
        });
        let mut loaded = Loaded::of_node(uplink, overlay, forwarding);
        netns.run(|| {
            attach(&mut loaded, link::FROM_UPLINK, "uplink", TcAttachType::Ingress);
            attach(&mut loaded, link::TO_UPLINK, "uplink", TcAttachType::Egress);
            attach(&mut loaded, link::FROM_OVERLAY, "overlay", TcAttachType::Ingress);
        });
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
        let mut node = Self { number, netns, loaded };
        let own = NodeValue {
            v4: addr(&node.address(0)),
            v6: addr(&node.address(1)),
            mtu: 1_500,
            ..NodeValue::default()
        };
        node.loaded.array::<NodeValue>(names::NODE).set(0, own, 0).unwrap();
        for (number, flags) in [(number, ADDRESS_LOCAL | ADDRESS_NODE_PORT), (other, ADDRESS_NODE)] {
            for address in [format!("172.29.0.1{number}"), format!("fd00:29::1{number}")] {
                node.loaded.hash(names::ADDRESSES).insert(addr(&address), AddressValue { flags }, 0).unwrap();
            }
        }
        node
    }

    /// Puts the driver's program on the uplink. What a veth's program sends is taken in at the other end when that one has
    /// a program, too: there it is one that knows no address, until what comes back is dropped.
    pub(crate) fn drive(&mut self, mode: XdpMode, lan: &Netns) -> Loaded {
        let mut other_end = Loaded::with_globals(0, false);
        lan.run(|| drive(&mut other_end, &format!("port{}", self.number), mode));
        self.netns.run(|| drive(&mut self.loaded, "uplink", mode));
        other_end
    }

    /// The node's address of a family (0 is IPv4).
    pub(crate) fn address(&self, family: usize) -> String {
        [format!("172.29.0.1{}", self.number), format!("fd00:29::1{}", self.number)][family].clone()
    }
}

/// A pod: its network namespace and addresses.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) addresses: [String; 2],
    pub(crate) slot: u32,
}

impl Pod {
    /// Makes a pod the way a node does: host routes, a gateway that is no address of anybody, and its map entries.
    pub(crate) fn new(node: &mut Node, number: u8) -> Self {
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
    pub(crate) fn at(&self, family: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[family].parse().unwrap(), port)
    }
}

fn drive(loaded: &mut Loaded, interface: &str, mode: XdpMode) {
    let program = loaded.ebpf.program_mut(driver::FROM_WIRE).expect("the object has it");
    let program: &mut Xdp = program.try_into().expect("an XDP program");
    program.attach(interface, mode).unwrap_or_else(|error| panic!("{interface}, {mode:?}: {error}"));
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
