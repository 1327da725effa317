//! Two nodes with three pods, a machine outside, and clients that ask. The pods' network is the kernel's routing in the modes
//! with rules, and the dataplane's in those with programs.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fairlead_model::{Protocol, View};
use fairlead_testkit::{
    InCgroup, Netns, Node,
    netns::run_in,
    topology::{NodesAndClient, UPLINK},
};

use crate::{
    behaviour::{Client, Frontend, OPEN, Outcome, Row, Source},
    cluster::{NETWORKS, SERVICE_PORT, address, node_port},
    mode::{Mode, is_of},
    node::RunningNode,
};

/// Where the pods answer.
pub(crate) const PORT: u16 = 8080;

/// How long an answer may take before it counts as none. Everything is on one machine.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often is asked at least.
const ATTEMPTS_MIN: usize = 12;

/// How often is asked until an endpoint that should answer has done so at last.
const ATTEMPTS_MAX: usize = 200;

/// One lab at a time: the process is in the cgroup of a lab's node now and then, with every socket that it makes.
static ALONE: Mutex<()> = Mutex::new(());

/// The pods: name, number on its node, whether on the second node, addresses.
const PODS: &[(&str, u32, bool, [&str; 2])] = &[
    ("client", 1, false, ["10.244.1.9", "fd00:244:0:1::9"]),
    ("near", 2, false, ["10.244.1.2", "fd00:244:0:1::2"]),
    ("far", 1, true, ["10.244.2.2", "fd00:244:0:2::2"]),
];

/// A pod.
pub(crate) struct Pod {
    name: &'static str,
    netns: PathBuf,
    /// Its namespace, where no dataplane has made it.
    _own: Option<Netns>,
    pub(crate) node: &'static str,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The machine room. What is used last is dropped first.
pub(crate) struct Lab {
    pods: Vec<Pod>,
    /// The nodes' dataplanes, in the modes that are programs.
    programs: Option<[RunningNode; 2]>,
    nodes: NodesAndClient,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    pub(crate) fn new(mode: Mode) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = NodesAndClient::new();
        for node in [&nodes.a, &nodes.b] {
            // Each client is to be told that nobody is there, however many ask.
            write_sysctls(&node.netns, &[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")]);
        }
        // The node sends back what has a rule against it by the interface that it came from; its hint that there is a shorter way
        // would lead past the rule.
        write_sysctls(&nodes.client.netns, &[(&format!("ipv6/conf/{UPLINK}/accept_redirects"), "0")]);
        for (prefix, index) in SERVICES {
            // The machine outside reaches services through the node.
            nodes.client.netns.ip(&["route", "add", prefix, "via", &nodes.a.addresses[*index].to_string()]);
        }
        let mut programs = mode.programs().map(|how| {
            [("a", &nodes.a), ("b", &nodes.b)]
                .map(|(name, node)| RunningNode::start_with(name, node, how.clone()))
        });
        if programs.is_none() {
            route_between(&nodes);
        }
        let pods = PODS.iter().map(|(name, slot, second, addresses)| {
            let index = usize::from(*second);
            let (node, node_name) = [(&nodes.a, "a"), (&nodes.b, "b")][index];
            let (netns, own) = match &mut programs {
                Some(running) => (running[index].add_pod(*slot, addresses).spec.netns, None),
                None => {
                    let own = join_pod(name, node, addresses);
                    (own.path(), Some(own))
                }
            };
            serve(&netns, name);
            let addresses = addresses.map(|text| text.parse().expect("an address")).to_vec();
            Pod { name, netns, _own: own, node: node_name, addresses }
        });
        let pods = pods.collect();
        Self { pods, programs, nodes, _alone: alone }
    }

    /// Makes the programs carry what the view asks for; nothing where there are none.
    pub(crate) fn sync(&mut self, view: &View) {
        for node in self.programs.iter_mut().flatten() {
            node.sync(view);
        }
    }

    /// The node that is programmed.
    pub(crate) fn node(&self) -> &Node {
        &self.nodes.a
    }

    /// The node beside it.
    pub(crate) fn other(&self) -> &Node {
        &self.nodes.b
    }

    pub(crate) fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).expect("a pod")
    }

