//! The node's agent in a process of its own, with a feed that tells it of many services and two pods to measure between.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_agent::{Agent, Config, FeedEndpoint, FeedSource, ProxyMode, ServiceConfig};
use fairlead_kubelet::network::{PodIdentity, PodNetwork};
use fairlead_testkit::{netns::run_in, topology::UPLINK};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;

use super::{
    feed::{Feed, NODES},
    place::Spot,
};

const FEED_PORT: u16 = 6444;
/// How long the services may take to be applied, by the machine's clock.
const PATIENCE: Duration = Duration::from_secs(600);

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
    /// The node's network namespace
    #[arg(long)]
    netns: PathBuf,
    /// Addresses of the node
    #[arg(long)]
    address: Vec<IpAddr>,
    /// Addresses of the other node
    #[arg(long)]
    other: Vec<IpAddr>,
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
}

/// Serves until it is killed; prints a line of JSON when it is ready.
pub fn run(args: &AgentArgs) -> Result<()> {
    run_in(&args.netns, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // The runtime's own thread is in the namespace as well, and it is there that sockets are made.
        runtime.block_on(async { tokio::spawn(serve(args.clone())).await? })
    })
}

async fn serve(args: AgentArgs) -> Result<()> {
    let first = *args.address.first().context("the node has no address")?;
    let feed = Feed::start(SocketAddr::new(first, FEED_PORT), [&args.address, &args.other]).await?;
    let config = config(&args, feed.endpoint.clone());
    let admin = config.admin_socket.clone();
    let agent = Agent::new(config).await?;
    let network = agent.network();
    let cgroup = agent.cgroup().to_owned();
    let running = tokio::spawn(agent.run(CancellationToken::new()));
    let client = attach(&*network, "client").await?;
    let server = attach(&*network, "server").await?;
    let sequence = feed.tell_services(args.services, &server.addresses);
    tokio::time::timeout(PATIENCE, applied(&admin, sequence))
        .await
        .context("the services were not applied")??;
    let ready = Ready { cgroup, client, server };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&ready)?)?;
    running.await??;
    Ok(())
}

fn config(args: &AgentArgs, feed: FeedEndpoint) -> Config {
    let directory = &args.directory;
    Config {
        node_name: NODES[0].into(),
        feed: FeedSource::Tls(feed),
        pod_network: true,
        bpffs_dir: Path::new("/sys/fs/bpf").join("cost"),
        cgroup_dir: "cost".into(),
        netns_dir: directory.join("netns"),
        netns_prefix: "pod-".into(),
        uplink: UPLINK.into(),
        state_dir: directory.join("state"),
        proxy_mode: args.mode,
        services: ServiceConfig::default(),
        flow_events: !args.without_flows,
        admin_socket: directory.join("admin.sock"),
        health_listen: Vec::new(),
        metrics_listen: Vec::new(),
    }
}

async fn attach(network: &dyn PodNetwork, name: &str) -> Result<Spot> {
    let pod = PodIdentity { namespace: "bench".into(), name: name.into(), uid: format!("uid-{name}") };
    let place = network.attach(&pod).await?;
    Ok(Spot { netns: place.netns, addresses: place.addresses })
}

/// Waits until the agent has applied this revision.
async fn applied(admin: &Path, sequence: u64) -> Result<()> {
    loop {
        let status = status(admin).await?;
        if let Some(problem) = status["problems"].as_array().and_then(|problems| problems.first()) {
            bail!("the agent says: {problem}");
        }
        if status["sequence"].as_u64() >= Some(sequence) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn status(admin: &Path) -> Result<serde_json::Value> {
    let mut stream = UnixStream::connect(admin).await.context("the agent's socket does not answer")?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("the agent answers no HTTP")?;
    serde_json::from_str(body).with_context(|| format!("the agent's status is no JSON: {body}"))
}
