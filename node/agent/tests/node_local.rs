//! A service whose policies are Local: endpoints that are replaced, target ports that change, a load balancer that looks where
//! endpoints are; and sessions that hold over all addresses of a port. Clients inside and outside ask without a pause. Two real
//! agents, real sockets. Needs root and the eBPF object.
//!
//! Twice over, as in the test of what a service becomes: by the link programs, then by the socket hooks, which the process itself
//! joins. One scenario for that reason.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use fairlead_kubelet::network::Attachment;
use fairlead_model::{Change, Protocol, Service, TrafficPolicy};
use fairlead_testkit::{
    InCgroup, NodesAndClient,
    echo::{ANSWER_WAIT, TCP_PORT, UDP_PORT, ask, connect, datagrams, exchange, serve, serve_at},
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

#[path = "node_local/balancer.rs"]
mod balancer;
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
#[path = "node_local/sessions.rs"]
mod sessions;

/// Node ports of the service, that of TCP first.
const NODE_PORTS: [u16; 2] = [30_080, 30_053];

/// Where a load balancer learns whether the node has endpoints.
const CHECK_PORT: u16 = 30_090;

/// Addresses of the load balancer, by family.
const BALANCER: [&str; 2] = ["203.0.113.20", "2001:db8:1::20"];

/// Where the clients of datagrams are; those of IPv6 are at the next.
const FIXED_PORT: u16 = 40_053;

/// Other ports of the endpoints, by the names that the service has for them.
const SECOND: [(&str, Protocol, u16); 2] =
    [("http", Protocol::Tcp, TCP_PORT + 1), ("dns", Protocol::Udp, UDP_PORT + 1)];

/// The pods: what they answer at either port, which node they are on.
const PODS: [(&str, &str, usize); 5] = [
    ("one", "one'", 0),
    ("two", "two'", 0),
    ("three", "three'", 0),
    ("far", "far'", 1),
    ("away", "away'", 1),
];

/// The agents, the service as it is, and where the pods are.
pub(crate) struct World {
    pair: Pair,
    service: Service,
    client: Attachment,
    places: BTreeMap<&'static str, Attachment>,
    /// Last: the others live in its namespaces.
    topology: NodesAndClient,
}

impl World {
    fn new(directory: &Path) -> Self {
        let topology = NodesAndClient::new();
        let pair = Pair::start([&topology.a, &topology.b], Vec::new(), directory);
        for (address, via) in BALANCER.iter().zip(&topology.a.addresses) {
            topology.client.netns.ip(&["route", "add", address, "via", &via.to_string()]);
        }
        let client = pair.agents[0].attach("client");
        let mut service = echo_service();
        for (port, number) in service.ports.iter_mut().zip(NODE_PORTS) {
            port.node_port = number;
        }
        service.load_balancer_addresses = BALANCER.map(ip).to_vec();
        let mut world = Self { pair, service, client, places: BTreeMap::new(), topology };
        PODS.iter().for_each(|(name, ..)| world.begin(name));
        world
    }

    /// The pod begins.
    fn begin(&mut self, name: &str) {
        let (name, second, node) = *PODS.iter().find(|pod| pod.0 == name).expect("a pod");
        let place = self.pair.agents[node].attach(name);
        serve(&place.netns, &place.addresses, name);
        serve_at(&place.netns, &place.addresses, SECOND.map(|(_, _, port)| port), second);
        self.places.insert(name, place);
    }

    /// The pod ends, with everything that it had.
    fn end(&mut self, name: &'static str) {
        self.pair.agents[of(name).1].detach(name);
        self.places.remove(name);
    }

    /// Tells of these endpoints at these ports, and of the service as it is.
    fn tell(&mut self, endpoints: &[(&str, State)], ports: &[(&str, Protocol, u16)]) {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(name, state)| (["a", "b"][of(name).1], &*self.places[name].addresses, *state))
            .collect();
        let mut changes = slices_of("echo", ports, &endpoints);
        changes.push(Change::PutService(self.service.clone()));
        self.pair.tell(changes);
    }

    fn outside(&self) -> PathBuf {
        self.topology.client.netns.path()
    }
}

/// What a pod answers at its other port, and the number of its node.
fn of(name: &str) -> (&'static str, usize) {
    PODS.iter().find(|pod| pod.0 == name).map(|pod| (pod.1, pod.2)).expect("a pod")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Which programs serve the pod.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Tier {
    Links,
    /// They would take the client outside for a process of the node.
    Sockets,
}

#[test]
fn a_local_service_serves_whatever_becomes_of_its_endpoints() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World::new(directory.path());
    endpoints_are_replaced(&mut world, Tier::Links);
    balancer::a_rolling_update_loses_nobody(&mut world);
    sessions::hold_over_all_addresses(&mut world, Tier::Links);
    balancer::an_address_of_its_own_is_left_to_it(&mut world, Tier::Links);
    let _inside = InCgroup::enter(&world.pair.agents[0].cgroup().join("client"));
    endpoints_are_replaced(&mut world, Tier::Sockets);
    sessions::hold_over_all_addresses(&mut world, Tier::Sockets);
    balancer::an_address_of_its_own_is_left_to_it(&mut world, Tier::Sockets);
}

