//! `fairlead proxy`: kube-proxy's job on a node of any Kubernetes cluster. It needs no other part of Fairlead: the feed
//! runs in this process, and pods are whoever's they are.

use std::{
    fs::{self, Permissions},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_agent::{Agent, Config, FeedSource, Forwarding, ProxyMode, ServiceConfig, Xdp};
use fairlead_feed::{Feed, Pods};
use fairlead_kernel::{NodeFootprint, remove_node};

use crate::{
    cli::absolute_path,
    daemon::{self, Parts},
    node::{
        HEALTH_PORT, METRICS_PORT,
        place::{self, Place, Wanted},
        services::ServiceArgs,
    },
    output,
};

const EXAMPLES: &str = "\
Examples:
  fairlead proxy --kubeconfig /var/lib/kube-proxy/kubeconfig.conf
  fairlead proxy --node worker-7 --node-ip 192.0.2.17 --node-ip 2001:db8::17 --uplink eth0
  fairlead proxy --cleanup

Without --kubeconfig the service account of the pod that it runs in is used; KUBERNETES_SERVICE_HOST and
KUBERNETES_SERVICE_PORT must then name the API server itself, because its service address works only once this works.

Stop kube-proxy before; its rules go on working, and `kube-proxy --cleanup` removes them afterwards. What is
in the kernel stays when this ends; --cleanup removes it.";

/// Arguments of `fairlead proxy`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProxyArgs {
    /// Credentials for the API server [default: the pod's service account]
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    kubeconfig: Option<PathBuf>,
    /// Read the feed on this Unix socket instead of the API server; --node-ip is needed then
    #[arg(long, value_name = "SOCKET", value_parser = absolute_path, conflicts_with = "kubeconfig", requires = "node_ip")]
    feed_socket: Option<PathBuf>,
    /// Name of the Node object [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Address of the node, one per family [default: the one that reaches the API]
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Vec<IpAddr>,
    /// Interface that leads to the other nodes [default: the one with the node's address]
    #[arg(long, value_name = "INTERFACE")]
    uplink: Option<String>,
    /// cgroup whose processes reach services, below the cgroup-v2 mount [default: its root, which is everybody]
    #[arg(long, value_name = "PATH", default_value = "/")]
    cgroup: String,
    /// How services reach their backends
    #[arg(long, value_name = "MODE", default_value = "ebpf")]
    proxy_mode: ProxyMode,
    #[command(flatten)]
    services: ServiceArgs,
    /// Address of /healthz and /livez; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", default_values_t = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, HEALTH_PORT))])]
    health_listen: Vec<SocketAddr>,
    /// Address of /metrics and /proxyMode; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", default_values_t = [SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))])]
    metrics_listen: Vec<SocketAddr>,
    /// Directory of the lock [default: /var/lib/fairlead/nodes/NAME]
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    state_dir: Option<PathBuf>,
    /// Directory of the sockets [default: /run/fairlead/nodes/NAME]
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    run_dir: Option<PathBuf>,
    /// Directory of pinned BPF objects, on a BPF file system [default: /sys/fs/bpf/fairlead/NAME]
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    bpffs: Option<PathBuf>,
    /// Remove what a proxy left in the kernel, and exit
    #[arg(long)]
    cleanup: bool,
}

/// Serves until SIGINT or SIGTERM. What is in the kernel stays there, so that a restart is not seen.
pub(crate) fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    if args.cleanup {
        return clean_up(args);
    }
    refuse_flags(args)?;
    args.services.check(args.proxy_mode)?;
    daemon::run(async |shutdown| {
        let mut parts = Parts::new(shutdown);
        let (place, socket) = match &args.feed_socket {
            Some(socket) => (place::find(wanted(args), "")?, socket.clone()),
            None => {
                let api = api_config(args.kubeconfig.as_deref()).await?;
                let host = api.cluster_url.host().context("the API server's URL names no host")?.to_owned();
                let place = place::find(wanted(args), &host)?;
                let client = kube::Client::try_from(api).context("cannot use the credentials")?;
                let (socket, listener) = feed_socket(&place.run)?;
                let mut feed = Feed::local(listener, client, Pods::OfNode(place.name.clone()))?;
                if args.services.has_service_networks() {
                    feed = feed.without_service_networks();
                }
                parts.spawn("feed", |stop| async { Ok(feed.run(stop).await?) });
                (place, socket)
            }
        };
        let agent = Agent::new(agent_config(args, &place, socket)).await?;
        tracing::info!(node = place.name, uplink = place.uplink, addresses = ?place.addresses, "serving");
        parts.spawn("agent", |stop| async { Ok(agent.run(stop).await?) });
        parts.join().await
    })
}

