//! The node's agent in a process of its own, with a feed that tells it of many services and two pods to measure between.

use std::{
    io::Write,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fairlead_agent::{Agent, Config, FeedEndpoint, FeedSource, ProxyMode, ServiceConfig};
use fairlead_kernel::{Forwarding, NodeFootprint};
use fairlead_kubelet::network::{PodIdentity, PodNetwork};
use fairlead_model::Prefix;
use fairlead_testkit::{netns::run_in, topology::UPLINK};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use super::{
    feed::{Feed, NODES},
    place::Spot,
    running::footprint,
};
use crate::admin::Admin;

const FEED_PORT: u16 = 6444;
/// How long the services may take to be applied, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longer than it runs: nobody takes anything of it away, and a look through all rules takes as long as to write them.
const AN_HOUR: Duration = Duration::from_secs(3_600);

/// What the process is told.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// How services are programmed
    #[arg(long)]
    mode: ProxyMode,
    /// How many services there are
    #[arg(long)]
    services: u32,
    /// Write no flow records
    #[arg(long)]
    without_flows: bool,
    /// Leave the pods' connections to the programs on links
    #[arg(long)]
    sockets_of_host_only: bool,
    /// How connections from outside reach the other node
    #[arg(long, default_value = "encapsulated")]
    forwarding: Forwarding,
    /// The node's network namespace
    #[arg(long)]
    netns: PathBuf,
    /// Addresses of the node
    #[arg(long)]
    address: Vec<IpAddr>,
    /// Addresses of the other node
    #[arg(long)]
    other: Vec<IpAddr>,
    /// Its network namespace, if it is to have an agent as well
    #[arg(long)]
    other_netns: Option<PathBuf>,
    /// Directory for its files
    #[arg(long)]
    directory: PathBuf,
}

/// What it says when everything is in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The node's cgroup.
    pub(crate) cgroup: PathBuf,
    pub(crate) client: Spot,
    pub(crate) server: Spot,
    /// What there is on the other node, if that has an agent.
    pub(crate) remote: Option<Remote>,
}

/// A server on the other node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Remote {
    /// That node's cgroup.
    pub(crate) cgroup: PathBuf,
    pub(crate) server: Spot,
}

/// How the nodes' directories and cgroups are called.
pub(crate) const NODES_DIRECTORIES: [&str; 2] = ["cost-a", "cost-b"];

/// Serves until it is killed; prints a line of JSON when it is ready.
pub fn run(args: &AgentArgs) -> Result<()> {
    // What goes wrong is read by whoever wonders why it is never ready.
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).init();
    in_namespace(&args.netns, serve(args.clone()))
}

/// Runs a future with a runtime in a network namespace.
fn in_namespace(netns: &Path, future: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    run_in(netns, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // The runtime's own thread is in the namespace as well, and it is there that sockets are made.
        runtime.block_on(async { tokio::spawn(future).await? })
    })
}

async fn serve(args: AgentArgs) -> Result<()> {
    let first = *args.address.first().context("the node has no address")?;
    let mut feed = Feed::start(SocketAddr::new(first, FEED_PORT), [&args.address, &args.other]).await?;
    let mut node = Node::start(config(&args, 0, feed.endpoint.clone()), &["client", "server"]).await?;
    let mut other = match &args.other_netns {
        Some(netns) => Some(start_other(netns.clone(), config(&args, 1, feed.endpoint.clone())).await?),
        None => None,
    };
    let server = node.pods.pop().context("no pod")?;
    let remote = other.as_mut().and_then(|other| other.pods.pop());
    let admins: Vec<Admin> = std::iter::once(&node).chain(&other).map(|node| node.admin.clone()).collect();
    let behind = server.addresses.clone();
    tell(&mut feed, args.services, &behind, remote.as_ref(), &admins).await?;
    let remote = remote.zip(other).map(|(server, other)| Remote { cgroup: other.cgroup, server });
    let client = node.pods.pop().context("no pod")?;
    let ready = Ready { cgroup: node.cgroup, client, server, remote };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&ready)?)?;
    // From here on it is told how many services there are to be.
    while let Some(number) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await? {
        tell(&mut feed, number?.parse()?, &behind, None, &admins).await?;
        writeln!(std::io::stdout(), "null")?;
    }
    std::future::pending().await
}

