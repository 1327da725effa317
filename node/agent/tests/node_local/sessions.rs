//! Session affinity: one for each client and port of the service, whichever address it asks; put on and off while it is used.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use fairlead_model::TrafficPolicy;
use fairlead_testkit::{
    echo::{ANSWER_WAIT, ask, connect, datagrams, exchange},
    netns::run_in,
};

use crate::{
    BALANCER, NODE_PORTS, State, Tier, World,
    cluster::{ECHO, State::Ready, VIP4, VIP6},
    ip,
};

/// How often is asked where it is shown that always the same one answers.
const TIMES: usize = 12;

/// How often at most where two must have answered: by chance one of them does not in one of 2^100 runs.
const TIMES_MAX: usize = 100;

pub(crate) const ENDPOINTS: [(&str, State); 2] = [("three", Ready), ("away", Ready)];

/// Who asks, where from, for what: addresses of one port.
struct Asking {
    what: String,
    netns: PathBuf,
    addresses: Vec<SocketAddr>,
    is_udp: bool,
}

impl Asking {
    /// Who answers at an address, each time on a new socket.
    fn ask(&self, to: SocketAddr) -> String {
        let answer = run_in(&self.netns, || {
            if self.is_udp {
                return exchange(&datagrams(&self.netns, to.is_ipv4(), 0, ANSWER_WAIT), to);
            }
            connect(to).and_then(|mut stream| ask(&mut stream))
        });
        answer.unwrap_or_else(|error| panic!("{} at {to}: {error}", self.what))
    }

    /// The only one who answers, at whichever address.
    fn only_one(&self, when: &str) -> String {
        let asked: Vec<_> =
            self.addresses.iter().flat_map(|to| (0..TIMES).map(|_| (*to, self.ask(*to)))).collect();
        let names: BTreeSet<_> = asked.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), 1, "{} when {when}: {asked:?}", self.what);
        asked[0].1.clone()
    }

    /// Both answer, at each address.
    fn both(&self, when: &str) {
        for to in &self.addresses {
            let mut names = BTreeSet::new();
            let enough = (0..TIMES_MAX).any(|_| {
                names.insert(self.ask(*to));
                names.len() == 2
            });
            assert!(enough, "{} at {to} when {when}: only {names:?} answers", self.what);
        }
    }
}

fn clients(world: &World, tier: Tier) -> Vec<Asking> {
    let mut clients = Vec::new();
    for (family, vip) in [VIP4, VIP6].into_iter().enumerate() {
        for (is_udp, port) in [(false, 80), (true, 53)] {
            let node_port = NODE_PORTS[usize::from(is_udp)];
            let outside = vec![
                SocketAddr::new(world.topology.a.addresses[family], node_port),
                SocketAddr::new(ip(BALANCER[family]), port),
            ];
            let inside = [&[SocketAddr::new(vip, port)], &outside[..]].concat();
            let protocol = if is_udp { "UDP" } else { "TCP" };
            clients.push(Asking {
                what: format!("a pod, {protocol}, {tier:?}"),
                netns: world.client.netns.clone(),
                addresses: inside,
                is_udp,
            });
            if tier == Tier::Links {
                let what = format!("outside, {protocol}");
                clients.push(Asking { what, netns: world.outside(), addresses: outside, is_udp });
            }
        }
    }
    clients
}

/// Affinity is put on, and off, and on again; then the endpoint that a client has stayed with goes and comes back.
pub(crate) fn hold_over_all_addresses(world: &mut World, tier: Tier) {
    (world.service.internal_policy, world.service.external_policy) =
        (TrafficPolicy::Cluster, TrafficPolicy::Cluster);
    for (name, _) in ENDPOINTS {
        if !world.places.contains_key(name) {
            world.begin(name);
        }
    }
    let clients = clients(world, tier);
    let switch = |world: &mut World, secs| {
        world.service.affinity_secs = secs;
        world.tell(&ENDPOINTS, &ECHO);
    };
    switch(world, 0);
    clients.iter().for_each(|client| client.both("there is no affinity"));
    let mut held = hold(world);
    switch(world, 10_800);
    clients.iter().for_each(|client| drop(client.only_one("it is put on")));
    goes_on(&mut held, "affinity is put on");
    switch(world, 0);
    clients.iter().for_each(|client| client.both("it is put off"));
    goes_on(&mut held, "affinity is put off");
    switch(world, 10_800);
    let stayed: Vec<_> = clients.iter().map(|client| client.only_one("it is put on again")).collect();
    for (gone, left) in [(0, 1), (1, 0)] {
        world.tell(&ENDPOINTS[left..=left], &ECHO);
        let names: Vec<_> = clients.iter().map(|client| client.only_one("one is gone")).collect();
        assert!(names.iter().all(|name| name == ENDPOINTS[left].0), "{names:?}");
        world.tell(&ENDPOINTS, &ECHO);
        let back: Vec<_> = clients.iter().map(|client| client.only_one("it is back")).collect();
        let (gone, left) = (ENDPOINTS[gone].0, ENDPOINTS[left].0);
        assert!(back.iter().all(|name| name == left), "{gone} is another one now: {back:?}, once {stayed:?}");
    }
    switch(world, 0);
}

/// A connection of the pod that goes on.
fn hold(world: &World) -> (TcpStream, String) {
    let mut stream =
        run_in(&world.client.netns, || connect(SocketAddr::new(VIP4, 80)).expect("it is served"));
    let name = ask(&mut stream).expect("an answer");
    (stream, name)
}

fn goes_on((stream, name): &mut (TcpStream, String), when: &str) {
    assert_eq!(ask(stream).ok().as_ref(), Some(&*name), "a connection breaks when {when}");
}
