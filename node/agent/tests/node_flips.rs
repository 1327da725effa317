//! A service that changes what it is while clients inside and outside ask without a pause: its type, policies, affinity, port,
//! families; and addresses that the node gets and loses. Two real agents, real sockets. Needs root and the eBPF object.
//!
//! Twice over: first nobody's sockets are translated, so that the link programs serve the pod and the client outside, then the
//! process itself joins the node's cgroup, and the socket hooks serve the pod. One scenario for that reason.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use fairlead_kubelet::network::Attachment;
use fairlead_model::{Change, ObjectName, Service, TrafficPolicy};
use fairlead_testkit::{
    InCgroup, NodesAndClient,
    echo::{ask, connect, datagrams, exchange, serve},
    eventually,
    netns::run_in,
    topology::UPLINK,
};

use crate::{
    cluster::{ECHO, VIP4, VIP6, echo_service, slices},
    load::{Client, Load},
    pair::Pair,
};

#[path = "node_agent/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node_agent/feed.rs"]
mod feed;
#[path = "node_agent/load.rs"]
mod load;
#[path = "node_agent/pair.rs"]
mod pair;
#[path = "node_agent/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod running;

const NODE_PORT: u16 = 30_080;
const DNS_NODE_PORT: u16 = 30_053;

/// Where the clients of datagrams are; those of IPv6 are at the next.
const FIXED_PORT: u16 = 40_053;

/// Longest wait for a datagram that is not served any more, and for one that is.
const DATAGRAM_WAIT: Duration = Duration::from_secs(2);

/// The backend on the clients' node, and the other one.
const BOTH: &[&str] = &["here", "there"];
const HERE: &[&str] = &["here"];
/// The service is not served like that: any error will do.
const NOBODY: &[&str] = &[];

/// Who may answer whom.
#[derive(Clone, Copy)]
struct Answering {
    /// New connections of the pod, by family.
    inside: [&'static [&'static str]; 2],
    /// Datagrams of the pod, whose sockets stay with a backend that serves, by family.
    datagrams: [&'static [&'static str]; 2],
    /// New connections of the client outside to the node port; its datagrams stay with a backend that serves.
    outside: &'static [&'static str],
}

/// What happens, what it changes, who may answer from then on.
type Step = (&'static str, fn(&mut Service), Answering);

const fn answering(
    inside: &'static [&'static str],
    datagrams: &'static [&'static str],
    outside: &'static [&'static str],
) -> Answering {
    Answering { inside: [inside; 2], datagrams: [datagrams; 2], outside }
}

const IPV6_ONLY: Answering = Answering { inside: [NOBODY, BOTH], datagrams: [NOBODY, BOTH], outside: NOBODY };

#[rustfmt::skip]
const STEPS: &[Step] = &[
    ("it gets node ports", |s| (s.ports[0].node_port, s.ports[1].node_port) = (NODE_PORT, DNS_NODE_PORT),
        answering(BOTH, BOTH, BOTH)),
    ("it gets a load balancer", |s| s.load_balancer_addresses = vec![ip("203.0.113.20"), ip("2001:db8:1::20")],
        answering(BOTH, BOTH, BOTH)),
    ("clients outside stay on their node", |s| s.external_policy = TrafficPolicy::Local, answering(BOTH, BOTH, HERE)),
    ("clients inside, too", |s| s.internal_policy = TrafficPolicy::Local, answering(HERE, BOTH, HERE)),
    ("those outside do not any more", |s| s.external_policy = TrafficPolicy::Cluster, answering(HERE, BOTH, BOTH)),
    ("nobody does", |s| s.internal_policy = TrafficPolicy::Cluster, answering(BOTH, BOTH, BOTH)),
    ("affinity is put on", |s| s.affinity_secs = 10_800, answering(BOTH, BOTH, BOTH)),
    ("and off", |s| s.affinity_secs = 0, answering(BOTH, BOTH, BOTH)),
    ("its port is another one", |s| s.ports[0].port = 81, answering(NOBODY, BOTH, BOTH)),
    ("and the former one again", |s| s.ports[0].port = 80, answering(BOTH, BOTH, BOTH)),
    ("it has IPv6 only", |s| s.addresses = vec![VIP6], IPV6_ONLY),
    ("IPv6 comes first", |s| s.addresses = vec![VIP6, VIP4], answering(BOTH, BOTH, BOTH)),
    ("IPv4 comes first", |s| s.addresses = vec![VIP4, VIP6], answering(BOTH, BOTH, BOTH)),
    ("it is a cluster address again", |s| { s.ports = echo_service().ports; s.load_balancer_addresses.clear(); },
        answering(BOTH, BOTH, NOBODY)),
];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The agents and the service as it is.
struct World {
    pair: Pair,
    backends: [Attachment; 2],
    service: Service,
    /// Last: the others live in its namespaces.
    topology: NodesAndClient,
}