/// Tells of services, with the server behind some and perhaps one on the other node behind others; returns when they are in
/// the kernel of all nodes.
async fn tell(
    feed: &mut Feed,
    services: u32,
    server: &[IpAddr],
    remote: Option<&Spot>,
    nodes: &[Admin],
) -> Result<()> {
    let sequence = feed.tell_services(services, server, remote.map(|server| &server.addresses[..]));
    let deadline = Instant::now() + PATIENCE;
    for admin in nodes {
        let admin = admin.clone();
        let applied = tokio::task::spawn_blocking(move || {
            admin.until_applied(sequence, || {
                ensure!(Instant::now() < deadline, "the services were not applied");
                Ok(())
            })?;
            admin.status()
        });
        if let Some(problem) = applied.await??["problems"].as_array().and_then(|problems| problems.first()) {
            bail!("the agent says: {problem}");
        }
    }
    Ok(())
}

/// A node with an agent and pods.
struct Node {
    admin: Admin,
    cgroup: PathBuf,
    pods: Vec<Spot>,
}

impl Node {
    /// Starts the agent on this runtime; should it end, so does this process.
    async fn start(config: Config, pods: &[&str]) -> Result<Self> {
        let admin = Admin::new(config.admin_socket.clone());
        let agent = Agent::new(config).await?;
        let network = agent.network();
        let cgroup = agent.cgroup().to_owned();
        tokio::spawn(async {
            let ended = agent.run(CancellationToken::new()).await;
            eprintln!("the agent ended: {ended:?}");
            std::process::exit(1);
        });
        let mut spots = Vec::new();
        for name in pods {
            spots.push(attach(&*network, name).await?);
        }
        Ok(Self { admin, cgroup, pods: spots })
    }
}

/// The other node's agent, on a thread and a runtime in its namespace.
async fn start_other(netns: PathBuf, config: Config) -> Result<Node> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _killed = in_namespace(&netns, async {
            let _nobody_waits = tell.send(Node::start(config, &["server"]).await);
            std::future::pending().await
        });
    });
    told.await.context("the other node's thread ended")?
}

/// Networks of all pods of the cluster.
fn pod_networks() -> Vec<Prefix> {
    let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0);
    vec![
        Prefix { address: IpAddr::from([10, 244, 0, 0]), length: 16 },
        Prefix { address: v6.into(), length: 56 },
    ]
}

/// Settings of the agent of a node, by its number.
fn config(args: &AgentArgs, index: usize, feed: FeedEndpoint) -> Config {
    let NodeFootprint { bpffs_dir, cgroup_dir, netns_dir, netns_prefix } =
        footprint(NODES_DIRECTORIES[index], &args.directory);
    let directory = args.directory.join(NODES_DIRECTORIES[index]);
    let mut services = ServiceConfig::default();
    services.options.sockets_of_host_only = args.sockets_of_host_only;
    services.options.forwarding = args.forwarding;
    services.addresses = [&args.address, &args.other][index].clone();
    services.rules.pod_networks = pod_networks();
    services.repair_period = AN_HOUR;
    Config {
        node_name: NODES[index].into(),
        feed: FeedSource::Tls(feed),
        pod_network: true,
        bpffs_dir,
        cgroup_dir,
        netns_dir,
        netns_prefix,
        uplink: UPLINK.into(),
        state_dir: directory.join("state"),
        proxy_mode: args.mode,
        services,
        flow_events: !args.without_flows,
        admin_socket: directory.join("admin.sock"),
        dns_heartbeat: None,
        health_listen: Vec::new(),
        metrics_listen: Vec::new(),
    }
}

async fn attach(network: &dyn PodNetwork, name: &str) -> Result<Spot> {
    let pod = PodIdentity { namespace: "bench".into(), name: name.into(), uid: format!("uid-{name}") };
    let place = network.attach(&pod).await?;
    Ok(Spot { netns: place.netns, addresses: place.addresses })
}
