//! Every measurement, one after the other.

use std::{fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_testkit::{InCgroup, cgroup::mount_point, netns::run_in};

use super::{
    Row,
    agent::Ready,
    case::{CASES, Case, Way},
    count,
    feed::{NODE_PORTS, random_target, service_addresses},
    hooks,
    machines::Machines,
    place::{Pair, Spot},
    running::{Running, ServerProcess},
    traffic::{OWN_PORT, Op, SERVER_PORT, SERVICE_PORT, serve},
};
use crate::modes::check_names;

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct GuestArgs {
    /// Numbers of services
    #[arg(long, value_delimiter = ',', default_value = "1")]
    services: Vec<u32>,
    /// Only these modes
    #[arg(long, value_delimiter = ',')]
    mode: Vec<String>,
    /// Every mode, and of each only what tells it from the others: pods asking services over IPv4
    #[arg(long)]
    brief: bool,
}

/// Without a service, from pod to pod.
const DIRECT: &str = "pod";
/// The scheduler's switches (`kernel/sched/features.h`).
const SCHEDULER: &str = "/sys/kernel/debug/sched/features";
/// For how long a neighbour that has answered is taken to be there (`Documentation/networking/ip-sysctl.rst`).
const NEIGHBOURS: [&str; 2] = [
    "/proc/sys/net/ipv4/neigh/default/base_reachable_time_ms",
    "/proc/sys/net/ipv6/neigh/default/base_reachable_time_ms",
];
/// Longer than a machine runs.
const AN_HOUR_MS: &str = "3600000";

/// Measures everything and prints a row of JSON for each number.
pub fn run(args: &GuestArgs) -> Result<()> {
    check_names(CASES.iter().map(|case| case.mode), &args.mode)?;
    let named = |case: &Case| args.mode.is_empty() || args.mode.iter().any(|mode| mode == case.mode);
    let wanted = CASES.iter().filter(|case| named(case));
    let cases: Vec<Case> =
        if args.brief { wanted.filter_map(Case::in_brief).collect() } else { wanted.copied().collect() };
    take_turns()?;
    keep_neighbours()?;
    let mut numbers = args.services.clone();
    numbers.sort_unstable();
    for case in &cases {
        match case.way {
            Way::Pair(make) => pair(case, &make())?,
            Way::Agent => {
                let sizes = case.sizes.of(&numbers);
                if case.asked.inside() {
                    node(case, &sizes)?;
                }
                if let Some(first) = sizes.first().filter(|_| case.asked.outside()) {
                    outside(case, *first)?;
                }
            }
        }
    }
    Ok(())
}

/// Lets a process run until it waits. Whether one that is woken takes over at once is a matter of how long either has run, and
/// a client whose answer is there before it waits for it has eight in a hundred fewer instructions.
fn take_turns() -> Result<()> {
    fs::write(SCHEDULER, "NO_WAKEUP_PREEMPTION").with_context(|| format!("cannot write {SCHEDULER}"))
}

/// Lets nobody ask in the middle of counting whether a neighbour is still there. Network namespaces that are made later have the
/// same defaults.
fn keep_neighbours() -> Result<()> {
    NEIGHBOURS
        .iter()
        .try_for_each(|file| fs::write(file, AN_HOUR_MS).with_context(|| format!("cannot write {file}")))
}

/// Client and server with nothing of ours between them.
fn pair(case: &Case, pair: &Pair) -> Result<()> {
    // As deep as pods are: the kernel accounts a process's time at every level.
    let inside = InCgroup::enter(&mount_point().join("cost-pair").join("pods"));
    run_in(&pair.server.netns, || serve(&pair.server.addresses))?;
    let place = Place { case, path: case.path, services: 0, client: &pair.client };
    measure(&place, at(&pair.server, SERVER_PORT), Op::ALL)?;
    drop(inside);
    Ok(())
}

/// Client and server as pods of a node with an agent, with more and more services.
fn node(case: &Case, sizes: &[u32]) -> Result<()> {
    let Some(&first) = sizes.first() else { return Ok(()) };
    let machines = Machines::new();
    let mut running = Running::start(case, first, false, &machines)?;
    let Ready { cgroup, client, server, .. } = running.ready.clone();
    let inside = InCgroup::enter(&cgroup.join("pods"));
    run_in(&server.netns, || serve(&server.addresses))?;
    running.stop()?;
    for &services in sizes {
        if services != first {
            running.grow(services)?;
        }
        let place = Place { case, path: case.path, services, client: &client };
        let service =
            |index| service_addresses(index).map(|address| SocketAddr::new(address, SERVICE_PORT)).to_vec();
        let last = service(services - 1);
        measure(&place, last.clone(), Op::ALL)?;
        if let Some(index) = random_target(services) {
            let path = format!("{}-random-target", case.path);
            let place = Place { path: path.trim_start_matches('-'), ..place };
            measure(&place, service(index), &[Op::Connect])?;
        }
        if services == first && case.asked.closely() {
            hooks::measure(&client.netns, last[0], case, services)?;
            let path = format!("{} {DIRECT}", case.path);
            let place = Place { path: path.trim_start(), services: 0, ..place };
            measure(&place, at(&server, OWN_PORT), Op::ALL)?;
        }
    }
    drop(inside);
    Ok(())
}

/// A client outside of the cluster, which asks node `a` for a service on a node port: once with the server there, once
/// with it on node `b`.
fn outside(case: &Case, services: u32) -> Result<()> {
    let machines = Machines::new();
    let running = Running::start(case, services, true, &machines)?;
    let Ready { cgroup, server, remote: Some(remote), .. } = &running.ready else {
        bail!("node b has no agent");
    };
    let _servers =
        [ServerProcess::start(server, cgroup)?, ServerProcess::start(&remote.server, &remote.cgroup)?];
    running.stop()?;
    let client = Spot { netns: machines.outside.netns.path(), addresses: machines.outside.addresses.clone() };
    let node = Spot { netns: machines.a.netns.path(), addresses: machines.a.addresses.clone() };
    let place = Place { case, path: case.path, services, client: &client };
    for (ops, port) in [Op::OUTSIDE_LOCAL, Op::OUTSIDE_REMOTE].into_iter().zip(NODE_PORTS) {
        measure(&place, at(&node, port), ops)?;
    }
    Ok(())
}

fn at(spot: &Spot, port: u16) -> Vec<SocketAddr> {
    spot.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
}

/// For how long the kernel remembers a connection that was reset (`nf_conntrack_tcp_timeout_close`; IPVS does as long).
const MEMORY: Duration = Duration::from_secs(11);

/// Waits until it has forgotten those of the last operation: the more there are, the longer is a look for one. The machine waits at
/// no cost.
fn forget() {
    thread::sleep(MEMORY);
}

#[derive(Clone, Copy)]
struct Place<'a> {
    case: &'a Case,
    path: &'a str,
    services: u32,
    client: &'a Spot,
}

fn measure(place: &Place<'_>, to: Vec<SocketAddr>, ops: &[Op]) -> Result<()> {
    let Place { case, path, services, client } = place;
    for to in to.into_iter().filter(|to| case.ipv6 || to.is_ipv4()) {
        for op in ops {
            forget();
            let kinsn = run_in(&client.netns, || count::measure(*op, to));
            let kinsn = kinsn.with_context(|| format!("{} {path} {services}", case.mode))?;
            Row::new(case.mode, path, *services, to, op.name(), kinsn).print()?;
        }
    }
    Ok(())
}