    /// Asks until the expected endpoints have all answered, or something else has happened.
    pub(crate) fn ask(&self, row: &Row, expected: &Outcome) -> Outcome {
        let (client, to) = (self.client(row.client), self.target(row));
        let own: Vec<IpAddr> = match row.client {
            Client::Pod => self.pod("client").addresses.clone(),
            Client::Node => self.node().addresses.clone(),
            Client::Loopback => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Client::Outside => self.nodes.client.addresses.clone(),
        };
        let _inside = (row.client != Client::Outside).then(|| self.enter());
        let ask: fn(SocketAddr) -> io::Result<(String, IpAddr)> =
            if row.protocol == Protocol::Udp { datagram } else { connect };
        let wanted = match expected {
            Outcome::Answered(wanted, _) => wanted.len(),
            Outcome::Refused | Outcome::Dropped => 1,
        };
        let mut names = BTreeSet::new();
        let mut source = None;
        for attempt in 0..ATTEMPTS_MAX {
            // Where one endpoint should answer, a few times must show that no other does.
            if names.len() >= wanted && attempt >= ATTEMPTS_MIN {
                break;
            }
            let (name, seen) = match run_in(&client, || ask(to)) {
                Ok(answer) => answer,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
                Err(_) => return Outcome::Dropped,
            };
            let of = |addresses: &[IpAddr]| addresses.contains(&seen);
            let saw = match () {
                () if of(&self.node().addresses) => Source::Node,
                () if of(&own) => Source::Client,
                () if seen == to.ip() => Source::Service,
                () => panic!("{row:?}: {name} sees {seen}, which is nobody's here"),
            };
            source = source.max(Some(saw));
            names.insert(if name == "far" { "far" } else { "near" });
        }
        Outcome::Answered(names, source.expect("asked at least once"))
    }

    /// Makes this process one of the node's or of its pods', which are below its cgroup, and nobody else.
    fn enter(&self) -> Option<InCgroup> {
        self.programs.as_ref().map(|nodes| InCgroup::enter(&nodes[0].cgroup().join("client")))
    }

    fn client(&self, client: Client) -> PathBuf {
        match client {
            Client::Pod => self.pod("client").netns.clone(),
            Client::Node | Client::Loopback => self.node().netns.path(),
            Client::Outside => self.nodes.client.netns.path(),
        }
    }

    fn target(&self, row: &Row) -> SocketAddr {
        let (number, v4) = (row.service, row.v4);
        match row.frontend {
            Frontend::ClusterAddress => SocketAddr::new(address("cluster", number, v4), SERVICE_PORT),
            Frontend::UnknownPort => SocketAddr::new(address("cluster", number, v4), SERVICE_PORT + 1),
            Frontend::UnknownAddress => SocketAddr::new(address("cluster", 200, v4), SERVICE_PORT),
            Frontend::Balancer => SocketAddr::new(address("balancer", number, v4), SERVICE_PORT),
            Frontend::External => SocketAddr::new(address("external", number, v4), SERVICE_PORT),
            Frontend::NodePort if row.client == Client::Loopback => {
                let loopback =
                    if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
                SocketAddr::new(loopback, node_port(number))
            }
            Frontend::NodePort => {
                let own = self.node().addresses.iter().find(|address| is_of(address, v4));
                SocketAddr::new(*own.expect("an address"), node_port(number))
            }
        }
    }

    /// A UDP socket in the client's pod that keeps its port, with the service as its peer.
    pub(crate) fn udp_client(&self) -> UdpClient {
        let client = self.unconnected_client();
        client.turn_to(UdpClient::service());
        client
    }

