//! Two nodes, three pods, real sockets: the kernel layer as a node runs it.
//!
//! Needs root and the eBPF object. One scenario, because the process itself joins a node's cgroup.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use aya::maps::{Array, HashMap, Map, MapData};
use fairlead_abi::{
    Addr16,
    names::{self, globals},
    pod::NearPod,
    service::{ServiceKey, ServiceValue},
};
use fairlead_kernel::features::Helpers;
use fairlead_testkit::{
    Capture, InCgroup, Node, TwoNodes,
    echo::{ANSWER_WAIT, UDP_PORT, ask, connect, serve},
    eventually,
    topology::UPLINK,
};

use crate::{
    cluster::{Cluster, VIP4, VIP6},
    node::RunningNode,
};

#[path = "node/cluster.rs"]
mod cluster;
#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod node;

#[test]
fn pods_of_two_nodes_reach_each_other_by_service() {
    if !node::can_run() {
        return;
    }
    let topology = TwoNodes::new();
    let mut a = RunningNode::start("a", &topology.a);
    let mut b = RunningNode::start("b", &topology.b);
    let client = a.add_pod(1, &["10.244.1.2", "fd00:244:0:1::2"]);
    let same_node = a.add_pod(2, &["10.244.1.3", "fd00:244:0:1::3"]);
    let other_node = b.add_pod(1, &["10.244.2.2", "fd00:244:0:2::2"]);
    let _inside = InCgroup::enter(&a.cgroup().join("client"));
    let mut cluster = Cluster::new(&topology);
    cluster.set_endpoints(&[("a", &same_node), ("b", &other_node)]);
    a.sync(&cluster.view);
    b.sync(&cluster.view);
    serve(&same_node.spec.netns, &same_node.spec.addresses, "same");
    serve(&other_node.spec.netns, &other_node.spec.addresses, "other");

    connections_are_spread_and_show_the_service(&client);
    datagrams_are_answered_by_the_service(&client);
    packets_carry_the_backend_s_address(&topology, &a, &client);
    the_host_reaches_its_pods(&topology, &same_node);
    no_netfilter_rule_exists(&topology);
    a_restart_under_traffic_breaks_nothing(&mut a, &cluster, &client);
    what_somebody_else_deletes_is_noticed_and_comes_back(&mut a, &cluster, &client);
    what_somebody_else_takes_away_is_put_back(&mut a, &topology, &client);
    an_uplink_that_another_interface_replaces_is_taken_up([&mut a, &mut b], &topology, &cluster, &client);
    counters_and_records_tell_of_it(&mut a);
    a_backend_that_leaves_gets_no_more_connections(&mut a, &mut cluster, &client, &same_node);
    a_service_without_endpoints_refuses_at_once(&mut a, &mut cluster, &client);
    pods_whose_addresses_end_alike_are_not_taken_for_each_other(&mut a, &client, &same_node);
    a_pod_that_is_detached_leaves_nothing(&a, &same_node);
}

fn vips(port: u16) -> [SocketAddr; 2] {
    [VIP4, VIP6].map(|vip| SocketAddr::new(vip, port))
}

fn connections_are_spread_and_show_the_service(client: &node::Pod) {
    client.run(|| {
        for vip in vips(80) {
            let mut answers = std::collections::BTreeMap::<String, u32>::new();
            for _ in 0..40 {
                let mut stream = connect(vip).unwrap_or_else(|error| panic!("{vip}: {error}"));
                assert_eq!(stream.peer_addr().expect("connected"), vip, "getpeername shows the service");
                *answers.entry(ask(&mut stream).expect("an answer")).or_default() += 1;
            }
            // Each of two backends is missed by 40 choices once in 2^39.
            assert_eq!(answers.keys().map(String::as_str).collect::<Vec<_>>(), ["other", "same"], "{vip}");
        }
    });
}

