//! `fairlead proxy` beside the pods of another network plugin, by real sockets: two nodes whose pods are on a bridge that the
//! proxy knows nothing of, once routed and once through a tunnel, clients in pods, on the node and outside. Needs root.
//!
//! One test function, because the process itself joins the node's cgroup.

#[path = "node_strangers/network.rs"]
mod network;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Child, Command},
};

use anyhow::{Context, Result, ensure};
use fairlead_bench::{cluster::binary, feed::ScriptedFeed, proxy::Proxy};
use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Prefix, Protocol, Revision, Service,
    ServicePort, TrafficPolicy, Update,
};
use fairlead_testkit::{
    InCgroup,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, WHO, ask_who, connect, serve},
    eventually,
    netns::run_in,
};

use network::{NODES, Network, Plan};

const HTTP: u16 = 80;
const DNS: u16 = 53;
const NODE_PORT: u16 = 30_080;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Client {
    /// A pod of the first node.
    Pod,
    /// A process of the first node.
    Host,
    Outside,
}

/// Which of the service's addresses is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Asked {
    Cluster,
    NodePort,
    LoadBalancer,
}

/// Who asks what. The service network is not known outside.
const QUESTIONS: &[(Client, Asked)] = &[
    (Client::Pod, Asked::Cluster),
    (Client::Pod, Asked::NodePort),
    (Client::Pod, Asked::LoadBalancer),
    (Client::Host, Asked::Cluster),
    (Client::Host, Asked::NodePort),
    (Client::Outside, Asked::NodePort),
    (Client::Outside, Asked::LoadBalancer),
];

const CLUSTER: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
pub(crate) const BALANCER: [&str; 2] = ["203.0.113.9", "2001:db8:1::9"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What the feed has told.
struct Told {
    feed: ScriptedFeed,
    sequence: u64,
}

impl Told {
    fn start(network: &Network, directory: &std::path::Path) -> Result<Self> {
        let node = |place: usize| {
            Change::PutNode(Node {
                name: NODES[place].into(),
                addresses: network.node(place).addresses.clone(),
                ready: true,
                ..Node::default()
            })
        };
        let changes = vec![node(0), node(1), service(|_| {})];
        let revision = Revision { epoch: 1, sequence: 1 };
        let snapshot = Update { revision, snapshot: true, changes };
        let feed = ScriptedFeed::start(&directory.join("feed.sock"), snapshot)?;
        Ok(Self { feed, sequence: 1 })
    }

    /// Tells of a change and waits until the first node serves it.
    fn tell(&mut self, changes: Vec<Change>, proxies: &[Proxy]) -> Result<()> {
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        self.feed.send(Update { revision, snapshot: false, changes });
        proxies.iter().try_for_each(|proxy| proxy.until_applied(self.sequence).map(drop))
    }
}

fn service(set: impl FnOnce(&mut Service)) -> Change {
    let port =
        |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: NODE_PORT };
    let mut service = Service {
        name: ObjectName::new("demo", "web"),
        addresses: CLUSTER.map(address).to_vec(),
        load_balancer_addresses: BALANCER.map(address).to_vec(),
        ports: vec![port("http", Protocol::Tcp, HTTP), port("dns", Protocol::Udp, DNS)],
        ..Service::default()
    };
    set(&mut service);
    Change::PutService(service)
}

/// Pods of these nodes are the endpoints.
fn endpoints(network: &Network, of: &[usize]) -> Vec<Change> {
    let slice = |family: usize| {
        let port = |name: &str, protocol, port| EndpointPort { name: name.into(), protocol, port };
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("demo", format!("web-{family}")),
            service: "web".into(),
            ports: vec![port("http", Protocol::Tcp, TCP_PORT), port("dns", Protocol::Udp, UDP_PORT)],
            endpoints: of
                .iter()
                .map(|place| Endpoint::ready_at(network.pod_addresses(*place)[family], NODES[*place]))
                .collect(),
            triggered_unix_ns: 0,
        })
    };
    vec![slice(0), slice(1)]
}