impl World {
    /// Tells of the service as it is.
    fn tell(&mut self) {
        self.pair.tell(vec![Change::PutService(self.service.clone())]);
    }

    /// A node port of the clients' node.
    fn node_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.topology.a.addresses[0], port)
    }

    /// The slices of a service with these backends.
    fn slices(&self, service: &str, of: &[&str]) -> Vec<Change> {
        let backends = BOTH.iter().zip(["a", "b"]).zip(&self.backends);
        let chosen = backends.filter(|((name, _), _)| of.contains(name));
        let chosen: Vec<_> = chosen.map(|((_, node), place)| (node, &*place.addresses)).collect();
        slices(service, &ECHO, &chosen)
    }

    fn outside(&self) -> PathBuf {
        self.topology.client.netns.path()
    }
}

#[test]
fn clients_are_served_whatever_a_service_becomes() {
    let directory = tempfile::tempdir().expect("a directory");
    let topology = NodesAndClient::new();
    let pair = Pair::start([&topology.a, &topology.b], Vec::new(), directory.path());
    let agents = &pair.agents;
    let client = agents[0].attach("client");
    let backends = [agents[0].attach("here"), agents[1].attach("there")];
    for (name, place) in BOTH.iter().zip(&backends) {
        serve(&place.netns, &place.addresses, name);
    }
    let mut world = World { pair, backends, service: echo_service(), topology };
    world.pair.tell(world.slices("echo", BOTH));
    world.tell();

    steps_under_load(&mut world, &client.netns, Tier::Links);
    a_node_port_is_on_the_addresses_that_the_node_has(&mut world);
    a_flow_follows_its_node_port_to_another_service(&mut world);
    world.service = echo_service();
    world.tell();
    let _inside = InCgroup::enter(&world.pair.agents[0].cgroup().join("client"));
    steps_under_load(&mut world, &client.netns, Tier::Sockets);
}

/// Which programs serve the pod.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Tier {
    Links,
    /// They would take the client outside for a process of the node.
    Sockets,
}

/// Who asks, where from, what for, and which of [`Answering`] is about it.
struct Asking {
    what: &'static str,
    netns: PathBuf,
    to: SocketAddr,
    socket: Option<UdpSocket>,
    may_answer: fn(&Answering) -> &'static [&'static str],
}

impl Client for Asking {
    type Step = Answering;

    fn what(&self) -> String {
        self.what.to_owned()
    }

    fn netns(&self) -> &Path {
        &self.netns
    }

    fn ask(&self) -> io::Result<String> {
        match &self.socket {
            Some(socket) => exchange(socket, self.to),
            None => connect(self.to).and_then(|mut stream| ask(&mut stream)),
        }
    }

    fn may_answer(&self, step: &Answering) -> Vec<&'static str> {
        (self.may_answer)(step).to_vec()
    }
}

fn clients(world: &World, pod: &Path, tier: Tier) -> Vec<Asking> {
    let of_pod =
        |what, to, socket, may_answer| Asking { what, netns: pod.to_owned(), to, socket, may_answer };
    let mut clients = vec![
        of_pod("TCP over IPv4", SocketAddr::new(VIP4, 80), None, |step| step.inside[0]),
        of_pod("TCP over IPv6", SocketAddr::new(VIP6, 80), None, |step| step.inside[1]),
        of_pod("UDP over IPv4", SocketAddr::new(VIP4, 53), at_port(pod, true, FIXED_PORT), |step| {
            step.datagrams[0]
        }),
        of_pod("UDP over IPv6", SocketAddr::new(VIP6, 53), at_port(pod, false, FIXED_PORT + 1), |step| {
            step.datagrams[1]
        }),
    ];
    if tier == Tier::Links {
        let of_outside = |what, port, socket, may_answer| Asking {
            what,
            netns: world.outside(),
            to: world.node_port(port),
            socket,
            may_answer,
        };
        clients.push(of_outside("TCP from outside", NODE_PORT, None, |step| step.outside));
        let socket = at_port(&world.outside(), true, FIXED_PORT);
        clients.push(of_outside("UDP from outside", DNS_NODE_PORT, socket, |step| {
            if step.outside.is_empty() { NOBODY } else { BOTH }
        }));
    }
    clients
}

