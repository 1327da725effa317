//! Every measurement, one after the other.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_kernel::{NodeFootprint, remove_node};
use fairlead_testkit::{InCgroup, TwoNodes, netns::run_in};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Row,
    agent::Ready,
    feed::service_addresses,
    hooks,
    place::{Pair, Spot},
    traffic::{Op, SERVER_PORT, SERVICE_PORT, serve},
};

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct GuestArgs {
    /// Numbers of services
    #[arg(long, value_delimiter = ',', default_value = "1")]
    services: Vec<u32>,
    /// Only these modes
    #[arg(long, value_delimiter = ',')]
    mode: Vec<String>,
}

/// How client and server reach each other.
#[derive(Clone, Copy, Debug)]
enum Way {
    Loopback,
    Routed,
    /// Through a service, which the agent programs.
    Agent,
}

/// Every mode; those of the agent have its names.
const MODES: &[(&str, Way)] = &[("loopback", Way::Loopback), ("none", Way::Routed), ("ebpf", Way::Agent)];
/// Tier and what else is on, the agent's flag for it, and whether it is measured for every number of services.
const PATHS: &[(&str, &[&str], bool)] =
    &[("socket", &[], true), ("socket-without-flows", &["--without-flows"], false)];
/// Without a service, from pod to pod.
const DIRECT: &str = "pod";

/// Measures everything and prints a row of JSON for each number.
pub fn run(args: &GuestArgs) -> Result<()> {
    let wanted = |name: &str| args.mode.is_empty() || args.mode.iter().any(|mode| mode == name);
    for (mode, way) in MODES.iter().filter(|(mode, _)| wanted(mode)) {
        match way {
            Way::Loopback => pair(mode, &Pair::on_loopback())?,
            Way::Routed => pair(mode, &Pair::routed())?,
            Way::Agent => {
                for (path, flags, every) in PATHS {
                    let sizes = if *every { &args.services[..] } else { &args.services[..1] };
                    sizes.iter().try_for_each(|services| node(mode, path, flags, *services))?;
                }
            }
        }
    }
    Ok(())
}

/// Client and server with nothing of ours between them.
fn pair(mode: &str, pair: &Pair) -> Result<()> {
    run_in(&pair.server.netns, || serve(&pair.server.addresses))?;
    let to = pair.server.addresses.iter().map(|address| SocketAddr::new(*address, SERVER_PORT)).collect();
    measure(Place { mode, path: "", services: 0, client: &pair.client, to })
}

/// Client and server as pods of a node with an agent.
fn node(mode: &str, path: &str, flags: &[&str], services: u32) -> Result<()> {
    let topology = TwoNodes::new();
    let running = Running::start(mode, services, flags, &topology)?;
    let Ready { cgroup, client, server } = &running.ready;
    let inside = InCgroup::enter(&cgroup.join("pods"));
    run_in(&server.netns, || serve(&server.addresses))?;
    let service = service_addresses(services - 1);
    let to = service.iter().map(|address| SocketAddr::new(*address, SERVICE_PORT)).collect();
    running.signal(Signal::SIGSTOP)?;
    measure(Place { mode, path, services, client, to })?;
    if services == 1 && flags.is_empty() {
        hooks::measure(&client.netns, SocketAddr::new(service[0], SERVICE_PORT), mode)?;
        let to = server.addresses.iter().map(|address| SocketAddr::new(*address, SERVER_PORT)).collect();
        measure(Place { mode, path: DIRECT, services: 0, client, to })?;
    }
    drop(inside);
    Ok(())
}

struct Place<'a> {
    mode: &'a str,
    path: &'a str,
    services: u32,
    client: &'a Spot,
    to: Vec<SocketAddr>,
}

fn measure(place: Place<'_>) -> Result<()> {
    for to in place.to {
        for op in Op::ALL {
            let value = run_in(&place.client.netns, || op.measure(to));
            let value = value.with_context(|| format!("{} {} {}", place.mode, place.path, place.services))?;
            Row::new(place.mode, place.path, place.services, to, op.name(), value).print()?;
        }
    }
    Ok(())
}

/// The agent's process; killed, and all that it made removed, when it is dropped.
struct Running {
    child: Child,
    ready: Ready,
    directory: PathBuf,
}

impl Running {
    fn start(mode: &str, services: u32, flags: &[&str], topology: &TwoNodes) -> Result<Self> {
        let directory = Path::new("/run").join(format!("cost-{mode}-{services}-{}", flags.len()));
        fs::create_dir_all(directory.join("state"))?;
        let addresses = |name: &'static str, addresses: &[IpAddr]| {
            addresses
                .iter()
                .flat_map(move |address| [name.to_owned(), address.to_string()])
                .collect::<Vec<_>>()
        };
        let mut child = Command::new(std::env::current_exe().context("cannot find this program's file")?)
            .args(["cost-agent", "--mode", mode, "--services", &services.to_string()])
            .args(flags)
            .arg("--netns")
            .arg(topology.a.netns.path())
            .args(addresses("--address", &topology.a.addresses))
            .args(addresses("--other", &topology.b.addresses))
            .arg("--directory")
            .arg(&directory)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the agent")?;
        let output = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("cannot read what the agent says")?;
        if line.is_empty() {
            let status = child.wait().context("cannot wait for the agent")?;
            bail!("the agent ended before it was ready ({status})");
        }
        let ready = serde_json::from_str(&line).with_context(|| format!("the agent says {line}"))?;
        Ok(Self { child, ready, directory })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a strange process id")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the agent"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be stopped; this ends it all the same.
        let _gone = self.child.kill();
        let _status = self.child.wait();
        let footprint = NodeFootprint {
            bpffs_dir: Path::new("/sys/fs/bpf").join("cost"),
            cgroup_dir: "cost".into(),
            netns_dir: self.directory.join("netns"),
            netns_prefix: "pod-".into(),
        };
        for failure in remove_node(&footprint) {
            eprintln!("{failure}");
        }
    }
}
