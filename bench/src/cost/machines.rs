//! Two nodes and a machine outside of the cluster, on one network.

use fairlead_testkit::{Netns, Node, topology::UPLINK};

/// Who is on the network: the node that is measured, another one, a client outside.
pub(crate) struct Machines {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) outside: Node,
    _switch: Netns,
}

impl Machines {
    pub(crate) fn new() -> Self {
        let switch = Netns::new("switch");
        // Without snooping it has no timers.
        switch.ip(&["link", "add", "switch0", "type", "bridge", "mcast_snooping", "0"]);
        switch.ip(&["link", "set", "switch0", "up"]);
        let machine = |label, octet| join(&switch, label, octet);
        Self { a: machine("a", 11), b: machine("b", 12), outside: machine("outside", 13), _switch: switch }
    }
}

/// A machine with an uplink to the switch and no way further.
fn join(switch: &Netns, label: &str, octet: u8) -> Node {
    let (netns, port) = (Netns::new(label), format!("port-{label}"));
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"))
        .expect("a kernel with IPv6");
    switch.ip(&["link", "add", &port, "type", "veth", "peer", "name", UPLINK, "netns", netns.name()]);
    switch.ip(&["link", "set", &port, "master", "switch0", "up"]);
    let (v4, v6) = (format!("172.29.0.{octet}"), format!("fd00:29::{octet:x}"));
    netns.ip(&["addr", "add", &format!("{v4}/24"), "dev", UPLINK]);
    netns.ip(&["addr", "add", &format!("{v6}/64"), "dev", UPLINK, "nodad"]);
    netns.ip(&["link", "set", UPLINK, "up"]);
    let addresses = [v4, v6].map(|address| address.parse().expect("an address")).to_vec();
    Node { netns, addresses }
}
