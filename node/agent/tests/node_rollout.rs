//! Backends that come, terminate and go, a service that is scaled to zero and back, a node that is lost: two real agents, pods
//! that are gone once nothing leads to them, and clients that ask without a pause. Needs root and the eBPF object.
//!
//! One scenario, because the process itself joins a node's cgroup.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use fairlead_kubelet::network::Attachment;
use fairlead_model::{Change, ObjectName, Protocol, Service, ServicePort};
use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, ask, connect, serve},
    eventually,
    netns::run_in,
};

use crate::{
    cluster::{VIP4, VIP6, node, slices},
    feed::Feed,
    running::RunningAgent,
};

#[path = "node_agent/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node_agent/feed.rs"]
mod feed;
#[path = "node_agent/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod running;

/// How an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ready,
    Terminating,
}
use State::{Ready, Terminating};

/// What happens, the endpoints from then on, the pod that ends when nothing leads to it any more.
type Step = (&'static str, &'static [(&'static str, State)], Option<&'static str>);

/// `far` is on the second node, all others are on the first, where the clients are.
#[rustfmt::skip]
const STEPS: &[Step] = &[
    ("another one comes", &[("one", Ready), ("two", Ready)], None),
    ("the first one terminates", &[("one", Terminating), ("two", Ready)], None),
    ("and ends", &[("two", Ready)], Some("one")),
    ("all terminate", &[("two", Terminating)], None),
    ("one comes while all terminate", &[("two", Terminating), ("three", Ready)], None),
    ("the last of the old ones ends", &[("three", Ready)], Some("two")),
    ("scaled to zero", &[], None),
    ("and back", &[("three", Ready)], None),
    ("one comes on another node", &[("three", Ready), ("far", Ready)], None),
    ("only the other node has one", &[("far", Ready)], Some("three")),
    ("one comes here", &[("far", Ready), ("four", Ready)], None),
    ("the other node is lost", &[("four", Ready)], Some("far")),
];

const PODS: [&str; 5] = ["one", "two", "three", "four", "far"];

/// Where the clients of datagrams are, whatever becomes of their backends; those of IPv6 are at the next.
const FIXED_PORT: u16 = 40_053;

/// The agents, the feed, and where the pods are.
struct World {
    agents: [RunningAgent; 2],
    places: BTreeMap<&'static str, Attachment>,
    client: Attachment,
    feed: Feed,
}

#[test]
fn whoever_asks_is_answered_whatever_becomes_of_the_backends() {
    let directory = tempfile::tempdir().expect("a directory");
    let topology = TwoNodes::new();
    let begin = vec![node("a", 1, &topology.a.addresses), node("b", 2, &topology.b.addresses), service()];
    let feed = Feed::start(&topology.a, begin);
    let agent = |name, node| RunningAgent::start(name, node, feed.endpoint.clone(), directory.path());
    let agents = [agent("a", &topology.a), agent("b", &topology.b)];
    agents.iter().for_each(RunningAgent::wait_ready);
    let client = agents[0].attach("client");
    let places = PODS.map(|name| (name, agents[usize::from(name == "far")].attach(name))).into();
    let mut world = World { agents, places, client, feed };
    let _inside = InCgroup::enter(&world.agents[0].cgroup().join("client"));
    for (name, place) in &world.places {
        serve(&place.netns, &place.addresses, name);
    }
    world.tell(&[("one", Ready)], Vec::new());

    steps_under_load(&mut world);
    a_connected_socket_learns_that_its_backend_has_gone(&mut world);
}

fn service() -> Change {
    let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: 0 };
    Change::PutService(Service {
        name: ObjectName::new("demo", "echo"),
        addresses: vec![VIP4, VIP6],
        ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
        ..Service::default()
    })
}

impl World {
    /// Tells of these endpoints, and of more; returns when the first node has it all.
    fn tell(&mut self, endpoints: &[(&str, State)], more: Vec<Change>) {
        let of: Vec<_> = endpoints
            .iter()
            .map(|(name, _)| (if *name == "far" { "b" } else { "a" }, &*self.places[name].addresses))
            .collect();
        let ports = [("http", Protocol::Tcp, TCP_PORT), ("dns", Protocol::Udp, UDP_PORT)];
        let mut changes = slices("echo", &ports, &of);
        for change in &mut changes {
            let Change::PutSlice(slice) = change else { continue };
            for (endpoint, (_, state)) in slice.endpoints.iter_mut().zip(endpoints) {
                endpoint.ready = *state == Ready;
                endpoint.terminating = *state == Terminating;
            }
        }
        changes.extend(more);
        self.feed.change(changes);
        let wanted = format!("\"sequence\":{}", self.feed.sequence());
        eventually("the change", || self.agents[0].admin("/status").1.contains(&wanted).then_some(()));
    }

    /// The pod ends, with everything that it had.
    fn end(&self, name: &str) {
        self.agents[usize::from(name == "far")].detach(name);
    }
}

/// Who may answer at some step: new connections, and sockets of datagrams, which stay with a backend while it serves. Nobody
/// when there is none.
struct Answering {
    connections: Vec<&'static str>,
    datagrams: Vec<&'static str>,
}

impl Answering {
    fn of(endpoints: &[(&'static str, State)]) -> Self {
        let are = |wanted| endpoints.iter().filter(move |(_, state)| *state == wanted).map(|(name, _)| *name);
        let wanted = if are(Ready).next().is_some() { Ready } else { Terminating };
        Self {
            connections: are(wanted).collect(),
            datagrams: endpoints.iter().map(|(name, _)| *name).collect(),
        }
    }
}

/// What the clients go by.
struct Load {
    /// Who may answer, step by step.
    history: Mutex<Vec<Answering>>,
    /// How many of those are in the kernel.
    committed: AtomicUsize,
    answered: [AtomicUsize; 4],
    stop: AtomicBool,
}

impl Load {
    /// Asks until it is told to stop.
    fn ask(&self, client: usize) {
        let vip = [VIP4, VIP6][client % 2];
        let datagrams = (client >= 2).then(|| datagrams(vip).expect("binds"));
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.committed.load(Ordering::SeqCst);
            let answer = match &datagrams {
                Some(socket) => exchange(socket, SocketAddr::new(vip, 53)),
                None => connect(SocketAddr::new(vip, 80)).and_then(|mut stream| ask(&mut stream)),
            };
            let history = self.history.lock().expect("nobody panicked");
            let of = |step: &Answering| match datagrams {
                Some(_) => step.datagrams.clone(),
                None => step.connections.clone(),
            };
            let allowed: Vec<Vec<&str>> = history[seen..].iter().map(of).collect();
            drop(history);
            let right = match &answer {
                Ok(name) => allowed.iter().any(|names| names.contains(&name.as_str())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    allowed.iter().any(Vec::is_empty)
                }
                Err(_) => false,
            };
            assert!(right, "client {client} got {answer:?}; {allowed:?} may answer");
            self.answered[client].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until every client has asked twice more.
    fn some_more(&self) {
        let before = self.answered.each_ref().map(|count| count.load(Ordering::SeqCst));
        for (count, before) in self.answered.iter().zip(before) {
            eventually("an answer", || (count.load(Ordering::SeqCst) >= before + 2).then_some(()));
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn steps_under_load(world: &mut World) {
    let load = Load {
        history: Mutex::new(vec![Answering::of(&[("one", Ready)])]),
        committed: AtomicUsize::new(0),
        answered: Default::default(),
        stop: AtomicBool::new(false),
    };
    let netns = world.client.netns.clone();
    thread::scope(|scope| {
        for client in 0..load.answered.len() {
            let (load, netns) = (&load, &netns);
            scope.spawn(move || run_in(netns, || load.ask(client)));
        }
        // The clients end also when something fails here.
        let _stop = StopOnDrop(&load.stop);
        for (what, endpoints, ends) in STEPS {
            load.some_more();
            load.history.lock().expect("nobody panicked").push(Answering::of(endpoints));
            let lost = (*ends == Some("far")).then(|| Change::DeleteNode("b".into()));
            world.tell(endpoints, lost.into_iter().collect());
            load.committed.fetch_add(1, Ordering::SeqCst);
            load.some_more();
            if let Some(name) = ends {
                world.end(name);
                load.some_more();
            }
            eprintln!("{what}: {:?} answers so far", load.answered);
        }
    });
}

/// Where the kernel tells the owner that only it can connect the socket again, from the same port.
fn a_connected_socket_learns_that_its_backend_has_gone(world: &mut World) {
    let vip = SocketAddr::new(VIP4, 53);
    let netns = world.client.netns.clone();
    let connected = || {
        let socket = datagrams(VIP4)?;
        socket.connect(vip)?;
        Ok::<_, io::Error>(socket)
    };
    let ask = |socket: &UdpSocket| {
        socket.send(b"?")?;
        let mut name = [0; 16];
        let length = socket.recv(&mut name)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&name[..length]).into_owned())
    };
    let socket = run_in(&netns, || connected().expect("connects"));
    assert_eq!(ask(&socket).expect("an answer"), "four");
    let fresh = world.agents[0].attach("five");
    serve(&fresh.netns, &fresh.addresses, "five");
    world.places.insert("five", fresh);
    world.tell(&[("five", Ready)], Vec::new());
    eventually("the end of the socket", || ask(&socket).is_err().then_some(()));
    drop(socket);
    let again = run_in(&netns, || connected().expect("the port is free"));
    assert_eq!(ask(&again).expect("an answer"), "five");
}

/// A socket at the fixed port of a family.
fn datagrams(of: IpAddr) -> io::Result<UdpSocket> {
    let (any, port): (IpAddr, u16) =
        if of.is_ipv4() { ([0; 4].into(), FIXED_PORT) } else { ([0; 16].into(), FIXED_PORT + 1) };
    let socket = UdpSocket::bind((any, port))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    Ok(socket)
}

/// One question and its answer over an unconnected socket.
fn exchange(socket: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.send_to(b"?", to)?;
    let mut name = [0; 16];
    let (length, from) = socket.recv_from(&mut name)?;
    assert_eq!(from, to, "the client sees the service");
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}
