//! Where clients and servers are: pods of two nodes, with an agent in some mode or with nothing but the kernel's routing.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Result, bail};
use fairlead_testkit::{Netns, Node};

use super::server::Server;
use crate::cost::{
    agent::{Ready, Remote},
    case::{Asked, Case, Sizes, Way},
    feed::service_addresses,
    machines::Machines,
    place::Spot,
    running::Running,
    traffic::{SERVER_PORT, SERVICE_PORT},
};

/// With no load balancing: clients ask the server itself. Everything is measured against it.
pub(super) const NONE: &str = "none";

/// The way from the client to a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Path {
    /// Of the client's node.
    SameNode,
    /// Of the other node.
    CrossNode,
}

impl Path {
    pub(super) const ALL: [Self; 2] = [Self::SameNode, Self::CrossNode];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SameNode => "same-node",
            Self::CrossNode => "cross-node",
        }
    }
}

/// The client, and what it asks on each [`Path`], IPv4 first. All is gone when it is dropped.
pub(super) struct Place {
    pub(super) client: PathBuf,
    /// Whose processes are translated; none where nothing is.
    pub(super) cgroup: Option<PathBuf>,
    pub(super) targets: [[SocketAddr; 2]; 2],
    // In the order in which they must go.
    _servers: [Server; 2],
    _agents: Option<Running>,
    _pods: Vec<Netns>,
    _machines: Machines,
}

impl Place {
    /// Prepares it in a mode, with so many services beside those that are asked.
    pub(super) fn new(mode: &'static str, services: u32) -> Result<Self> {
        if mode == NONE { Self::routed() } else { Self::balanced(mode, services) }
    }

    /// Agents on both nodes; the services that are asked come last.
    fn balanced(mode: &'static str, services: u32) -> Result<Self> {
        let machines = Machines::new();
        let case = Case {
            mode,
            path: "throughput",
            way: Way::Agent,
            flags: &[],
            sizes: Sizes::First,
            asked: Asked::Inside,
            ipv6: true,
        };
        let agents = Running::start(&case, services, true, &machines)?;
        let Ready { cgroup, client, server, remote: Some(Remote { cgroup: other, server: remote }) } =
            &agents.ready
        else {
            bail!("node b has no agent");
        };
        let servers = [Server::start(server, Some(cgroup))?, Server::start(remote, Some(other))?];
        let target = |index| service_addresses(index).map(|address| SocketAddr::new(address, SERVICE_PORT));
        Ok(Self {
            client: client.netns.clone(),
            cgroup: Some(cgroup.clone()),
            targets: [target(services), target(services + 1)],
            _servers: servers,
            _agents: Some(agents),
            _pods: Vec::new(),
            _machines: machines,
        })
    }

    /// The same machines and pods as routers make them.
    fn routed() -> Result<Self> {
        let machines = Machines::new();
        let mut pods = Vec::new();
        let mut join = |node: &Node, network: u8, host: u8| {
            let (netns, spot) = join(node, network, host);
            pods.push(netns);
            spot
        };
        let (client, near) = (join(&machines.a, 1, 2), join(&machines.a, 1, 3));
        let far = join(&machines.b, 2, 2);
        route(&machines.a, 2, &machines.b);
        route(&machines.b, 1, &machines.a);
        let servers = [Server::start(&near, None)?, Server::start(&far, None)?];
        let target = |spot: &Spot| [0, 1].map(|family| SocketAddr::new(spot.addresses[family], SERVER_PORT));
        Ok(Self {
            client: client.netns.clone(),
            cgroup: None,
            targets: [target(&near), target(&far)],
            _servers: servers,
            _agents: None,
            _pods: pods,
            _machines: machines,
        })
    }
}

/// A pod's namespace with a wire to its node.
fn join(node: &Node, network: u8, host: u8) -> (Netns, Spot) {
    let netns = Netns::new("pod");
    let wire = format!("pod{host}");
    let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, u16::from(network), 0, 0, 0, u16::from(host));
    let addresses: Vec<IpAddr> = vec![[10, 244, network, host].into(), v6.into()];
    node.netns.ip(&["link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns", netns.name()]);
    node.netns.ip(&["addr", "add", "169.254.1.1/32", "dev", &wire, "scope", "link"]);
    node.netns.ip(&["addr", "add", "fe80::1/64", "dev", &wire, "nodad"]);
    node.netns.ip(&["link", "set", &wire, "up"]);
    netns.ip(&["link", "set", "eth0", "up"]);
    netns.ip(&["route", "add", "169.254.1.1", "dev", "eth0"]);
    for (address, gateway) in addresses.iter().zip(["169.254.1.1", "fe80::1"]) {
        netns.ip(&["addr", "add", &address.to_string(), "dev", "eth0", "nodad"]);
        netns.ip(&["route", "add", "default", "via", gateway, "dev", "eth0"]);
        node.netns.ip(&["route", "add", &address.to_string(), "dev", &wire]);
    }
    let spot = Spot { netns: netns.path(), addresses };
    (netns, spot)
}

/// Makes a router of a node, which finds a network of pods at another one.
fn route(node: &Node, network: u8, other: &Node) {
    node.netns.run(|| {
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{name}"), "1").expect("a kernel that forwards");
        }
    });
    let networks = [format!("10.244.{network}.0/24"), format!("fd00:244:0:{network}::/64")];
    for (network, via) in networks.iter().zip(&other.addresses) {
        node.netns.ip(&["route", "add", network, "via", &via.to_string()]);
    }
}
