//! A node whose DNS server dies while a pod looks names up: another node's answers, in every proxy mode; and answers that
//! a server sends together. Needs root, the eBPF object, iptables, nftables and conntrack; IPVS
//! and ipset where the kernel has them.

use std::{
    fs,
    io::{self, IoSlice, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fairlead_agent::ProxyMode;
use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, ObjectName, Protocol, Service, ServicePort,
    TrafficDistribution,
};
use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, ask, connect, serve},
    eventually,
    netns::run_in,
};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use crate::{
    cluster::{VIP4, node, pod},
    feed::Feed,
    ipvs::possible,
    running::RunningAgent,
};

#[path = "node_agent/cluster.rs"]
#[expect(dead_code, reason = "the other tests of the agent use more of it")]
mod cluster;
#[path = "node_agent/feed.rs"]
mod feed;
#[path = "node_agent/ipvs.rs"]
mod ipvs;
#[path = "node_agent/running.rs"]
#[expect(dead_code, reason = "the other tests of the agent use more of it")]
mod running;

const DNS: u16 = 53;
/// Of the service, and of the servers, where two questions get their answers in one packet: what a resolver does with A and
/// AAAA. The kernel takes it apart.
const PAIRS: u16 = 54;
const PAIRS_UDP: u16 = 5454;
const PAIR: [&str; 2] = ["longer", "short"];
const MODES: [ProxyMode; 4] = [ProxyMode::Nftables, ProxyMode::Iptables, ProxyMode::Ipvs, ProxyMode::Ebpf];
/// From where the look-ups by UDP come, each from a port of its own: with rules, one from the port of a former one goes where
/// that one went, as long as the kernel remembers it and that server serves. They are none that the kernel would choose.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);
/// Look-ups that must all go the same way.
const LOOK_UPS: usize = 20;

#[test]
fn look_ups_go_to_another_node_while_the_resolver_shows_no_sign_of_life() {
    if fairlead_kernel::bpf::object::embedded().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "needs the eBPF object");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let topology = TwoNodes::new();
    let mut changes = vec![node("a", 1, &topology.a.addresses), node("b", 2, &topology.b.addresses)];
    changes.extend(resolvers(&[("a", topology.a.addresses[0]), ("b", topology.b.addresses[0])]));
    let mut feed = Feed::start(&topology.a, changes);
    let mut a = RunningAgent::start("a", &topology.a, feed.endpoint.clone(), directory.path());
    let b = RunningAgent::start("b", &topology.b, feed.endpoint.clone(), directory.path());
    a.wait_ready();
    b.wait_ready();
    let client = a.attach("client");
    feed.change(vec![pod("client", "a", &client.addresses)]);
    let _inside = InCgroup::enter(&a.cgroup().join("client"));
    serve(&topology.a.netns.path(), &topology.a.addresses[..1], "own");
    serve(&topology.b.netns.path(), &topology.b.addresses[..1], "other");
    serve_pairs(&topology.a.netns.path(), topology.a.addresses[0]);
    serve_pairs(&topology.b.netns.path(), topology.b.addresses[0]);
    let signs = directory.path().join("dns.sock");
    a.config.dns_heartbeat = Some(signs.clone());
    a.config.services.addresses = topology.a.addresses.clone();

    for mode in possible(&MODES) {
        a.config.proxy_mode = mode;
        a.kill_and_restart();
        a.wait_ready();
        let resolver = SignsOfLife::start(signs.clone());
        let modes = a.config.state_dir.join("proxy-modes");
        eventually("the mode takes over", || {
            (fs::read_to_string(&modes).ok()? == format!("{mode}\n")).then_some(())
        });
        until_alive_is(&a, true);
        all_go_to(&client.netns, "own", mode);
        pairs_arrive(&client.netns, mode);
        let (held, before) = (Held::open(&client.netns), fallbacks(&a));

        resolver.end();
        until_alive_is(&a, false);
        all_go_to(&client.netns, "other", mode);
        pairs_arrive(&client.netns, mode);
        assert_eq!(fallbacks(&a), before + 1, "{mode}");
        held.is_not_left_waiting(mode);

        let _resolver = SignsOfLife::start(signs.clone());
        until_alive_is(&a, true);
        all_go_to(&client.netns, "own", mode);
        assert_eq!(fallbacks(&a), before + 1, "{mode}: a return is no fallback");
    }
}

/// Cluster DNS with one server on each node.
fn resolvers(servers: &[(&str, IpAddr)]) -> Vec<Change> {
    let ports = [
        ("dns", Protocol::Udp, DNS, UDP_PORT),
        ("dns-tcp", Protocol::Tcp, DNS, TCP_PORT),
        ("pairs", Protocol::Udp, PAIRS, PAIRS_UDP),
    ];
    let service = Service {
        name: ObjectName::new("kube-system", "kube-dns"),
        addresses: vec![VIP4],
        ports: ports
            .map(|(name, protocol, port, _)| ServicePort { name: name.into(), protocol, port, node_port: 0 })
            .into(),
        distribution: TrafficDistribution::SameNode,
        ..Service::default()
    };
    let endpoint = |(node, address): &(&str, IpAddr)| Endpoint {
        hint_nodes: [(*node).into()].into(),
        ..Endpoint::ready_at(*address, node)
    };
    let slice = EndpointSlice {
        name: ObjectName::new("kube-system", "kube-dns-4"),
        service: "kube-dns".into(),
        ports: ports
            .map(|(name, protocol, _, port)| EndpointPort { name: name.into(), protocol, port })
            .into(),
        endpoints: servers.iter().map(endpoint).collect(),
        triggered_unix_ns: 0,
    };
    vec![Change::PutService(service), Change::PutSlice(slice)]
}