fn datagrams_are_answered_by_the_service(client: &node::Pod) {
    client.run(|| {
        for vip in vips(UDP_PORT) {
            let any: IpAddr = if vip.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
            for connected in [false, true] {
                let socket = UdpSocket::bind((any, 0)).expect("binds");
                socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a timeout");
                if connected {
                    socket.connect(vip).expect("connects");
                    assert_eq!(socket.peer_addr().expect("connected"), vip);
                    socket.send(b"?").expect("sends");
                } else {
                    socket.send_to(b"?", vip).expect("sends");
                }
                let (_, from) =
                    socket.recv_from(&mut [0; 8]).unwrap_or_else(|e| panic!("{vip} {connected}: {e}"));
                assert_eq!(from, vip, "the answer comes from the service");
            }
        }
    });
}

fn packets_carry_the_backend_s_address(topology: &TwoNodes, a: &RunningNode, client: &node::Pod) {
    let capture = Capture::start(&topology.a.netns, &client.spec.interface);
    client.run(|| {
        for vip in vips(80) {
            ask(&mut connect(vip).expect("connects")).expect("an answer");
        }
    });
    let pairs = capture.pairs();
    let own = |ip: &IpAddr| client.spec.addresses.contains(ip);
    assert!(pairs.iter().any(|(source, _)| own(source)), "{pairs:?} on {}", client.spec.interface);
    for (source, destination) in pairs {
        assert!(
            ![VIP4, VIP6].contains(&source) && ![VIP4, VIP6].contains(&destination),
            "{source} {destination}"
        );
    }
    drop(capture);
    assert!(a.counters(client).tx_packets > 0);
}

fn the_host_reaches_its_pods(topology: &TwoNodes, pod: &node::Pod) {
    for address in &pod.spec.addresses {
        let to = SocketAddr::new(*address, 8080);
        topology.a.netns.run(|| {
            let answer = connect(to).and_then(|mut stream| ask(&mut stream));
            assert_eq!(answer.unwrap_or_else(|error| panic!("{to}: {error}")), "same");
        });
    }
}

fn no_netfilter_rule_exists(topology: &TwoNodes) {
    for node in [&topology.a, &topology.b] {
        assert_eq!(node.netns.exec("nft", &["list", "ruleset"]).trim(), "");
    }
}

