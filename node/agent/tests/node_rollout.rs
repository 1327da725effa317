//! Backends that come, terminate and go, a service that is scaled to zero and back, a node that is lost: two real agents, pods
//! that are gone once nothing leads to them, and clients that ask without a pause. Needs root and the eBPF object.
//!
//! One scenario, because the process itself joins a node's cgroup.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use fairlead_kubelet::network::Attachment;
use fairlead_model::Change;
use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{ANSWER_WAIT, ask, connect, datagrams, exchange, serve},
    eventually,
    netns::run_in,
};

use crate::{
    cluster::{
        ECHO,
        State::{self, Ready, Terminating},
        VIP4, VIP6, echo_service, slices_of,
    },
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

/// The agents, and where the pods are.
struct World {
    pair: Pair,
    places: BTreeMap<&'static str, Attachment>,
    client: Attachment,
}

#[test]
fn whoever_asks_is_answered_whatever_becomes_of_the_backends() {
    let directory = tempfile::tempdir().expect("a directory");
    let topology = TwoNodes::new();
    let service = Change::PutService(echo_service());
    let pair = Pair::start([&topology.a, &topology.b], vec![service], directory.path());
    let client = pair.agents[0].attach("client");
    let places = PODS.map(|name| (name, pair.agents[usize::from(name == "far")].attach(name))).into();
    let mut world = World { pair, places, client };
    let _inside = InCgroup::enter(&world.pair.agents[0].cgroup().join("client"));
    for (name, place) in &world.places {
        serve(&place.netns, &place.addresses, name);
    }
    world.tell(&[("one", Ready)], Vec::new());

    steps_under_load(&mut world);
    a_connected_socket_learns_that_its_backend_has_gone(&mut world);
}

impl World {
    /// Tells of these endpoints, and of more.
    fn tell(&mut self, endpoints: &[(&str, State)], more: Vec<Change>) {
        let of: Vec<_> = endpoints
            .iter()
            .map(|(name, state)| {
                (if *name == "far" { "b" } else { "a" }, &*self.places[name].addresses, *state)
            })
            .collect();
        let mut changes = slices_of("echo", &ECHO, &of);
        changes.extend(more);
        self.pair.tell(changes);
    }

    /// The pod ends, with everything that it had.
    fn end(&self, name: &str) {
        self.pair.agents[usize::from(name == "far")].detach(name);
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

/// Who asks a service address of a family, all from the same pod.
struct Asking {
    netns: PathBuf,
    to: SocketAddr,
    datagrams: Option<UdpSocket>,
}

impl Client for Asking {
    type Step = Answering;

    fn what(&self) -> String {
        format!("the client of {}", self.to)
    }

    fn netns(&self) -> &Path {
        &self.netns
    }

    fn ask(&self) -> io::Result<String> {
        match &self.datagrams {
            Some(socket) => exchange(socket, self.to),
            None => connect(self.to).and_then(|mut stream| ask(&mut stream)),
        }
    }

    fn may_answer(&self, step: &Answering) -> Vec<&'static str> {
        if self.datagrams.is_some() { step.datagrams.clone() } else { step.connections.clone() }
    }

    fn is_refused(&self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::ConnectionRefused
    }
}

fn clients(netns: &Path) -> Vec<Asking> {
    let of = |vip: IpAddr| {
        let asking =
            |port, datagrams| Asking { netns: netns.to_owned(), to: SocketAddr::new(vip, port), datagrams };
        [asking(80, None), asking(53, Some(at_fixed_port(netns, vip)))]
    };
    [VIP4, VIP6].into_iter().flat_map(of).collect()
}

fn steps_under_load(world: &mut World) {
    let load = Load::new(clients(&world.client.netns), Answering::of(&[("one", Ready)]));
    load.while_asking(|| {
        for (what, endpoints, ends) in STEPS {
            let lost = (*ends == Some("far")).then(|| Change::DeleteNode("b".into()));
            load.step(what, Answering::of(endpoints), || world.tell(endpoints, lost.into_iter().collect()));
            if let Some(name) = ends {
                world.end(name);
                load.some_more();
            }
        }
    });
}

/// Where the kernel tells the owner that only it can connect the socket again, from the same port.
fn a_connected_socket_learns_that_its_backend_has_gone(world: &mut World) {
    let vip = SocketAddr::new(VIP4, 53);
    let netns = world.client.netns.clone();
    let connected = || {
        let socket = at_fixed_port(&netns, VIP4);
        socket.connect(vip).expect("connects");
        socket
    };
    let ask = |socket: &UdpSocket| {
        socket.send(b"?")?;
        let mut name = [0; 16];
        let length = socket.recv(&mut name)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&name[..length]).into_owned())
    };
    let socket = run_in(&netns, connected);
    assert_eq!(ask(&socket).expect("an answer"), "four");
    let fresh = world.pair.agents[0].attach("five");
    serve(&fresh.netns, &fresh.addresses, "five");
    world.places.insert("five", fresh);
    world.tell(&[("five", Ready)], Vec::new());
    eventually("the end of the socket", || ask(&socket).is_err().then_some(()));
    drop(socket);
    let again = run_in(&netns, connected);
    assert_eq!(ask(&again).expect("an answer"), "five");
}

/// A socket at the fixed port of a family.
fn at_fixed_port(netns: &Path, of: IpAddr) -> UdpSocket {
    datagrams(netns, of.is_ipv4(), FIXED_PORT + u16::from(of.is_ipv6()), ANSWER_WAIT)
}