fn at_port(netns: &Path, v4: bool, port: u16) -> Option<UdpSocket> {
    Some(datagrams(netns, v4, port, DATAGRAM_WAIT))
}

/// A connection that goes on, and who has answered it first.
struct Held(TcpStream, String);

impl Held {
    fn open(netns: &Path, to: SocketAddr) -> Self {
        let mut stream = run_in(netns, || connect(to).expect("it is served"));
        let name = ask(&mut stream).expect("an answer");
        Self(stream, name)
    }

    fn go_on(&mut self, what: &str) {
        assert_eq!(ask(&mut self.0).ok().as_ref(), Some(&self.1), "a connection breaks when {what}");
    }
}

fn steps_under_load(world: &mut World, pod: &Path, tier: Tier) {
    let load = Load::new(clients(world, pod, tier), answering(BOTH, BOTH, NOBODY));
    let mut held =
        vec![Held::open(pod, SocketAddr::new(VIP4, 80)), Held::open(pod, SocketAddr::new(VIP6, 80))];
    load.while_asking(|| {
        for (what, change, answering) in STEPS {
            load.step(what, *answering, || {
                change(&mut world.service);
                world.tell();
            });
            if tier == Tier::Links && held.len() == 2 {
                held.push(Held::open(&world.outside(), world.node_port(NODE_PORT)));
            }
            held.iter_mut().for_each(|held| held.go_on(what));
        }
    });
}

/// The kernel tells of addresses that come and go.
fn a_node_port_is_on_the_addresses_that_the_node_has(world: &mut World) {
    world.service.ports[0].node_port = NODE_PORT;
    world.tell();
    for (address, length) in [("172.29.0.77", 24), ("fd00:29::77", 64)] {
        let to = SocketAddr::new(ip(address), NODE_PORT);
        let asked = || {
            run_in(&world.outside(), || TcpStream::connect_timeout(&to, Duration::from_millis(500)))
                .and_then(|mut stream| ask(&mut stream))
        };
        assert!(asked().is_err(), "{address} is nobody's yet");
        let with_length = format!("{address}/{length}");
        let duplicates: &[&str] = if length == 64 { &["nodad"] } else { &[] };
        let change = |verb: &str, more: &[&str]| {
            let words = [&["address", verb, &with_length, "dev", UPLINK], more].concat();
            world.topology.a.netns.ip(&words);
        };
        change("add", duplicates);
        eventually("the node port on the new address", || {
            asked().is_ok_and(|name| BOTH.contains(&&*name)).then_some(())
        });
        change("del", &[]);
        eventually("its end", || asked().is_err().then_some(()));
    }
}

/// The number of a node port goes from one service to another while a client asks it from one port all the time.
fn a_flow_follows_its_node_port_to_another_service(world: &mut World) {
    world.service.ports[1].node_port = DNS_NODE_PORT;
    world.tell();
    world.pair.tell(world.slices("echo", &["here"]));
    let other = Service {
        name: ObjectName::new("demo", "other"),
        addresses: vec![ip("10.96.0.21")],
        ..echo_service()
    };
    let mut changes = world.slices("other", &["there"]);
    changes.push(Change::PutService(other.clone()));
    world.pair.tell(changes);
    let socket = datagrams(&world.outside(), true, FIXED_PORT + 2, DATAGRAM_WAIT);
    let to = world.node_port(DNS_NODE_PORT);
    let ask = || run_in(&world.outside(), || exchange(&socket, to)).ok();
    assert_eq!(ask().as_deref(), Some("here"));
    let (mut without, mut with) = (world.service.clone(), other);
    (without.ports[1].node_port, with.ports[1].node_port) = (0, DNS_NODE_PORT);
    world.pair.tell(vec![Change::PutService(without), Change::PutService(with)]);
    let ask = || run_in(&world.outside(), || exchange(&socket, to)).ok();
    assert_eq!(ask().as_deref(), Some("there"), "the former service's backend serves, but not this number");
    world.pair.tell(vec![Change::DeleteService(ObjectName::new("demo", "other"))]);
    world.pair.tell(world.slices("echo", BOTH));
}
