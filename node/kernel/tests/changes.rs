//! A node whose backends and agent change while clients connect without a pause.
//!
//! Needs root and the eBPF object. One scenario, because the process itself joins a node's cgroup.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{ask, connect, serve},
};

use crate::{
    cluster::Cluster,
    load::{Load, vips},
    node::{Pod, RunningNode},
};

#[path = "node/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node/load.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod load;
#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod node;

/// How often the backends change under load.
const CHANGES: usize = 10_000;
/// How often the agent is killed and started again under load.
const RESTARTS: usize = 100;

const NAMES: [&str; 3] = ["one", "two", "three"];

#[test]
fn changes_and_restarts_under_load_are_not_seen() {
    if !node::can_run() {
        return;
    }
    let topology = TwoNodes::new();
    let mut a = RunningNode::start("a", &topology.a);
    let client = a.add_pod(1, &["10.244.1.2", "fd00:244:0:1::2"]);
    let servers = [
        a.add_pod(2, &["10.244.1.3", "fd00:244:0:1::3"]),
        a.add_pod(3, &["10.244.1.4", "fd00:244:0:1::4"]),
        a.add_pod(4, &["10.244.1.5", "fd00:244:0:1::5"]),
    ];
    let _inside = InCgroup::enter(&a.cgroup().join("client"));
    let mut cluster = Cluster::new(&topology);
    set(&mut cluster, &servers, &[0, 1, 2]);
    a.sync(&cluster.view);
    for (server, name) in servers.iter().zip(NAMES) {
        serve(&server.spec.netns, &server.spec.addresses, name);
    }
    let mut old: Vec<TcpStream> =
        client.run(|| vips().map(|vip| connect(vip).expect("connects")).into_iter().collect());

    backends_change_and_every_connection_gets_an_old_or_a_new_one(&mut a, &mut cluster, &client, &servers);
    the_agent_restarts_and_nobody_notices(&mut a, &cluster, &client);
    for stream in &mut old {
        ask(stream).expect("a connection from before all this works");
    }
}

fn set(cluster: &mut Cluster, servers: &[Pod; 3], chosen: &[usize]) {
    let pods: Vec<_> = chosen.iter().map(|index| ("a", &servers[*index])).collect();
    cluster.set_endpoints(&pods);
}

fn backends_change_and_every_connection_gets_an_old_or_a_new_one(
    a: &mut RunningNode,
    cluster: &mut Cluster,
    client: &Pod,
    servers: &[Pod; 3],
) {
    // The set of each change, in order; one is in the kernel, the next may be.
    let sets: [&[usize]; 6] = [&[0], &[1, 2], &[2], &[0, 1, 2], &[1], &[0, 2]];
    let history: Mutex<Vec<BTreeSet<&str>>> = Mutex::new(vec![NAMES.into()]);
    let committed = AtomicUsize::new(0);
    let before = || committed.load(Ordering::SeqCst);
    let after = |seen: usize, answer: &str| {
        let history = history.lock().expect("no panic");
        let allowed = history[seen..].iter().any(|set| set.contains(answer));
        assert!(allowed, "{answer} answered, of {:?}", &history[seen..]);
    };
    let load = Load::watched(&before, &after);
    load.around(client, || {
        for change in 0..CHANGES {
            let chosen = sets[change % sets.len()];
            set(cluster, servers, chosen);
            history.lock().expect("no panic").push(chosen.iter().map(|index| NAMES[*index]).collect());
            a.sync_changes(&cluster.view);
            committed.fetch_add(1, Ordering::SeqCst);
        }
        load.some_more();
    });
    let made = load.made();
    eprintln!("{CHANGES} changes while {made} connections were made");
}

fn the_agent_restarts_and_nobody_notices(a: &mut RunningNode, cluster: &Cluster, client: &Pod) {
    let load = Load::new();
    let mut streams: Vec<TcpStream> =
        client.run(|| vips().map(|vip| connect(vip).expect("connects")).into_iter().collect());
    load.around(client, || {
        for _ in 0..RESTARTS {
            load.some_more();
            a.restart();
            assert_eq!(a.sync(&cluster.view), 0, "a restart finds everything as it should be");
            streams.iter_mut().for_each(|stream| drop(ask(stream).expect("a stream goes on")));
        }
    });
}