fn wanted(args: &ProxyArgs) -> Wanted {
    Wanted {
        name: args.node.clone(),
        addresses: args.node_ip.clone(),
        uplink: args.uplink.clone(),
        state: args.state_dir.clone(),
        run: args.run_dir.clone(),
        bpffs: args.bpffs.clone(),
        cgroup: Some(args.cgroup.clone()),
    }
}

/// Flags that only serve where the pods' links are ours, and why they do not here.
fn refuse_flags(args: &ProxyArgs) -> anyhow::Result<()> {
    let flags = &args.services;
    let rows = [
        (
            flags.socket_lb_host_only,
            "--socket-lb-host-only would leave pods without services: only Fairlead's own pod network has programs on their links",
        ),
        (
            flags.forwarding.is_none() && matches!(flags.xdp, Xdp::Native | Xdp::Generic),
            "--xdp sends packets past the host's stack, which alone knows the way to the pods of your network",
        ),
    ];
    match rows.iter().find(|(given, _)| *given && args.proxy_mode == ProxyMode::Ebpf) {
        Some((_, why)) => bail!("{why}; leave it out"),
        None => Ok(()),
    }
}

/// How services are carried: pods are somebody else's, and so is the way to them. Where backends are processes of nodes, the
/// programs can forward by themselves.
fn services(args: &ProxyArgs, addresses: &[IpAddr]) -> ServiceConfig {
    let mut services = args.services.config(addresses);
    if args.services.forwarding.is_none() {
        (services.options.forwarding, services.options.xdp) = (Forwarding::Stack, Xdp::Off);
    }
    services
}

fn agent_config(args: &ProxyArgs, place: &Place, feed: PathBuf) -> Config {
    Config {
        node_name: place.name.clone(),
        feed: FeedSource::Unix(feed),
        pod_network: false,
        bpffs_dir: place.bpffs.clone(),
        cgroup_dir: place.cgroup.clone().into(),
        netns_dir: place.run.join("netns"),
        netns_prefix: "pod-".to_owned(),
        uplink: place.uplink.clone(),
        state_dir: place.state.join("agent"),
        proxy_mode: args.proxy_mode,
        services: services(args, &place.addresses),
        flow_events: true,
        admin_socket: place.run.join("admin.sock"),
        // Cluster DNS is somebody else's.
        dns_heartbeat: None,
        health_listen: args.health_listen.clone(),
        metrics_listen: args.metrics_listen.clone(),
    }
}

/// How to reach the API server, and as whom.
async fn api_config(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    let Some(file) = kubeconfig else {
        return kube::Config::incluster()
            .context("there is no service account here; give --kubeconfig, or run in a pod of the cluster");
    };
    let what = || format!("cannot use the kubeconfig {}", file.display());
    let parsed = kube::config::Kubeconfig::read_from(file).with_context(what)?;
    kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.with_context(what)
}

/// A socket that only root may open. One that a former process left is replaced.
fn feed_socket(run: &Path) -> anyhow::Result<(PathBuf, UnixListener)> {
    let path = run.join("feed.sock");
    let what = || format!("cannot listen on {}", path.display());
    fs::create_dir_all(run).with_context(what)?;
    match fs::remove_file(&path) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem).with_context(what),
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(what)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).with_context(what)?;
    Ok((path, listener))
}

/// Removes programs and maps, and the rules of the modes that were used. The cgroup is not ours, and neither is what
/// runs in it.
fn clean_up(args: &ProxyArgs) -> anyhow::Result<()> {
    let name = args.node.clone().map_or_else(crate::identity::host_name, Ok)?;
    let bpffs =
        args.bpffs.clone().unwrap_or_else(|| Path::new(crate::paths::BPFFS).join("fairlead").join(&name));
    let present = bpffs.exists();
    let state = args.state_dir.clone().unwrap_or_else(|| Path::new("/var/lib/fairlead/nodes").join(&name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let modes = runtime.block_on(fairlead_agent::clean_up(&state.join("agent"), &bpffs))?;
    for mode in modes.iter().filter(|mode| **mode != ProxyMode::Ebpf) {
        output::line(&format!("removed the rules of the {mode} mode"))?;
    }
    let footprint = NodeFootprint {
        bpffs_dir: bpffs.clone(),
        cgroup_dir: PathBuf::new(),
        netns_dir: PathBuf::new(),
        netns_prefix: String::new(),
    };
    let failures = remove_node(&footprint);
    match failures.as_slice() {
        [] if present => output::line(&format!("removed the programs and maps in {}", bpffs.display())),
        [] => output::line(&format!("there is nothing of a proxy in {}", bpffs.display())),
        failures => {
            let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
            bail!("{}; repeat it when that is out of the way", failures.join("; "))
        }
    }
}
