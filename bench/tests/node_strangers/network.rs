//! The network of a cluster whose pods are somebody else's: a bridge on each node, and routes or a VXLAN between them, as the
//! usual plugins make them. Paths are filtered strictly, as distributions do.

use std::net::IpAddr;

use fairlead_testkit::{Netns, Node, NodesAndClient, topology::UPLINK};

use crate::{BALANCER, address};

/// Names of the nodes, and of what answers in their pods.
pub(crate) const NODES: [&str; 2] = ["a", "b"];

/// How nodes reach each other's pods.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Plan {
    /// By routes to the other node.
    Routes,
    /// Through a tunnel, and nothing else is let in from it.
    Tunnel,
}

/// Two nodes with a pod each, and a client outside.
pub(crate) struct Network {
    pub(crate) pods: [Netns; 2],
    topology: NodesAndClient,
}

/// The tunnel's interface, and its link-layer address at a node.
const TUNNEL: &str = "tunnel";
const TUNNEL_MAC: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

impl Network {
    pub(crate) fn new(plan: Plan) -> Self {
        let topology = NodesAndClient::new();
        let network =
            Self { pods: [0, 1].map(|place| Netns::new(&format!("pod-{}", NODES[place]))), topology };
        for place in 0..2 {
            network.make_router(place);
            network.join_pod(place);
            match plan {
                Plan::Routes => network.route(place),
                Plan::Tunnel => network.tunnel(place),
            }
            network.masquerade_pods(place);
        }
        for (family, balancer) in BALANCER.iter().enumerate() {
            let via = network.node(0).addresses[family].to_string();
            network.client().netns.ip(&["route", "add", balancer, "via", &via]);
        }
        network
    }

    pub(crate) fn node(&self, place: usize) -> &Node {
        [&self.topology.a, &self.topology.b][place]
    }

    pub(crate) fn client(&self) -> &Node {
        &self.topology.client
    }

    /// The addresses of a node's pod.
    pub(crate) fn pod_addresses(&self, place: usize) -> [IpAddr; 2] {
        pod_network(place).map(|prefix| address(&format!("{prefix}5")))
    }

    fn make_router(&self, place: usize) {
        for (name, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv4/conf/all/rp_filter", "1"),
        ] {
            write(&self.node(place).netns, name, value);
        }
    }

    fn join_pod(&self, place: usize) {
        let (node, pod) = (&self.node(place).netns, &self.pods[place]);
        write(pod, "ipv6/conf/default/accept_dad", "0");
        node.ip(&["link", "add", "cni0", "type", "bridge"]);
        node.ip(&["link", "add", "pod", "type", "veth", "peer", "name", "eth0", "netns", pod.name()]);
        node.ip(&["link", "set", "pod", "master", "cni0", "up"]);
        node.ip(&["link", "set", "cni0", "up"]);
        pod.ip(&["link", "set", "eth0", "up"]);
        for (family, prefix) in pod_network(place).iter().enumerate() {
            let length = ["24", "64"][family];
            node.ip(&[
                ["addr", "add", &format!("{prefix}1/{length}"), "dev", "cni0"].as_slice(),
                nodad(family),
            ]
            .concat());
            pod.ip(&[
                ["addr", "add", &format!("{prefix}5/{length}"), "dev", "eth0"].as_slice(),
                nodad(family),
            ]
            .concat());
            pod.ip(&["route", "add", "default", "via", &format!("{prefix}1")]);
        }
    }

    fn route(&self, place: usize) {
        for (family, network) in networks(1 - place).iter().enumerate() {
            let via = self.node(1 - place).addresses[family].to_string();
            self.node(place).netns.ip(&["route", "add", network, "via", &via]);
        }
    }

    fn tunnel(&self, place: usize) {
        let (node, other) = (self.node(place), self.node(1 - place));
        let [own, peer] = [node, other].map(|node| node.addresses[0].to_string());
        node.netns.ip(&[
            "link",
            "add",
            TUNNEL,
            "address",
            TUNNEL_MAC[place],
            "type",
            "vxlan",
            "id",
            "1",
            "dev",
            UPLINK,
            "local",
            &own,
            "dstport",
            "8472",
            "nolearning",
        ]);
        node.netns.ip(&["link", "set", TUNNEL, "up"]);
        node.netns.exec("bridge", &["fdb", "append", TUNNEL_MAC[1 - place], "dev", TUNNEL, "dst", &peer]);
        for family in 0..2 {
            let [own, peer] = [place, 1 - place].map(|place| format!("{}0", pod_network(place)[family]));
            let length = ["32", "128"][family];
            let add = ["addr", "add", &format!("{own}/{length}"), "dev", TUNNEL];
            node.netns.ip(&[add.as_slice(), nodad(family)].concat());
            let to =
                ["neigh", "add", &peer, "lladdr", TUNNEL_MAC[1 - place], "dev", TUNNEL, "nud", "permanent"];
            node.netns.ip(&to);
            let network = &networks(1 - place)[family];
            node.netns.ip(&["route", "add", network, "via", &peer, "dev", TUNNEL, "onlink"]);
        }
    }

    /// As plugins do with what pods send to who is no pod.
    fn masquerade_pods(&self, place: usize) {
        let rule = "table inet plugin { chain out { type nat hook postrouting priority srcnat; \
                    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade; \
                    ip6 saddr fd00:244::/56 ip6 daddr != fd00:244::/56 masquerade;\n}\n}";
        self.node(place).netns.exec("nft", &[rule]);
    }
}

/// What the addresses of a node's pods begin with.
fn pod_network(place: usize) -> [String; 2] {
    let number = place + 1;
    [format!("10.244.{number}."), format!("fd00:244:0:{number}::")]
}

fn networks(place: usize) -> [String; 2] {
    let [v4, v6] = pod_network(place);
    [format!("{v4}0/24"), format!("{v6}/64")]
}

fn nodad(family: usize) -> &'static [&'static str] {
    [&[][..], &["nodad"][..]][family]
}

fn write(netns: &Netns, parameter: &str, value: &str) {
    let path = format!("/proc/sys/net/{parameter}");
    netns.run(|| std::fs::write(path, value)).expect("a parameter of this kernel");
}
