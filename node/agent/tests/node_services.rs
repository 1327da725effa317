//! Every kind of service from every place to every place, by real sockets: two real agents, pods of both nodes, processes of
//! the nodes, a client outside. Needs root and the eBPF object.
//!
//! One scenario, because the process itself joins the nodes' cgroups.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use fairlead_kubelet::network::Attachment;
use fairlead_model::{Change, HostPort, ObjectName, Pod, Protocol, Service, ServicePort};
use fairlead_testkit::{
    InCgroup, NodesAndClient,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, WHO, ask_who, connect, serve},
    netns::run_in,
};

use crate::{
    cluster::{ECHO, slices},
    pair::Pair,
};

#[path = "node_agent/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node_agent/feed.rs"]
mod feed;
#[path = "node_agent/pair.rs"]
mod pair;
#[path = "node_agent/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod running;

/// Ports of the services, and what node ports and host ports they have.
const HTTP: u16 = 80;
const DNS: u16 = 53;
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// How a service is reached.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
    HostPort,
}

const KINDS: [Kind; 5] =
    [Kind::ClusterIp, Kind::NodePort, Kind::LoadBalancer, Kind::ExternalIp, Kind::HostPort];

/// Who asks.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Client {
    PodOfA,
    PodOfB,
    /// Of the first node, outside its cgroup: packets are translated, sockets are not.
    PodWithoutHooks,
    HostA,
    Outside,
}

const CLIENTS: [Client; 5] =
    [Client::PodOfA, Client::PodOfB, Client::PodWithoutHooks, Client::HostA, Client::Outside];

/// With what socket.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Socket {
    Tcp,
    UdpConnected,
    UdpUnconnected,
}

const SOCKETS: [Socket; 3] = [Socket::Tcp, Socket::UdpConnected, Socket::UdpUnconnected];

/// The nodes, by what the tables below index.
const NODES: [&str; 2] = ["a", "b"];

/// Two nodes with a backend and a client each.
struct World {
    pair: Pair,
    clients: [Attachment; 2],
    backends: [Attachment; 2],
    /// Last: the others live in its namespaces.
    topology: NodesAndClient,
}

impl World {
    fn new(directory: &std::path::Path) -> Self {
        let topology = NodesAndClient::new();
        let pair = Pair::start([&topology.a, &topology.b], Vec::new(), directory);
        let agents = &pair.agents;
        let clients = [agents[0].attach("client-a"), agents[1].attach("client-b")];
        let backends = [agents[0].attach("backend-a"), agents[1].attach("backend-b")];
        serve(&backends[0].netns, &backends[0].addresses, "backend-a");
        serve(&backends[1].netns, &backends[1].addresses, "backend-b");
        // What announces service addresses to the network outside, does so for the first node.
        for (family, via) in topology.a.addresses.iter().enumerate() {
            for place in 0..2 {
                for kind in [Kind::LoadBalancer, Kind::ExternalIp, Kind::ClusterIp] {
                    let to = kind.address(place, family).expect("it has one").to_string();
                    topology.client.netns.ip(&["route", "add", &to, "via", &via.to_string()]);
                }
            }
        }
        Self { pair, clients, backends, topology }
    }

    /// Where a client's sockets are made.
    fn netns(&self, client: Client) -> PathBuf {
        match client {
            Client::PodOfA | Client::PodWithoutHooks => self.clients[0].netns.clone(),
            Client::PodOfB => self.clients[1].netns.clone(),
            Client::HostA => self.topology.a.netns.path(),
            Client::Outside => self.topology.client.netns.path(),
        }
    }

    /// Puts this process under the hooks of the client's node; there are none outside, nor for who has none.
    fn enter(&self, client: Client) -> Option<InCgroup> {
        let agent = match client {
            Client::PodOfA | Client::HostA => &self.pair.agents[0],
            Client::PodOfB => &self.pair.agents[1],
            Client::PodWithoutHooks | Client::Outside => return None,
        };
        Some(InCgroup::enter(&agent.cgroup().join("client")))
    }

    /// The address that the backend should see.
    fn seen(&self, client: Client, family: usize) -> IpAddr {
        match client {
            Client::PodOfA | Client::PodWithoutHooks => self.clients[0].addresses[family],
            Client::PodOfB => self.clients[1].addresses[family],
            Client::HostA => self.topology.a.addresses[family],
            Client::Outside => self.topology.client.addresses[family],
        }
    }