/// Answers every two datagrams with one packet; the thread ends with the process.
fn serve_pairs(netns: &Path, address: IpAddr) {
    let socket = run_in(netns, || UdpSocket::bind((address, PAIRS_UDP)).expect("a free port"));
    let answer = PAIR.concat();
    let size = u16::try_from(PAIR[0].len()).expect("it is short");
    thread::spawn(move || {
        let next = || socket.recv_from(&mut [0; 64]).map(|(_, peer)| peer);
        while let (Ok(first), Ok(second)) = (next(), next()) {
            assert_eq!(first, second, "one client at a time");
            let together = [ControlMessage::UdpGsoSegments(&size)];
            let to = SockaddrStorage::from(first);
            let parts = [IoSlice::new(answer.as_bytes())];
            sendmsg(socket.as_raw_fd(), &parts, &together, MsgFlags::empty(), Some(&to)).expect("it is sent");
        }
    });
}

/// Both answers arrive, each by itself.
fn pairs_arrive(client: &Path, mode: ProxyMode) {
    let ask = || {
        let socket = open(NEXT_PORT.fetch_add(1, Ordering::Relaxed))?;
        socket.connect((VIP4, PAIRS))?;
        PAIR.iter().try_for_each(|question| socket.send(question.as_bytes()).map(drop))?;
        let mut answers = Vec::new();
        for _ in PAIR {
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            answers.push(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
        io::Result::Ok(answers)
    };
    let answers = run_in(client, ask).unwrap_or_else(|error| panic!("{mode}: {error}"));
    assert_eq!(answers, PAIR, "{mode}");
}

fn dns() -> SocketAddr {
    SocketAddr::new(VIP4, DNS)
}

/// Who answers a datagram from a connected socket.
fn ask_by_datagram(socket: &UdpSocket) -> io::Result<String> {
    let mut name = [0; 64];
    socket.send(b"?")?;
    let length = socket.recv(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

fn open(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    socket.connect(dns())?;
    Ok(socket)
}

/// Waits until a server answers, and sees that no other one does any more.
fn all_go_to(client: &Path, server: &str, mode: ProxyMode) {
    let by_datagram =
        || open(NEXT_PORT.fetch_add(1, Ordering::Relaxed)).and_then(|socket| ask_by_datagram(&socket));
    let by_connection = || connect(dns()).and_then(|mut stream| ask(&mut stream));
    let ways: [(&str, &(dyn Fn() -> io::Result<String> + Sync)); 2] =
        [("UDP", &by_datagram), ("TCP", &by_connection)];
    for (way, look_up) in ways {
        eventually(&format!("{mode}: {server} answers by {way}"), || {
            run_in(client, || look_up().ok().filter(|name| name == server))
        });
        for _ in 0..LOOK_UPS {
            let answer = run_in(client, look_up).unwrap_or_else(|error| panic!("{mode}, {way}: {error}"));
            assert_eq!(answer, server, "{mode}, {way}");
        }
    }
}

/// A socket that was connected while the own server lived.
struct Held {
    client: PathBuf,
    socket: UdpSocket,
}

impl Held {
    fn open(client: &Path) -> Self {
        let socket = run_in(client, || {
            let socket = open(0)?;
            assert_eq!(ask_by_datagram(&socket)?, "own");
            io::Result::Ok(socket)
        });
        Self { client: client.to_path_buf(), socket: socket.expect("the own server answers") }
    }

    /// It is led to the other server, or told that it has to ask anew.
    fn is_not_left_waiting(&self, mode: ProxyMode) {
        eventually(&format!("{mode}: the socket is led away or ended"), || {
            match run_in(&self.client, || ask_by_datagram(&self.socket)) {
                Ok(name) => (name == "other").then_some(()),
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{mode}: it waits for its time-out");
                    Some(())
                }
            }
        });
    }
}

/// Waits until the agent knows how the resolver is, and what follows from that is in the kernel.
fn until_alive_is(agent: &RunningAgent, alive: bool) {
    let wanted = f64::from(u8::from(alive));
    eventually("the agent has seen how the resolver is", || {
        let text = agent.metrics("/metrics").1;
        let of_rules =
            |which| value(&text, &format!("kubeproxy_sync_proxy_rules_last_{which}timestamp_seconds"));
        let is_known = value(&text, "fairlead_dns_resolver_alive") == Some(wanted);
        (is_known && of_rules("") >= of_rules("queued_")).then_some(())
    });
}

fn fallbacks(agent: &RunningAgent) -> u64 {
    value(&agent.metrics("/metrics").1, "fairlead_dns_fallbacks_total").expect("a number") as u64
}

/// The value of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// What a resolver's heart does.
struct SignsOfLife {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SignsOfLife {
    fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut stream = UnixStream::connect(path).expect("the agent listens");
            while !stopped.load(Ordering::Relaxed) && stream.write_all(&[1]).is_ok() {
                thread::park_timeout(Duration::from_millis(250));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(self) {
        drop(self);
    }
}

impl Drop for SignsOfLife {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("no panic");
        }
    }
}