    /// The same without a peer.
    pub(crate) fn unconnected_client(&self) -> UdpClient {
        let _inside = self.enter();
        let socket = run_in(&self.client(Client::Pod), || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        });
        UdpClient(socket)
    }

    /// A client that opens connections to a service, one after the other.
    pub(crate) fn steady_client(&self) -> SteadyClient {
        let netns = self.client(Client::Pod);
        let to = SocketAddr::new(address("cluster", OPEN, true), SERVICE_PORT);
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let failed = Arc::new(Mutex::new(Vec::new()));
        let thread = {
            let (stop, asked, failed) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
            thread::spawn(move || {
                run_in(&netns, || {
                    while !stop.load(Ordering::Relaxed) {
                        if let Err(error) = connect(to) {
                            failed.lock().expect("no panic").push(error.to_string());
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
            })
        };
        let client = SteadyClient { stop, asked, failed, thread };
        client.more(20);
        client
    }

    /// Rules of somebody else, with names that begin like ours.
    pub(crate) fn add_foreign_rules(&self) {
        let netns = &self.node().netns;
        netns.exec("iptables", &["-t", "nat", "-N", "KUBE-HOUSE"]);
        netns.exec("iptables", &["-t", "nat", "-A", "KUBE-HOUSE", "-s", "192.0.2.1", "-j", "ACCEPT"]);
        netns.exec("iptables", &["-t", "nat", "-A", "OUTPUT", "-j", "KUBE-HOUSE"]);
        netns.exec("nft", &["add", "table", "ip", "kube-proxy-of-mine"]);
        netns.exec("nft", &["add", "table", "inet", "kube-proxy"]);
    }
}

/// See [`Lab::udp_client`].
pub(crate) struct UdpClient(UdpSocket);

impl UdpClient {
    /// The service, as a peer.
    pub(crate) fn service() -> SocketAddr {
        SocketAddr::new(address("cluster", OPEN, true), SERVICE_PORT)
    }

    /// Takes another peer.
    pub(crate) fn turn_to(&self, peer: SocketAddr) {
        self.0.connect(peer).expect("an address");
    }

    /// From where the answer of an address comes, to a socket without a peer.
    pub(crate) fn answerer(&self, asked: SocketAddr) -> Option<SocketAddr> {
        self.0.send_to(b"?", asked).ok()?;
        self.0.recv_from(&mut [0; 128]).ok().map(|(_, from)| from)
    }

    /// The name of who answers.
    pub(crate) fn ask(&self) -> Option<String> {
        // An error that came back for an earlier datagram is reported once.
        let _ = self.0.send(b"?").or_else(|_| self.0.send(b"?"));
        let mut answer = [0; 128];
        let length = self.0.recv(&mut answer).ok()?;
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        text.split(' ').next().map(str::to_owned)
    }
}

/// See [`Lab::steady_client`].
pub(crate) struct SteadyClient {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl SteadyClient {
    /// Waits until it has asked that many times more.
    pub(crate) fn more(&self, times: usize) {
        let goal = self.asked.load(Ordering::Relaxed) + times;
        fairlead_testkit::eventually("more connections", || {
            (self.asked.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// How many connections there were, and why those that failed did.
    pub(crate) fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        (self.asked.load(Ordering::Relaxed), self.failed.lock().expect("no panic").clone())
    }
}

/// Service addresses that are routed to the node, by family.
const SERVICES: &[(&str, usize)] = &[
    ("10.96.0.0/16", 0),
    ("198.51.100.0/23", 0),
    ("fd00:96::/112", 1),
    ("fd00:51::/32", 1),
    ("fd00:52::/32", 1),
];

/// Makes routers of the nodes, which know the way to each other's pods.
fn route_between(nodes: &NodesAndClient) {
    for (node, other, networks) in [(&nodes.a, &nodes.b, NETWORKS[1]), (&nodes.b, &nodes.a, NETWORKS[0])] {
        make_router(&node.netns);
        for ((network, length), via) in networks.iter().zip(&other.addresses) {
            node.netns.ip(&["route", "add", &format!("{network}/{length}"), "via", &via.to_string()]);
        }
    }
    for (prefix, _) in SERVICES {
        // As with any default route, the node has somewhere to send them before they are translated.
        nodes.a.netns.ip(&["route", "add", prefix, "dev", UPLINK]);
    }
}

/// A pod's namespace, joined to its node.
fn join_pod(name: &str, node: &Node, addresses: &[&str; 2]) -> Netns {
    let netns = Netns::new(name);
    let interface = format!("pod-{name}");
    let link = ["link", "add", &interface, "type", "veth", "peer", "name", "eth0", "netns", netns.name()];
    write_sysctls(&netns, &[("ipv6/conf/default/accept_dad", "0")]);
    node.netns.ip(&link);
    write_sysctls(&node.netns, &[(&format!("ipv6/conf/{interface}/accept_dad"), "0")]);
    node.netns.ip(&["link", "set", &interface, "up"]);
    // Link scope: masquerading shall take the node's address.
    node.netns.ip(&["addr", "add", "169.254.1.1/32", "dev", &interface, "scope", "link"]);
    node.netns.ip(&["addr", "add", "fe80::1/64", "dev", &interface, "nodad"]);
    netns.ip(&["link", "set", "eth0", "up"]);
    netns.ip(&["addr", "add", &format!("{}/32", addresses[0]), "dev", "eth0"]);
    netns.ip(&["addr", "add", &format!("{}/128", addresses[1]), "dev", "eth0", "nodad"]);
    netns.ip(&["route", "add", "169.254.1.1", "dev", "eth0"]);
    netns.ip(&["route", "add", "default", "via", "169.254.1.1", "dev", "eth0"]);
    netns.ip(&["route", "add", "default", "via", "fe80::1", "dev", "eth0"]);
    addresses.iter().for_each(|address| drop(node.netns.ip(&["route", "add", address, "dev", &interface])));
    netns
}

/// Answers connections and datagrams with its name and the address it sees.
fn serve(netns: &Path, name: &'static str) {
    run_in(netns, || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a free port");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
                if let Ok(peer) = peer {
                    let _ = stream.write_all(format!("{name} {peer}").as_bytes());
                }
            }
        });
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a free port");
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let answer = format!("{name} {}", from.ip().to_canonical());
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        });
    });
}

/// Who answers, and the address it saw.
fn connect(to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    read(&answer)
}

/// The same by a datagram on a socket of its own.
fn datagram(to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    if let Err(error) = socket.send(b"?") {
        // A rule that refuses what the node itself sends does it with an answer, which waits at the socket.
        return Err(socket.take_error()?.unwrap_or(error));
    }
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    read(&String::from_utf8_lossy(&answer[..length]))
}

fn read(answer: &str) -> io::Result<(String, IpAddr)> {
    let (name, seen) = answer.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    Ok((name.to_owned(), seen.parse().map_err(|_| io::ErrorKind::InvalidData)?))
}

fn make_router(netns: &Netns) {
    write_sysctls(
        netns,
        &[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/route_localnet", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
        ],
    );
}

fn write_sysctls(netns: &Netns, values: &[(&str, &str)]) {
    netns.run(|| {
        for (key, value) in values {
            std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
    });
}
