//! Load balancers outside: one that sends to the nodes whose health checks succeed, while the endpoints are replaced, and one that
//! clients of the cluster must ask itself.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use fairlead_model::TrafficPolicy;
use fairlead_testkit::{
    Node,
    echo::{ANSWER_WAIT, ask, connect, datagrams, exchange, serve_at},
    eventually,
    netns::run_in,
};

use crate::{
    BALANCER, CHECK_PORT, FIXED_PORT, NODE_PORTS, State, Tier, World,
    cluster::{
        ECHO,
        State::{Ready, Terminating},
    },
    ip,
    load::{Client, Load, StopOnDrop},
    sessions::ENDPOINTS,
};

/// What happens, the endpoints, the nodes that pass from then on, the pod that ends then.
type Step = (&'static str, &'static [(&'static str, State)], [bool; 2], Option<&'static str>);

#[rustfmt::skip]
const STEPS: &[Step] = &[
    ("one comes on the other node", &[("one", Ready), ("far", Ready)], [true, true], None),
    ("the old one terminates", &[("one", Terminating), ("far", Ready)], [false, true], None),
    ("and ends", &[("far", Ready)], [false, true], Some("one")),
    ("one comes here", &[("two", Ready), ("far", Ready)], [true, true], None),
    ("the other one terminates", &[("two", Ready), ("far", Terminating)], [true, false], None),
    ("and ends, too", &[("two", Ready)], [true, false], Some("far")),
    ("one comes there once more", &[("two", Ready), ("away", Ready)], [true, true], None),
];

/// What a load balancer knows of the nodes.
struct Looked {
    nodes: [SocketAddr; 2],
    passes: [AtomicBool; 2],
    stop: AtomicBool,
}

impl Looked {
    /// Looks until it is told to stop.
    fn look(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            for (node, passes) in self.nodes.iter().zip(&self.passes) {
                passes.store(check(*node).is_ok_and(|passes| passes), Ordering::SeqCst);
            }
        }
    }

    /// Waits until it knows that of the nodes.
    fn wait_for(&self, wanted: [bool; 2]) {
        let now = || self.passes.each_ref().map(|passes| passes.load(Ordering::SeqCst));
        eventually("the load balancer has looked", || (now() == wanted).then_some(()));
    }
}

/// Whether a node's health check answers with 200.
fn check(node: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&node, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    write!(stream, "GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}

/// A client of the load balancer.
struct Balanced<'a> {
    looked: &'a Looked,
    netns: PathBuf,
    /// Node ports of a family on the nodes.
    nodes: [SocketAddr; 2],
    datagrams: Option<UdpSocket>,
    asked: AtomicUsize,
}

impl Client for Balanced<'_> {
    type Step = ();

    fn what(&self) -> String {
        format!("{} balanced over {:?}", if self.datagrams.is_some() { "UDP" } else { "TCP" }, self.nodes)
    }

    fn netns(&self) -> &Path {
        &self.netns
    }

    /// Whoever answers at a node that passes, one after the other.
    fn ask(&self) -> io::Result<String> {
        let passing: Vec<_> = self.nodes.iter().zip(&self.looked.passes).collect();
        let passing: Vec<_> =
            passing.into_iter().filter(|(_, passes)| passes.load(Ordering::SeqCst)).collect();
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        let (to, _) = passing.get(turn % passing.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
        match &self.datagrams {
            Some(socket) => exchange(socket, **to),
            None => connect(**to).and_then(|mut stream| ask(&mut stream)),
        }
    }

    fn may_answer(&self, (): &()) -> Vec<&'static str> {
        vec!["one", "two", "far", "away"]
    }
}

/// An endpoint that terminates serves, while the load balancer finds out that it should look for another.
pub(crate) fn a_rolling_update_loses_nobody(world: &mut World) {
    world.service.external_policy = TrafficPolicy::Local;
    world.service.health_check_port = CHECK_PORT;
    for name in ["one", "two"] {
        if !world.places.contains_key(name) {
            world.begin(name);
        }
    }
    world.tell(&[("one", Ready)], &ECHO);
    let outside = world.outside();
    let at = |family: usize, port| {
        [&world.topology.a, &world.topology.b].map(|node| SocketAddr::new(node.addresses[family], port))
    };
    let looked =
        Looked { nodes: at(0, CHECK_PORT), passes: Default::default(), stop: AtomicBool::new(false) };
    let mut clients = Vec::new();
    for family in [0, 1] {
        for is_udp in [false, true] {
            let port = FIXED_PORT + u16::try_from(family).expect("few");
            clients.push(Balanced {
                looked: &looked,
                netns: outside.clone(),
                nodes: at(family, NODE_PORTS[usize::from(is_udp)]),
                datagrams: is_udp.then(|| datagrams(&outside, family == 0, port, ANSWER_WAIT)),
                asked: AtomicUsize::new(0),
            });
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| run_in(&outside, || looked.look()));
        let _stop = StopOnDrop(&looked.stop);
        looked.wait_for([true, false]);
        let load = Load::new(clients, ());
        load.while_asking(|| {
            for (what, endpoints, passes, ends) in STEPS {
                load.step(what, (), || world.tell(endpoints, &ECHO));
                looked.wait_for(*passes);
                // Whoever was on the way to a node has come back.
                load.some_more();
                if let Some(name) = ends {
                    world.end(name);
                    load.some_more();
                }
            }
        });
    });
}

