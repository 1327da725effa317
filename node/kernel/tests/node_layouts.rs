//! Maps of other sizes and of another version take over while clients ask without a pause.
//!
//! Needs root and the eBPF object. One scenario, because the process itself joins a node's cgroup, and leaves it for clients
//! whose packets are translated one by one.

use std::net::TcpStream;

use fairlead_abi::names;
use fairlead_kernel::Capacities;
use fairlead_testkit::{
    InCgroup,
    echo::{ask, connect},
};

use crate::{
    cluster::Cluster,
    load::{Load, vips},
    node::{Pod, RunningNode},
    served::Served,
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
#[path = "node/served.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod served;

/// One change of maps.
struct Change {
    what: &'static str,
    act: fn(&mut RunningNode),
    /// Whether frontends and backends stay where they are.
    stays: bool,
    /// Whether sockets are translated; else packets are, and the connections go over to the new maps.
    hooks: bool,
}

const DEFAULT: Capacities = Capacities {
    services: names::SERVICES.capacity,
    slots: names::SLOTS.capacity,
    backends: names::BACKENDS.capacity,
    affinity: names::AFFINITY.capacity,
    conntrack: names::CONNTRACK.capacity,
    routes: names::ROUTES.capacity,
};
const MORE_CONNECTIONS: Capacities = Capacities { conntrack: 2 * names::CONNTRACK.capacity, ..DEFAULT };
const FEWER_BACKENDS: Capacities = Capacities { backends: 1_024, ..DEFAULT };

/// In this order: each begins with the maps that the one before has left.
const CHANGES: [Change; 9] = [
    Change { what: "larger", act: |a| a.restart_with(MORE_CONNECTIONS), stays: true, hooks: true },
    Change { what: "smaller", act: |a| a.restart_with(DEFAULT), stays: true, hooks: false },
    Change { what: "larger", act: |a| a.restart_with(MORE_CONNECTIONS), stays: true, hooks: false },
    Change { what: "fewer backends", act: |a| a.restart_with(FEWER_BACKENDS), stays: false, hooks: false },
    Change { what: "former version", act: |a| a.restart_from_layout("2"), stays: true, hooks: false },
    Change { what: "former version", act: |a| a.restart_from_layout("2"), stays: true, hooks: true },
    Change { what: "unknown version", act: |a| a.restart_from_layout("1"), stays: false, hooks: true },
    Change { what: "later version", act: |a| a.restart_from_layout("99"), stays: false, hooks: true },
    Change { what: "no longer fewer", act: |a| a.restart_with(DEFAULT), stays: false, hooks: true },
];

#[test]
fn maps_of_another_layout_take_over_without_a_gap() {
    if !node::can_run() {
        return;
    }
    let Served { a, client, cluster, .. } = &mut Served::new(Capacities::default());
    for change in &CHANGES {
        let inside = change.hooks.then(|| InCgroup::enter(&a.cgroup().join("client")));
        let mut streams: Vec<TcpStream> =
            client.run(|| vips().map(|vip| connect(vip).expect("connects")).into_iter().collect());
        under_load(a, cluster, client, change);
        for stream in &mut streams {
            let answer = ask(stream).unwrap_or_else(|error| panic!("{}: {error}", change.what));
            assert_eq!(answer, "server", "{}: a stream goes on", change.what);
        }
        drop(inside);
    }
}

fn under_load(a: &mut RunningNode, cluster: &Cluster, client: &Pod, change: &Change) {
    let Change { what, act, stays, hooks } = change;
    let load = if *hooks { Load::new() } else { Load::on_one_connection() };
    load.around(client, || {
        load.some_more();
        let before = a.links();
        act(a);
        let programs = |a: &RunningNode| a.links().into_iter().map(|(name, (_, program))| (name, program));
        let unchanged = programs(a).all(|(name, program)| before[&name].1 == program);
        assert!(unchanged, "{what}: the old programs run until the new maps are filled");
        load.some_more();
        assert_eq!(a.sync(&cluster.view) == 0, *stays, "{what}: whether the new maps were empty");
        let changed = programs(a).all(|(name, program)| before[&name].1 != program);
        assert!(changed, "{what}: all links have new programs");
        load.some_more();
        a.restart();
        assert_eq!(a.sync(&cluster.view), 0, "{what}: the next start finds the new maps");
    });
    eprintln!("{what}, hooks {hooks}: {} answers", load.made());
}
