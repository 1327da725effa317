//! `fairlead proxy` on two nodes, killed again and again and fed without a pause, while everybody connects: real processes,
//! SIGKILL, programs replaced each time. Needs root.
//!
//! Clients are processes of a node (sockets under its hooks), and a machine outside that uses a node port of the first node;
//! backends are processes of both nodes.

#[path = "e2e_proxy/cluster.rs"]
mod cluster;
#[path = "e2e_proxy/load.rs"]
mod load;

use anyhow::Result;
use fairlead_bench::{cluster::binary, feed::ScriptedFeed, proxy::Proxy};
use fairlead_testkit::{NodesAndClient, echo::serve};

use crate::{
    cluster::Cluster,
    load::{Inside, Outside},
};

/// How often an agent is killed and started again under load; each start replaces all programs.
const RESTARTS: u64 = 100;
/// How often the backends change under load.
const CHANGES: usize = 10_000;

/// Both nodes with their proxies, the feed that they read, and their backends.
struct World {
    cluster: Cluster,
    feed: ScriptedFeed,
    proxies: [Proxy; 2],
    topology: NodesAndClient,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let topology = NodesAndClient::new();
        let nodes = [&topology.a, &topology.b];
        for (node, name) in nodes.into_iter().zip(["a", "b"]) {
            serve(&node.netns.path(), &node.addresses, name);
        }
        let mut cluster = Cluster::new(nodes.map(|node| node.addresses.clone()));
        let feed = ScriptedFeed::start(&directory.path().join("feed.sock"), cluster.snapshot())?;
        let binary = binary()?;
        // All backends are processes of nodes, and both nodes run the proxy: clients' addresses can be kept.
        let flags = ["--forwarding=encapsulated"];
        let start = |name, node| Proxy::start(&binary, name, node, &flags, directory.path());
        let proxies = [start("a", &topology.a)?, start("b", &topology.b)?];
        for proxy in &proxies {
            proxy.until_applied(1)?;
        }
        Ok(Self { cluster, feed, proxies, topology, _directory: directory })
    }
}

#[test]
fn agents_killed_a_hundred_times_under_load_fail_no_connection_and_break_no_stream() -> Result<()> {
    let mut world = World::new()?;
    let outside = Outside::start(&world.topology);
    let inside = Inside::start(&world.proxies[0], &world.topology.a)?;
    for restart in 0..RESTARTS {
        // The second node follows what the first one hands over.
        let proxy = &mut world.proxies[usize::from(restart % 4 == 3)];
        outside.some_more();
        proxy.kill_and_restart()?;
        proxy.until_applied(1)?;
    }
    outside.some_more();
    let (inside, outside) = (inside.stop()?, outside.stop());
    println!("{RESTARTS} restarts: inside {inside}; outside {outside}");
    Ok(())
}

#[test]
fn backends_that_change_ten_thousand_times_refuse_nobody_and_are_never_of_an_older_set() -> Result<()> {
    let mut world = World::new()?;
    let outside = Outside::start(&world.topology);
    let inside = Inside::start(&world.proxies[0], &world.topology.a)?;
    let sets: [&[usize]; 4] = [&[0], &[0, 1], &[1], &[1, 0]];
    for change in 0..CHANGES {
        let update = world.cluster.set_backends(sets[change % sets.len()]);
        world.feed.send(update);
        if change % 100 == 99 {
            // Who is not in the last set and not in the one before is not answered by either: checked where it is quiet.
            let sequence = world.cluster.sequence();
            for proxy in &world.proxies {
                proxy.until_applied(sequence)?;
            }
        }
    }
    let only = world.cluster.set_backends(&[0]);
    world.feed.send(only);
    for proxy in &world.proxies {
        proxy.until_applied(world.cluster.sequence())?;
    }
    outside.everybody_gets("a");
    let (inside, outside) = (inside.stop()?, outside.stop());
    println!("{CHANGES} changes: inside {inside}; outside {outside}");
    Ok(())
}

/// Not a test: the clients inside, as a process of their own. See [`Inside`].
#[test]
#[ignore = "it is started by the tests above"]
fn clients_inside() {
    load::clients_inside();
}