fn a_restart_under_traffic_breaks_nothing(a: &mut RunningNode, cluster: &Cluster, client: &node::Pod) {
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU32::new(0));
    let mut old: Vec<TcpStream> = client.run(|| vips(80).map(|vip| connect(vip).expect("connects")).into());
    let traffic = {
        let (stop, made, pod) = (Arc::clone(&stop), Arc::clone(&made), client.clone());
        thread::spawn(move || {
            pod.run(|| {
                while !stop.load(Ordering::Relaxed) {
                    for vip in vips(80) {
                        let answer = connect(vip).and_then(|mut stream| ask(&mut stream));
                        answer.unwrap_or_else(|error| panic!("a new connection to {vip} failed: {error}"));
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        })
    };
    let some_more =
        |than: u32| eventually("traffic", || (made.load(Ordering::Relaxed) > than + 4).then_some(()));
    for _ in 0..3 {
        some_more(made.load(Ordering::Relaxed));
        let before = a.links();
        a.restart();
        let after = a.links();
        assert_eq!(before.len(), after.len());
        for (name, (link, program)) in &before {
            assert_eq!(after[name].0, *link, "{name} is the same link");
            assert_ne!(after[name].1, *program, "{name} has a new program");
        }
        assert_eq!(a.sync(&cluster.view), 0, "a restart finds everything as it should be");
    }
    some_more(made.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    traffic.join().expect("no connection failed");
    for stream in &mut old {
        ask(stream).expect("a connection from before the restarts works");
    }
}

fn what_somebody_else_deletes_is_noticed_and_comes_back(
    a: &mut RunningNode,
    cluster: &Cluster,
    client: &node::Pod,
) {
    assert_eq!(a.audit(), None, "the maps hold what was planned");
    let map = MapData::from_pin(a.pinned(names::SERVICES.name)).expect("it is pinned");
    let mut map = HashMap::<_, ServiceKey, ServiceValue>::try_from(Map::HashMap(map)).expect("a hash map");
    let keys: Vec<ServiceKey> = map.keys().map(|key| key.expect("reads")).collect();
    keys.iter().for_each(|key| map.remove(key).expect("deletes"));
    assert_eq!(a.audit(), Some(names::SERVICES.name));
    assert_eq!(
        a.sync(&cluster.view),
        2 * keys.len(),
        "each frontend and its range; backends stay where they are"
    );
    assert_eq!(a.audit(), None);
    connections_are_spread_and_show_the_service(client);
}

fn what_somebody_else_takes_away_is_put_back(a: &mut RunningNode, topology: &TwoNodes, client: &node::Pod) {
    assert_eq!(a.repair(), Vec::<String>::new(), "everything is as it should be");
    let from_pod = format!("from_pod-{}", client.spec.interface);
    for link in ["connect4", "sock_ops", "from_uplink-uplink0", "from_overlay-fairlead-vx", from_pod.as_str()]
    {
        a.take_away(link);
    }
    let overlay = || topology.a.netns.ip(&["-o", "link", "show", "fairlead-vx"]);
    let index = overlay().split(':').next().map(str::to_owned);
    topology.a.netns.ip(&["link", "delete", "fairlead-vx"]);
    topology.a.netns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).expect("root may");
    let client_address = SocketAddr::new(VIP4, 80);
    let unserved = client.run(|| connect(client_address));
    assert!(unserved.is_err(), "without the hook nobody translates: {unserved:?}");
    let mut repaired = a.repair();
    repaired.sort();
    let from_pod = format!("the eBPF program from_pod of {}", client.spec.interface);
    let mut expected = [
        "the interface fairlead-vx",
        "the kernel parameter net/ipv4/ip_forward",
        "the eBPF program connect4 of the node's cgroup",
        "the eBPF program sock_ops of the node's cgroup",
        "the eBPF program from_uplink of uplink0",
        "the eBPF program from_overlay of fairlead-vx",
        &from_pod,
    ];
    expected.sort_unstable();
    assert_eq!(repaired, expected);
    assert_eq!(overlay().split(':').next().map(str::to_owned), index, "the programs know it by its index");
    assert_eq!(a.repair(), Vec::<String>::new(), "nothing is put right twice");
    connections_are_spread_and_show_the_service(client);
}

fn an_uplink_that_another_interface_replaces_is_taken_up(
    nodes: [&mut RunningNode; 2],
    topology: &TwoNodes,
    cluster: &Cluster,
    client: &node::Pod,
) {
    let index =
        |node: &Node| node.netns.ip(&["-o", "link", "show", UPLINK]).split(':').next().map(str::to_owned);
    let ends = [&topology.a, &topology.b];
    let before = ends.map(index);
    topology.cut_wire();
    let [a, b] = nodes;
    a.sync(&cluster.view);
    assert_eq!(a.repair(), Vec::<String>::new(), "without an uplink there is nothing to take up");
    topology.renew_wire();
    for ((node, end), before) in [a, b].into_iter().zip(ends).zip(before) {
        let (before, now) = (before.unwrap_or_default(), index(end).unwrap_or_default());
        assert_ne!(before, now);
        let taken_up = format!("the uplink {UPLINK}, which was interface {before} and is {now} now");
        assert_eq!(node.repair(), [taken_up]);
        assert_eq!(node.repair(), Vec::<String>::new(), "nothing is put right twice");
        node.sync(&cluster.view);
    }
    // What still gets through then, the programs of the uplinks have handed over: the stack would not.
    let forward = |value| {
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let write = || std::fs::write(format!("/proc/sys/net/{name}"), value).expect("root may");
            ends.iter().for_each(|end| end.netns.run(write));
        }
    };
    forward("0");
    connections_are_spread_and_show_the_service(client);
    forward("1");
}

fn counters_and_records_tell_of_it(a: &mut RunningNode) {
    for pod in a.pods() {
        let totals = a.counters(pod);
        assert!(totals.rx_packets > 0 && totals.tx_bytes > 0, "{totals:?}");
    }
    let records = eventually("records of connections", || {
        let records = a.take_events();
        (!records.is_empty()).then_some(records)
    });
    let of_service = |record: &fairlead_abi::event::FlowEvent| {
        [VIP4, VIP6].contains(&record.service.to_ip()) && record.service_id != 0
    };
    assert!(records.iter().any(of_service), "{} records, none names the service", records.len());
}

fn a_backend_that_leaves_gets_no_more_connections(
    a: &mut RunningNode,
    cluster: &mut Cluster,
    client: &node::Pod,
    remaining: &node::Pod,
) {
    cluster.set_endpoints(&[("a", remaining)]);
    a.sync(&cluster.view);
    client.run(|| {
        for vip in vips(80) {
            for _ in 0..20 {
                assert_eq!(ask(&mut connect(vip).expect("connects")).expect("an answer"), "same");
            }
        }
    });
}

fn a_service_without_endpoints_refuses_at_once(
    a: &mut RunningNode,
    cluster: &mut Cluster,
    client: &node::Pod,
) {
    cluster.set_endpoints(&[]);
    a.sync(&cluster.view);
    let helpers = Helpers::of_this_kernel().expect("the kernel answers what it has");
    // An old kernel has one error for every refusal, and does not say whose socket it was.
    let refused = if helpers.has(globals::SET_RETVAL) {
        ErrorKind::ConnectionRefused
    } else {
        ErrorKind::PermissionDenied
    };
    let counted = if helpers.has(globals::SOCK_OPS_NETNS) { 2 } else { 0 };
    let before = a.counters(client).connections_refused;
    client.run(|| {
        for vip in vips(80) {
            let error = connect(vip).expect_err("nobody is there");
            assert_eq!(error.kind(), refused, "{vip}");
        }
    });
    assert_eq!(a.counters(client).connections_refused - before, counted);
}

/// The last ten bits of their addresses are the same, and so is their place among the pods that are found at once.
fn pods_whose_addresses_end_alike_are_not_taken_for_each_other(
    a: &mut RunningNode,
    client: &node::Pod,
    same: &node::Pod,
) {
    let alike = a.add_pod(3, &["10.244.5.3", "fd00:244:0:1::403"]);
    serve(&alike.spec.netns, &alike.spec.addresses, "alike");
    let reached = |pod: &node::Pod, name: &str| {
        client.run(|| {
            for address in &pod.spec.addresses {
                let to = SocketAddr::new(*address, 8080);
                let answer = connect(to).and_then(|mut stream| ask(&mut stream));
                assert_eq!(answer.unwrap_or_else(|error| panic!("{to}: {error}")), name);
            }
        });
    };
    reached(same, "same");
    reached(&alike, "alike");
    // One whose place it is leaves and comes again, with another interface.
    a.detach(same);
    reached(&alike, "alike");
    client.run(|| {
        let gone = SocketAddr::new(same.spec.addresses[0], 8080);
        let error = connect(gone).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{gone} is not kept for anybody");
    });
    a.attach(same);
    serve(&same.spec.netns, &same.spec.addresses, "again");
    reached(same, "again");
    reached(&alike, "alike");
    a.detach(&alike);
    reached(same, "again");
    // As if a version that does not know of these places had taken the pod away.
    let addr = Addr16::from(alike.spec.addresses[0]);
    let index = NearPod::index(&addr);
    let map = MapData::from_pin(a.pinned(names::NEAR_PODS.name)).expect("it is pinned");
    let mut near = Array::<_, NearPod>::try_from(Map::Array(map)).expect("it is an array");
    let kept = near.get(&index, 0).expect("it is within the array");
    near.set(index, NearPod { addr, ..kept }, 0).expect("there is room");
    a.restart();
    assert_eq!(near.get(&index, 0).expect("as above").addr, Addr16::from(same.spec.addresses[0]));
    reached(same, "again");
}

fn a_pod_that_is_detached_leaves_nothing(a: &RunningNode, pod: &node::Pod) {
    let interface = pod.spec.interface.clone();
    let netns = pod.spec.netns.clone();
    a.detach(pod);
    a.detach(pod);
    assert!(!a.netns_links().contains(&interface));
    assert!(!netns.exists());
}
