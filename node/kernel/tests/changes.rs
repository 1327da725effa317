//! A node whose backends, agent and maps change while clients connect without a pause.
//!
//! Needs root and the eBPF object. One scenario, because the process itself joins a node's cgroup.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use fairlead_kernel::Capacities;
use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{ask, connect, serve},
    eventually,
};

use crate::{
    cluster::{Cluster, VIP4, VIP6},
    node::{Pod, RunningNode},
};

#[path = "node/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node/running.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod node;

/// How often the backends change under load.
const CHANGES: usize = 10_000;
/// How often the agent is killed and started again under load.
const RESTARTS: usize = 100;
/// Connections of each client between two restarts.
const BETWEEN: usize = 3;

const NAMES: [&str; 3] = ["one", "two", "three"];

#[test]
fn changes_and_restarts_under_load_are_not_seen() {
    if !can_run() {
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
    maps_of_another_layout_take_over_without_a_gap(&mut a, &cluster, &client);
    for stream in &mut old {
        ask(stream).expect("a connection from before all this works");
    }
}

/// True when the machine can run this; a machine that must (`CI=true`) fails instead of skipping.
fn can_run() -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if fairlead_kernel::bpf::object::embedded().is_err() {
        "the eBPF object (cargo xtask build)"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "this test needs {missing}");
    eprintln!("skipped: this test needs {missing}");
    false
}

fn vips() -> [SocketAddr; 2] {
    [VIP4, VIP6].map(|vip| SocketAddr::new(vip, 80))
}

fn set(cluster: &mut Cluster, servers: &[Pod; 3], chosen: &[usize]) {
    let pods: Vec<_> = chosen.iter().map(|index| ("a", &servers[*index])).collect();
    cluster.set_endpoints(&pods);
}

/// Clients that connect until they are dropped; every connection must be answered.
struct Load<'a> {
    stop: AtomicBool,
    made: AtomicUsize,
    /// What a client looks at before a connection, and what it says afterwards of that and of who has answered.
    before: &'a (dyn Fn() -> usize + Sync),
    after: &'a (dyn Fn(usize, &str) + Sync),
}

impl Load<'_> {
    /// Runs `act` while clients connect.
    fn around(&self, client: &Pod, act: impl FnOnce()) {
        thread::scope(|scope| {
            for vip in [vips()[0], vips()[1], vips()[0]] {
                scope.spawn(move || client.run(|| self.connect_on(vip)));
            }
            // The clients end also when something fails here.
            let ended = StopOnDrop(&self.stop);
            act();
            drop(ended);
        });
    }

    fn connect_on(&self, vip: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let seen = (self.before)();
            let answer = connect(vip).and_then(|mut stream| ask(&mut stream));
            let answer = answer.unwrap_or_else(|error| panic!("a new connection to {vip} failed: {error}"));
            (self.after)(seen, &answer);
            self.made.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for some more connections.
    fn some_more(&self) {
        let than = self.made.load(Ordering::Relaxed) + 3 * BETWEEN;
        eventually("traffic", || (self.made.load(Ordering::Relaxed) >= than).then_some(()));
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
    let load = Load {
        stop: AtomicBool::new(false),
        made: AtomicUsize::new(0),
        before: &|| committed.load(Ordering::SeqCst),
        after: &|seen, answer| {
            let history = history.lock().expect("no panic");
            let allowed = history[seen..].iter().any(|set| set.contains(answer));
            assert!(allowed, "{answer} answered, of {:?}", &history[seen..]);
        },
    };
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
    let made = load.made.load(Ordering::Relaxed);
    eprintln!("{CHANGES} changes while {made} connections were made");
}

fn the_agent_restarts_and_nobody_notices(a: &mut RunningNode, cluster: &Cluster, client: &Pod) {
    let load =
        Load { stop: AtomicBool::new(false), made: AtomicUsize::new(0), before: &|| 0, after: &|_, _| {} };
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

fn maps_of_another_layout_take_over_without_a_gap(a: &mut RunningNode, cluster: &Cluster, client: &Pod) {
    let load =
        Load { stop: AtomicBool::new(false), made: AtomicUsize::new(0), before: &|| 0, after: &|_, _| {} };
    load.around(client, || {
        let before = a.links();
        a.restart_with(Capacities { conntrack: 4_096, ..Capacities::default() });
        let programs = |a: &RunningNode| a.links().into_iter().map(|(name, (_, program))| (name, program));
        let unchanged = programs(a).all(|(name, program)| before[&name].1 == program);
        assert!(unchanged, "the old programs run until the new maps are filled");
        load.some_more();
        assert!(a.sync(&cluster.view) > 0, "the new maps were empty");
        let changed = programs(a).all(|(name, program)| before[&name].1 != program);
        assert!(changed, "all links have new programs");
        load.some_more();
        a.restart();
        assert_eq!(a.sync(&cluster.view), 0, "and the next start finds the new maps");
    });
}