/// What happens, the endpoints from then on, whether it is their other ports, the pod that ends when nothing leads to it.
type Step = (&'static str, &'static [(&'static str, State)], bool, Option<&'static str>);

#[rustfmt::skip]
const STEPS: &[Step] = &[
    ("another one comes", &[("one", Ready), ("two", Ready), ("far", Ready)], false, None),
    ("the first one terminates", &[("one", Terminating), ("two", Ready), ("far", Ready)], false, None),
    ("and ends", &[("two", Ready), ("far", Ready)], false, Some("one")),
    ("other ports are targeted", &[("two", Ready), ("far", Ready)], true, None),
    ("and the former ones again", &[("two", Ready), ("far", Ready)], false, None),
    ("the only one here terminates", &[("two", Terminating), ("far", Ready)], false, None),
    ("one comes here", &[("two", Terminating), ("three", Ready), ("far", Ready)], false, None),
    ("the old one ends", &[("three", Ready), ("far", Ready)], false, Some("two")),
    ("there is none elsewhere", &[("three", Ready)], false, None),
];

/// Who may answer at a step.
struct Answering {
    connections: Vec<&'static str>,
    /// These stay with an endpoint that serves.
    datagrams: Vec<&'static str>,
}

impl Answering {
    /// Of these endpoints, who are on the clients' node: those that terminate where no other is there.
    fn of(endpoints: &[(&'static str, State)], second: bool) -> Self {
        let here = || endpoints.iter().filter(|(name, _)| of(name).1 == 0);
        let answers = |name: &'static str| if second { of(name).0 } else { name };
        let are = |wanted| here().filter(move |(_, state)| *state == wanted).map(|(name, _)| answers(name));
        let wanted = if are(Ready).next().is_some() { Ready } else { Terminating };
        Self {
            connections: are(wanted).collect(),
            datagrams: here().map(|(name, _)| answers(name)).collect(),
        }
    }
}

/// Who asks for what.
struct Asking {
    what: &'static str,
    netns: PathBuf,
    to: SocketAddr,
    datagrams: Option<UdpSocket>,
}

impl Asking {
    fn new(what: &'static str, netns: PathBuf, to: SocketAddr, is_datagrams: bool) -> Self {
        let port = FIXED_PORT + u16::from(to.is_ipv6());
        let datagrams = is_datagrams.then(|| datagrams(&netns, to.is_ipv4(), port, ANSWER_WAIT));
        Self { what, netns, to, datagrams }
    }
}

impl Client for Asking {
    type Step = Answering;

    fn what(&self) -> String {
        format!("{} at {}", self.what, self.to)
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
}

fn clients(world: &World, tier: Tier) -> Vec<Asking> {
    let mut clients = Vec::new();
    for (family, vip) in [VIP4, VIP6].into_iter().enumerate() {
        let pod = || world.client.netns.clone();
        clients.push(Asking::new("a pod, TCP", pod(), SocketAddr::new(vip, 80), false));
        clients.push(Asking::new("a pod, UDP", pod(), SocketAddr::new(vip, 53), true));
        if tier == Tier::Links {
            let [tcp, udp] = NODE_PORTS.map(|port| SocketAddr::new(world.topology.a.addresses[family], port));
            clients.push(Asking::new("outside, TCP", world.outside(), tcp, false));
            clients.push(Asking::new("outside, UDP", world.outside(), udp, true));
        }
    }
    clients
}

fn endpoints_are_replaced(world: &mut World, tier: Tier) {
    world.service.affinity_secs = 0;
    world.service.health_check_port = CHECK_PORT;
    (world.service.internal_policy, world.service.external_policy) =
        (TrafficPolicy::Local, TrafficPolicy::Local);
    for (name, ..) in PODS {
        if !world.places.contains_key(name) {
            world.begin(name);
        }
    }
    let first = [("one", Ready), ("far", Ready)];
    world.tell(&first, &ECHO);
    let load = Load::new(clients(world, tier), Answering::of(&first, false));
    load.while_asking(|| {
        for (what, endpoints, second, ends) in STEPS {
            let ports = if *second { &SECOND } else { &ECHO };
            load.step(what, Answering::of(endpoints, *second), || world.tell(endpoints, ports));
            for (name, _) in endpoints.iter().filter(|(_, state)| *state == Terminating) {
                may_ask(world, name, &Answering::of(endpoints, *second));
            }
            if let Some(name) = ends {
                world.end(name);
                load.some_more();
            }
        }
    });
}

/// A pod that terminates may be a client to its end.
fn may_ask(world: &World, name: &str, step: &Answering) {
    for vip in [VIP4, VIP6] {
        let netns = &world.places[name].netns;
        let asked =
            run_in(netns, || connect(SocketAddr::new(vip, 80)).and_then(|mut stream| ask(&mut stream)));
        assert!(asked.as_ref().is_ok_and(|by| step.connections.contains(&by.as_str())), "{name}: {asked:?}");
        let socket = datagrams(netns, vip.is_ipv4(), 0, ANSWER_WAIT);
        let asked = run_in(netns, || exchange(&socket, SocketAddr::new(vip, 53)));
        // A new flow has no endpoint yet that it could stay with.
        assert!(asked.as_ref().is_ok_and(|by| step.connections.contains(&by.as_str())), "{name}: {asked:?}");
    }
}
