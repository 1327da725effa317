//! Maps at their limit: one that lets go of old entries counts them, and one that does not refuses what is new and
//! nothing else.
//!
//! Needs root and the eBPF object. One scenario, because the process itself joins a node's cgroup.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use aya::maps::{HashMap, Map, MapData};
use fairlead_abi::{Addr16, names, pod::PodValue};
use fairlead_kernel::{Capacities, LruFill, Timeouts, clock::monotonic_ns};
use fairlead_model::{Change, Node, Prefix, Revision, Update, View};
use fairlead_testkit::{
    InCgroup,
    echo::{UDP_PORT, ask, connect},
};

use crate::{
    cluster::{VIP4, VIP6},
    node::{Pod, RunningNode},
    served::Served,
};

#[path = "node/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod node;
#[path = "node/served.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod served;

/// The other service, as an IPv6 socket asks it.
const VIP4_MAPPED: IpAddr = IpAddr::V6(Ipv4Addr::new(10, 96, 0, 20).to_ipv6_mapped());

/// Sockets that each remember another service and its backend, two entries: more than the map holds.
const SOCKETS: u64 = names::ORIGINS.capacity as u64 / 2 + 1_000;

/// Fragmented packets, an entry each: more than the map holds, whose CPUs each keep some places for themselves.
const PACKETS: u64 = 2 * names::FRAGMENTS.capacity as u64;

/// How many routes the map holds.
const ROUTES: u32 = 6;

#[test]
fn a_full_map_refuses_or_counts() {
    if !node::can_run() {
        return;
    }
    let Served { a, client, .. } = &mut Served::new(Capacities { routes: ROUTES, ..Capacities::default() });
    fragmented_packets_that_are_let_go_of_are_counted(a, client);
    let inside = InCgroup::enter(&a.cgroup().join("client"));
    sockets_that_are_let_go_of_are_counted(a, client);
    a_pod_without_a_place_is_refused_and_the_others_go_on(a, client);
    drop(inside);
    routes_that_fit_are_there_and_can_be_replaced(a);
}

/// The client's sockets are not translated here, its packets are.
fn fragmented_packets_that_are_let_go_of_are_counted(a: &mut RunningNode, client: &Pod) {
    let_go_of(a, names::FRAGMENTS, 1, PACKETS, |packets| {
        client.run(|| {
            let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).expect("binds");
            for _ in 0..packets {
                socket.send_to(&[b'?'; 2_000], (VIP4, UDP_PORT)).expect("sends");
            }
        });
    });
}

/// Each asks two services; it keeps the first itself.
fn sockets_that_are_let_go_of_are_counted(a: &mut RunningNode, client: &Pod) {
    let_go_of(a, names::ORIGINS, 2, SOCKETS, |sockets| {
        client.run(|| {
            for _ in 0..sockets {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("binds");
                for vip in [VIP6, VIP4_MAPPED] {
                    socket.send_to(b"?", (vip, UDP_PORT)).expect("sends");
                }
            }
        });
    });
}

/// Sends few and then many, which make `each` so many entries in the map.
fn let_go_of(a: &mut RunningNode, map: names::MapSpec, each: u64, many: u64, send: impl Fn(u64)) {
    const FEW: u64 = 100;
    let index = names::LRU.iter().position(|lru| lru.name == map.name).expect("it lets go");
    let mut entries = || a.collect(monotonic_ns(), &Timeouts::default()).lru[index];
    assert_eq!(entries(), LruFill::default());
    send(FEW);
    assert_eq!(entries(), LruFill { entries: each * FEW, evicted: 0 });
    send(many);
    let full = entries();
    assert_eq!(full.entries + full.evicted, each * (many + FEW), "none is lost without being counted");
    assert!(full.evicted > 0 && full.entries <= u64::from(map.capacity), "{full:?}");
}

/// What somebody left fills the map but for a place that the next pod would need two of.
fn a_pod_without_a_place_is_refused_and_the_others_go_on(a: &RunningNode, client: &Pod) {
    let map = MapData::from_pin(a.pinned(names::PODS.name)).expect("it is pinned");
    let mut map = HashMap::<_, Addr16, PodValue>::try_from(Map::HashMap(map)).expect("a hash map");
    let strays: Vec<Addr16> = (0..names::PODS.capacity - 1 - map.keys().count() as u32)
        .map(|number| Addr16::from(IpAddr::from(0x0a63_0000_u32.wrapping_add(number).to_be_bytes())))
        .collect();
    for stray in &strays {
        map.insert(stray, PodValue::default(), 0).expect("there is room");
    }
    let more = a.place(3, &["10.244.1.4", "fd00:244:0:1::4"]);
    let error = a.try_attach(&more).expect_err("there is room for one address").to_string();
    assert!(error.contains("PODS") && error.contains("the map is full"), "{error}");
    let answer = client.run(|| connect(SocketAddr::new(VIP4, 80)).and_then(|mut stream| ask(&mut stream)));
    assert_eq!(answer.expect("the others go on"), "server");
    for stray in &strays {
        map.remove(stray).expect("it was there");
    }
    a.try_attach(&more).expect("there is room again");
    a.detach(&more);
}

fn routes_that_fit_are_there_and_can_be_replaced(a: &mut RunningNode) {
    let node = |number: u8, host: u8| {
        Change::PutNode(Node {
            name: format!("n{number}"),
            addresses: vec![IpAddr::from([172, 29, 0, host])],
            pod_networks: vec![Prefix { address: IpAddr::from([10, 245, number, 0]), length: 24 }],
            ..Node::default()
        })
    };
    let mut view = View::default();
    let mut apply = |a: &mut RunningNode, snapshot: bool, changes: Vec<Change>| {
        let revision = Revision { epoch: 1, sequence: view.revision().sequence + 1 };
        view.apply(Update { revision, snapshot, changes });
        a.sync(&view);
        a.route_map()
    };
    let hop = |routes: &BTreeMap<Prefix, Option<IpAddr>>, number: u8| {
        routes.get(&Prefix { address: IpAddr::from([10, 245, number, 0]), length: 24 }).copied().flatten()
    };
    let host = |last: u8| Some(IpAddr::from([172, 29, 0, last]));
    let full = apply(a, true, (1..=9).map(|number| node(number, 100 + number)).collect());
    assert_eq!((full.len(), hop(&full, 5), hop(&full, 6)), (ROUTES as usize - 1, host(105), None));
    // One of them moves, and one goes.
    let moved = apply(a, false, vec![node(5, 205), Change::DeleteNode("n1".into())]);
    assert_eq!((moved.len(), hop(&moved, 5), hop(&moved, 6)), (ROUTES as usize - 1, host(205), host(106)));
}