/// With `ipMode: Proxy` its addresses are not the nodes' to answer for, and may become so, and again not.
pub(crate) fn an_address_of_its_own_is_left_to_it(world: &mut World, tier: Tier) {
    let outside = &world.topology.client.netns;
    let networks = ["10.244.1.0/24", "fd00:244:0:1::/64"];
    for (family, address) in BALANCER.into_iter().enumerate() {
        let (node, machine) = (&world.topology.a, &world.topology.client);
        let via = |of: &Node| of.addresses[family].to_string();
        outside.ip(&["route", "del", address]);
        let host = format!("{address}/{}", if family == 0 { 32 } else { 128 });
        outside.ip(&["address", "add", &host, "dev", "lo"]);
        outside.ip(&["route", "replace", networks[family], "via", &via(node)]);
        node.netns.ip(&["route", "replace", address, "via", &via(machine)]);
    }
    // Only once: its servers live as long as the test.
    if tier == Tier::Links {
        serve_at(&outside.path(), &BALANCER.map(ip), [80, 53], "balancer");
    }
    let endpoints = ENDPOINTS.map(|(name, _)| name);
    for (addresses, answering) in
        [(&BALANCER[..], &endpoints[..]), (&[], &["balancer"]), (&BALANCER, &endpoints), (&[], &["balancer"])]
    {
        world.service.load_balancer_addresses = addresses.iter().map(|text| ip(text)).collect();
        world.tell(&ENDPOINTS, &ECHO);
        for address in BALANCER.map(ip) {
            let netns = &world.client.netns;
            let tcp = run_in(netns, || connect(SocketAddr::new(address, 80)).and_then(|mut to| ask(&mut to)));
            let socket = datagrams(netns, address.is_ipv4(), 0, ANSWER_WAIT);
            let udp = run_in(netns, || exchange(&socket, SocketAddr::new(address, 53)));
            for answer in [tcp, udp] {
                let right = answer.as_ref().is_ok_and(|name| answering.contains(&name.as_str()));
                assert!(right, "{tier:?}, {address} with {addresses:?}: {answer:?} instead of {answering:?}");
            }
        }
    }
    for (family, address) in BALANCER.into_iter().enumerate() {
        let outside = &world.topology.client.netns;
        let host = format!("{address}/{}", if family == 0 { 32 } else { 128 });
        outside.ip(&["address", "del", &host, "dev", "lo"]);
        outside.ip(&["route", "add", address, "via", &world.topology.a.addresses[family].to_string()]);
        world.topology.a.netns.ip(&["route", "del", address]);
    }
    world.service.load_balancer_addresses = BALANCER.map(ip).to_vec();
}