struct World {
    told: Told,
    proxies: Vec<Proxy>,
    network: Network,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(plan: Plan) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let network = Network::new(plan);
        for (place, name) in NODES.into_iter().enumerate() {
            serve(&network.pods[place].path(), &network.pod_addresses(place), name);
        }
        let told = Told::start(&network, directory.path())?;
        let binary = binary()?;
        let start = |place: usize| {
            Proxy::start(
                &binary,
                NODES[place],
                network.node(place),
                &["--repair-period=1s"],
                directory.path(),
            )
        };
        let proxies = vec![start(0)?, start(1)?];
        proxies.iter().try_for_each(|proxy| proxy.until_applied(1).map(drop))?;
        Ok(Self { told, proxies, network, _directory: directory })
    }

    fn tell(&mut self, changes: Vec<Change>) -> Result<()> {
        self.told.tell(changes, &self.proxies)
    }

    /// Asks; the answer is who answered, and whom that one saw.
    fn ask(
        &self,
        client: Client,
        asked: Asked,
        family: usize,
        protocol: Protocol,
    ) -> io::Result<(String, IpAddr)> {
        let (netns, under) = match client {
            Client::Pod => (self.network.pods[0].path(), true),
            Client::Host => (self.network.node(0).netns.path(), true),
            Client::Outside => (self.network.client().netns.path(), false),
        };
        let port = if protocol == Protocol::Tcp { HTTP } else { DNS };
        let to = match asked {
            Asked::Cluster => SocketAddr::new(address(CLUSTER[family]), port),
            Asked::NodePort => SocketAddr::new(self.network.node(0).addresses[family], NODE_PORT),
            Asked::LoadBalancer => SocketAddr::new(address(BALANCER[family]), port),
        };
        let _inside = under.then(|| InCgroup::enter(&self.proxies[0].cgroup().join("pods")));
        let said = run_in(&netns, || match protocol {
            Protocol::Tcp => connect(to).and_then(|mut stream| ask_who(&mut stream)),
            _ => ask_datagram(to),
        })?;
        let (name, seen) = said.split_once(' ').ok_or_else(|| io::Error::other(format!("it says {said}")))?;
        Ok((name.to_owned(), seen.parse().map_err(io::Error::other)?))
    }

    /// Everybody is served by the only endpoint, which is of node `place`.
    fn everybody_gets(&self, place: usize) -> Result<()> {
        for (client, asked) in QUESTIONS.iter().copied() {
            for family in 0..2 {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let cell =
                        format!("{client:?} asks {asked:?}, family {family}, {protocol:?}, of {place}");
                    let (name, seen) = self.ask(client, asked, family, protocol).context(cell.clone())?;
                    ensure!(name == NODES[place], "{cell}: {name} answers");
                    if client == Client::Outside {
                        let own = self.network.client().addresses[family];
                        ensure!((seen == own) == (place == 0), "{cell}: it sees {seen}");
                    }
                }
            }
        }
        Ok(())
    }
}

fn ask_datagram(to: SocketAddr) -> io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    socket.connect(to)?;
    socket.send(&[WHO])?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A process that stays in a pod: the proxy finds pods that are not ours by their processes.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn everybody_is_served(plan: Plan) -> Result<()> {
    let mut world = World::new(plan)?;
    for place in 0..2 {
        world.tell(endpoints(&world.network, &[place]))?;
        world.everybody_gets(place).with_context(|| format!("{plan:?}"))?;
    }
    local_endpoints_see_the_client(&mut world)?;
    source_ranges_are_of_addresses_not_of_cgroups(&mut world)?;
    datagram_sockets_of_pods_hear_that_their_backend_has_gone(&mut world)?;
    rules_that_somebody_flushed_come_back(&mut world)?;
    Ok(())
}

fn local_endpoints_see_the_client(world: &mut World) -> Result<()> {
    let mut changes = vec![service(|service| service.external_policy = TrafficPolicy::Local)];
    changes.extend(endpoints(&world.network, &[0, 1]));
    world.tell(changes)?;
    for round in 0..8 {
        let (name, seen) = world.ask(Client::Outside, Asked::LoadBalancer, round % 2, Protocol::Tcp)?;
        let own = world.network.client().addresses[round % 2];
        ensure!((name.as_str(), seen) == ("a", own), "{name} answers and sees {seen}");
    }
    Ok(())
}

/// The node is in the range and a client outside is, pods are not: they are not the node.
fn source_ranges_are_of_addresses_not_of_cgroups(world: &mut World) -> Result<()> {
    let networks = [("172.29.0.0", 24), ("fd00:29::", 64)];
    let ranges = networks.map(|(text, length)| Prefix { address: address(text), length }).to_vec();
    let mut changes = vec![service(|service| service.source_ranges = ranges)];
    changes.extend(endpoints(&world.network, &[0]));
    world.tell(changes)?;
    for family in 0..2 {
        for (client, let_in) in [(Client::Outside, true), (Client::Host, true), (Client::Pod, false)] {
            let served = world.ask(client, Asked::LoadBalancer, family, Protocol::Tcp).is_ok();
            ensure!(served == let_in, "{client:?}, family {family}: served {served}");
        }
        world
            .ask(Client::Pod, Asked::Cluster, family, Protocol::Tcp)
            .context("the cluster address is open")?;
    }
    world.tell(vec![service(|_| {})])
}

fn datagram_sockets_of_pods_hear_that_their_backend_has_gone(world: &mut World) -> Result<()> {
    world.tell(endpoints(&world.network, &[1]))?;
    let pod = world.network.pods[0].path();
    let inside = InCgroup::enter(&world.proxies[0].cgroup().join("pods"));
    let _process = Sleeper(run_in(&pod, || Command::new("sleep").arg("1000").spawn())?);
    let socket = run_in(&pod, || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect((address(CLUSTER[0]), DNS))?;
        io::Result::Ok(socket)
    })?;
    drop(inside);
    world.tell(endpoints(&world.network, &[0]))?;
    eventually("the socket hears that its backend has gone", || {
        let error = socket.take_error().ok()??;
        (error.kind() == io::ErrorKind::ConnectionAborted).then_some(())
    });
    Ok(())
}

/// Somebody reloads a firewall; the node looks from time to time and puts it right.
fn rules_that_somebody_flushed_come_back(world: &mut World) -> Result<()> {
    world.tell(endpoints(&world.network, &[1]))?;
    let node = &world.network.node(0).netns;
    node.exec("nft", &["delete", "table", "inet", "fairlead-masquerade"]);
    eventually("the node puts it right", || {
        node.exec("nft", &["list", "tables"]).contains("fairlead-masquerade").then_some(())
    });
    world.everybody_gets(1)
}

#[test]
fn pods_of_others_are_served_and_serve() -> Result<()> {
    [Plan::Routes, Plan::Tunnel].into_iter().try_for_each(everybody_is_served)
}