    /// Where a service whose backend is at `place` is asked for.
    fn target(&self, kind: Kind, place: usize, family: usize, port: u16) -> SocketAddr {
        let nodes = [&self.topology.a, &self.topology.b];
        let (address, port) = match kind {
            // The backend's node has the host port; a node port is asked for on the first node, wherever the backend is.
            Kind::HostPort => (nodes[place].addresses[family], host_port(port)),
            Kind::NodePort => (self.topology.a.addresses[family], node_port(place, port)),
            _ => (kind.address(place, family).expect("the others have one"), port),
        };
        SocketAddr::new(address, port)
    }
}

impl Kind {
    /// The address of the service with its backend at `place`.
    fn address(self, place: usize, family: usize) -> Option<IpAddr> {
        let [v4, v6] = match self {
            Self::ClusterIp => ["10.96.0.", "fd00:96::"],
            Self::LoadBalancer => ["203.0.113.", "2001:db8:1::"],
            Self::ExternalIp => ["198.51.100.", "2001:db8:2::"],
            Self::NodePort | Self::HostPort => return None,
        };
        let prefix = [v4, v6][family];
        Some(format!("{prefix}{}", place + 21).parse().expect("an address"))
    }
}

fn node_port(place: usize, port: u16) -> u16 {
    30_000 + 100 * u16::try_from(place).expect("few") + port
}

fn host_port(port: u16) -> u16 {
    20_000 + port
}

/// The service with its backend at `place`, with an address of every kind.
fn service(place: usize) -> Change {
    let of = |kind: Kind| (0..2).filter_map(|family| kind.address(place, family)).collect();
    let port = |name: &str, protocol, port| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port: node_port(place, port),
    };
    Change::PutService(Service {
        name: ObjectName::new("demo", NODES[place]),
        addresses: of(Kind::ClusterIp),
        external_addresses: of(Kind::ExternalIp),
        load_balancer_addresses: of(Kind::LoadBalancer),
        ports: vec![port("http", Protocol::Tcp, HTTP), port("dns", Protocol::Udp, DNS)],
        ..Service::default()
    })
}

/// The backend at `place`, which has host ports besides.
fn pod(place: usize, addresses: &[IpAddr]) -> Change {
    let port =
        |protocol, port, pod_port| HostPort { address: None, protocol, port: host_port(port), pod_port };
    Change::PutPod(Pod {
        name: ObjectName::new("demo", format!("backend-{}", NODES[place])),
        uid: format!("uid-backend-{}", NODES[place]),
        node: NODES[place].into(),
        addresses: addresses.to_vec(),
        host_network: false,
        host_ports: vec![port(Protocol::Tcp, HTTP, TCP_PORT), port(Protocol::Udp, DNS, UDP_PORT)],
    })
}

#[test]
fn every_kind_of_service_serves_everybody() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World::new(directory.path());
    let mut changes = Vec::new();
    for (place, backend) in world.backends.iter().enumerate() {
        changes.extend([service(place), pod(place, &backend.addresses)]);
        changes.extend(slices(NODES[place], &ECHO, &[(NODES[place], &backend.addresses)]));
    }
    world.pair.tell(changes);
    let mut cells = 0;
    let mut wrong = Vec::new();
    for client in CLIENTS {
        let _inside = world.enter(client);
        for kind in KINDS {
            for (place, node) in NODES.iter().enumerate() {
                for (family, family_name) in FAMILIES.iter().enumerate() {
                    for socket in SOCKETS {
                        cells += 1;
                        let port = if socket == Socket::Tcp { HTTP } else { DNS };
                        let to = world.target(kind, place, family, port);
                        let expected = format!("backend-{node} {}", world.seen(client, family));
                        let found = run_in(&world.netns(client), || ask(socket, to));
                        if found.as_ref().ok() != Some(&expected) {
                            wrong.push(format!(
                                "{client:?}, {socket:?} over {family_name} to {kind:?} {to} of backend-{node}: \
                                 {found:?} instead of {expected}"
                            ));
                        }
                    }
                }
            }
        }
    }
    println!("{cells} cells");
    assert!(wrong.is_empty(), "{} of {cells} cells:\n{}", wrong.len(), wrong.join("\n"));
}

/// Who answers, and whom that one sees.
fn ask(socket: Socket, to: SocketAddr) -> io::Result<String> {
    if socket == Socket::Tcp {
        let mut stream = connect(to)?;
        assert_eq!(stream.peer_addr()?, to, "the client sees the service");
        return ask_who(&mut stream);
    }
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let asking = UdpSocket::bind((any, 0))?;
    asking.set_read_timeout(Some(ANSWER_WAIT))?;
    if socket == Socket::UdpConnected {
        asking.connect(to)?;
        asking.send(&[WHO])?;
    } else {
        asking.send_to(&[WHO], to)?;
    }
    let mut buffer = [0; 64];
    let (length, from) = asking.recv_from(&mut buffer)?;
    assert_eq!(from, to, "the client sees the service");
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
