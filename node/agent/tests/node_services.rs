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
    InCgroup, Node, NodesAndClient,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, WHO, ask_who, connect, serve},
    eventually,
    netns::run_in,
    topology::UPLINK,
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
    /// Outside, and the first node has another interface to it.
    SecondCard,
}

const CLIENTS: [Client; 6] = [
    Client::PodOfA,
    Client::PodOfB,
    Client::PodWithoutHooks,
    Client::HostA,
    Client::Outside,
    Client::SecondCard,
];

/// That interface, and one that has no address at first; with the number of their networks.
const SECOND: (&str, u8) = ("second0", 30);
const THIRD: (&str, u8) = ("third0", 31);

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
    /// The client at the first node's second card, and that card's addresses.
    second: (Node, Vec<IpAddr>),
    /// Last: the others live in its namespaces.
    topology: NodesAndClient,
}

impl World {
    fn new(directory: &std::path::Path) -> Self {
        let topology = NodesAndClient::new();
        let second = topology.a.cable(SECOND.0, SECOND.1);
        let second = (second, topology.a.address_card(SECOND.0, SECOND.1));
        let pair = Pair::start([&topology.a, &topology.b], Vec::new(), directory);
        let agents = &pair.agents;
        let clients = [agents[0].attach("client-a"), agents[1].attach("client-b")];
        let backends = [agents[0].attach("backend-a"), agents[1].attach("backend-b")];
        serve(&backends[0].netns, &backends[0].addresses, "backend-a");
        serve(&backends[1].netns, &backends[1].addresses, "backend-b");
        // What announces service addresses to the network outside, does so for the first node.
        for (client, vias) in [(&topology.client, &topology.a.addresses), (&second.0, &second.1)] {
            for (family, via) in vias.iter().enumerate() {
                for place in 0..2 {
                    for kind in [Kind::LoadBalancer, Kind::ExternalIp, Kind::ClusterIp] {
                        let to = kind.address(place, family).expect("it has one").to_string();
                        client.netns.ip(&["route", "add", &to, "via", &via.to_string()]);
                    }
                }
            }
        }
        Self { pair, clients, backends, second, topology }
    }

    /// Where a client's sockets are made.
    fn netns(&self, client: Client) -> PathBuf {
        match client {
            Client::PodOfA | Client::PodWithoutHooks => self.clients[0].netns.clone(),
            Client::PodOfB => self.clients[1].netns.clone(),
            Client::HostA => self.topology.a.netns.path(),
            Client::Outside => self.topology.client.netns.path(),
            Client::SecondCard => self.second.0.netns.path(),
        }
    }

    /// Puts this process under the hooks of the client's node; there are none outside, nor for who has none.
    fn enter(&self, client: Client) -> Option<InCgroup> {
        let agent = match client {
            Client::PodOfA | Client::HostA => &self.pair.agents[0],
            Client::PodOfB => &self.pair.agents[1],
            Client::PodWithoutHooks | Client::Outside | Client::SecondCard => return None,
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
            Client::SecondCard => self.second.0.addresses[family],
        }
    }

    /// Where a client asks for a service whose backend is at `place`; nowhere if it has no way there.
    fn target(
        &self,
        client: Client,
        kind: Kind,
        (place, family): (usize, usize),
        port: u16,
    ) -> Option<SocketAddr> {
        let by_second = client == Client::SecondCard;
        let a = if by_second { &self.second.1 } else { &self.topology.a.addresses };
        let (address, port) = match kind {
            Kind::HostPort if by_second && place == 1 => return None,
            // The backend's node has the host port; a node port is asked for on the first node, wherever the backend is.
            Kind::HostPort => ([a, &self.topology.b.addresses][place][family], host_port(port)),
            Kind::NodePort => (a[family], node_port(place, port)),
            _ => (kind.address(place, family).expect("the others have one"), port),
        };
        Some(SocketAddr::new(address, port))
    }

    /// Interfaces of the first node by which clients are served, and where it answers node ports, as it says itself.
    fn entrances(&self) -> (Vec<String>, Vec<IpAddr>) {
        let mut status: serde_json::Value =
            serde_json::from_str(&self.pair.agents[0].admin("/status").1).expect("it is JSON");
        let [names, addresses] = ["interfaces", "node_port_addresses"].map(|field| status[field].take());
        let addresses = serde_json::from_value(addresses).expect("a list of addresses");
        (serde_json::from_value(names).expect("a list of names"), addresses)
    }

    /// What there is in the pin directory for that.
    fn pins(&self) -> Vec<String> {
        let links = self.pair.agents[0].config.bpffs_dir.join("links");
        let names = std::fs::read_dir(links).expect("pins").flatten();
        let names = names.map(|pin| pin.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.contains("_uplink-")).collect();
        names.sort();
        names
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
                        let port = if socket == Socket::Tcp { HTTP } else { DNS };
                        let Some(to) = world.target(client, kind, (place, family), port) else { continue };
                        cells += 1;
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
    an_interface_is_served_as_its_addresses_come_and_go(&world);
}

/// By events: nothing else looks at interfaces within the time that a test waits.
fn an_interface_is_served_as_its_addresses_come_and_go(world: &World) {
    let two = [SECOND.0, UPLINK].map(str::to_owned);
    assert_eq!(world.entrances().0, two);
    let client = world.topology.a.cable(THIRD.0, THIRD.1);
    let addresses = world.topology.a.address_card(THIRD.0, THIRD.1);
    // It has one address after the other.
    eventually("the third interface with its addresses", || {
        let (interfaces, serving) = world.entrances();
        let all = addresses.iter().all(|address| serving.contains(address));
        (all && interfaces.contains(&THIRD.0.to_owned())).then_some(())
    });
    for (place, node) in NODES.iter().enumerate() {
        for (family, address) in addresses.iter().enumerate() {
            let to = SocketAddr::new(*address, node_port(place, HTTP));
            let expected = format!("backend-{node} {}", client.addresses[family]);
            let found = client.netns.run(|| ask(Socket::Tcp, to));
            assert_eq!(found.unwrap_or_else(|error| panic!("{to}: {error}")), expected);
        }
    }
    for (address, length) in addresses.iter().zip([24, 64]) {
        world.topology.a.netns.ip(&["addr", "del", &format!("{address}/{length}"), "dev", THIRD.0]);
    }
    eventually("the third interface to be left", || (world.entrances().0 == two).then_some(()));
    let pins =
        ["from_uplink", "to_uplink"].map(|program| two.each_ref().map(|name| format!("{program}-{name}")));
    assert_eq!(world.pins(), pins.concat());
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
