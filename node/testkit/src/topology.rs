//! Two nodes joined by a wire.

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
        command(
            "ip",
            &[
                "link",
                "add",
                UPLINK,
                "netns",
                a.name(),
                "type",
                "veth",
                "peer",
                "name",
                UPLINK,
                "netns",
                b.name(),
            ],
        );
        Self { a: Node::up(a, "172.29.0.11", "fd00:29::b"), b: Node::up(b, "172.29.0.12", "fd00:29::c") }
    }
}

impl Default for TwoNodes {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    fn up(netns: Netns, v4: &str, v6: &str) -> Self {
        // Until duplicate address detection is over (a second), neighbours cannot be asked.
        let parameter = format!("/proc/sys/net/ipv6/conf/{UPLINK}/accept_dad");
        netns.run(|| std::fs::write(parameter, "0")).expect("a kernel with IPv6");
        netns.ip(&["addr", "add", &format!("{v4}/24"), "dev", UPLINK]);
        netns.ip(&["addr", "add", &format!("{v6}/64"), "dev", UPLINK, "nodad"]);
        netns.ip(&["link", "set", UPLINK, "up"]);
        let addresses = [v4, v6].map(|address| address.parse().expect("an address")).to_vec();
        Self { netns, addresses }
    }
}
