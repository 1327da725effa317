//! Two nodes joined by a wire, and a client beside them.

use std::net::IpAddr;

use crate::{Netns, netns::command};

/// Name of a node's interface to the other node.
pub const UPLINK: &str = "uplink0";

/// A node: a namespace with an uplink.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub netns: Netns,
    /// Addresses of its uplink, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// Two nodes on one link, and no way out.
#[derive(Debug)]
pub struct TwoNodes {
    /// 172.29.0.11, fd00:29::b.
    pub a: Node,
    /// 172.29.0.12, fd00:29::c.
    pub b: Node,
}

impl TwoNodes {
    /// Makes them.
    ///
    /// # Panics
    /// They cannot be made.
    pub fn new() -> Self {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        wire(&a, &b);
        Self { a: Node::up(a, "172.29.0.11", "fd00:29::b"), b: Node::up(b, "172.29.0.12", "fd00:29::c") }
    }

    /// Takes the wire away, and the uplinks with it.
    ///
    /// # Panics
    /// There is none.
    pub fn cut_wire(&self) {
        self.a.netns.ip(&["link", "delete", UPLINK]);
    }

    /// Another wire once there is none: the uplinks are other interfaces with the names and addresses that they had.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn renew_wire(&self) {
        wire(&self.a.netns, &self.b.netns);
        for node in [&self.a, &self.b] {
            start(&node.netns, UPLINK);
            join(&node.netns, UPLINK, &node.addresses);
        }
    }
}

impl Default for TwoNodes {
    fn default() -> Self {
        Self::new()
    }
}

/// Two nodes and a client that is none of them, on one link, and no way out.
#[derive(Debug)]
pub struct NodesAndClient {
    /// 172.29.0.11, fd00:29::b.
    pub a: Node,
    /// 172.29.0.12, fd00:29::c.
    pub b: Node,
    /// 172.29.0.7, fd00:29::7.
    pub client: Node,
    _lan: Netns,
}

impl NodesAndClient {
    /// Makes them.
    ///
    /// # Panics
    /// They cannot be made.
    pub fn new() -> Self {
        let lan = Netns::new("lan");
        lan.ip(&["link", "add", "lan", "type", "bridge"]);
        lan.ip(&["link", "set", "lan", "up"]);
        let join = |name: &str, v4: &str, v6: &str| {
            let netns = Netns::new(name);
            let port = format!("to-{name}");
            let veth = ["link", "add", &port, "type", "veth", "peer", "name", UPLINK, "netns", netns.name()];
            lan.ip(&veth);
            lan.ip(&["link", "set", &port, "master", "lan", "up"]);
            Node::up(netns, v4, v6)
        };
        let a = join("a", "172.29.0.11", "fd00:29::b");
        let b = join("b", "172.29.0.12", "fd00:29::c");
        let client = join("client", "172.29.0.7", "fd00:29::7");
        Self { a, b, client, _lan: lan }
    }
}

impl Default for NodesAndClient {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    fn up(netns: Netns, v4: &str, v6: &str) -> Self {
        let addresses = [v4, v6].map(|address| address.parse().expect("an address")).to_vec();
        start(&netns, UPLINK);
        join(&netns, UPLINK, &addresses);
        Self { netns, addresses }
    }

    /// Takes the addresses from the uplink and gives them to it again, as somebody who configures it anew. With them the
    /// kernel forgets the routes by it.
    ///
    /// # Panics
    /// It has none.
    pub fn renew_addresses(&self) {
        self.netns.ip(&["addr", "flush", "dev", UPLINK, "scope", "global"]);
        join(&self.netns, UPLINK, &self.addresses);
    }

    /// A client behind another cable to this node, in a network of their own: 172.NETWORK.0.7, fd00:NETWORK::7. The node's end
    /// is called `card` and has no address yet.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn cable(&self, card: &str, network: u8) -> Self {
        let netns = Netns::new(card);
        let veth = ["link", "add", card, "type", "veth", "peer", "name", UPLINK, "netns", netns.name()];
        self.netns.ip(&veth);
        start(&self.netns, card);
        Self::up(netns, &format!("172.{network}.0.7"), &format!("fd00:{network}::7"))
    }

    /// Gives the node's end of such a cable its addresses, 172.NETWORK.0.11 and fd00:NETWORK::b, which are returned.
    ///
    /// # Panics
    /// It has them.
    pub fn address_card(&self, card: &str, network: u8) -> Vec<IpAddr> {
        let addresses = [format!("172.{network}.0.11"), format!("fd00:{network}::b")];
        let addresses = addresses.map(|address| address.parse().expect("an address")).to_vec();
        join(&self.netns, card, &addresses);
        addresses
    }
}

/// Joins the uplinks of two nodes.
fn wire(a: &Netns, b: &Netns) {
    let [a, b] = [a, b].map(Netns::name);
    let ends = ["link", "add", UPLINK, "netns", a, "type", "veth", "peer", "name", UPLINK, "netns", b];
    command("ip", &ends);
}

/// Sets an interface up.
fn start(netns: &Netns, interface: &str) {
    // Until duplicate address detection is over (a second), neighbours cannot be asked.
    let parameter = format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad");
    netns.run(|| std::fs::write(parameter, "0")).expect("a kernel with IPv6");
    netns.ip(&["link", "set", interface, "up"]);
}

/// Gives an interface addresses, and with them its network.
fn join(netns: &Netns, interface: &str, addresses: &[IpAddr]) {
    for address in addresses {
        let prefix = format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
        let add = ["addr", "add", &prefix, "dev", interface];
        netns.ip(&[&add[..], if address.is_ipv4() { &[] } else { &["nodad"] }].concat());
    }
}
