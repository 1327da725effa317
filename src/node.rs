//! `fairlead node`: a node's dataplane and kubelet in one process.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use fairlead_agent::{Agent, Config as AgentConfig, FeedEndpoint, ProxyMode};
use fairlead_kubelet::{Capacity, Config as KubeletConfig, Kubelet, LogDriver, TlsConfig};
use tokio::sync::watch;

use crate::{
    cli::absolute_path,
    daemon::{self, Parts},
    identity::Identity,
    paths::DNS_HEARTBEAT,
};

pub(crate) mod place;
pub(crate) mod services;

use place::{Place, Wanted};
use services::ServiceArgs;

const EXAMPLES: &str = "\
Examples:
  fairlead node --kubeconfig /etc/fairlead/node.kubeconfig
  fairlead node --name worker-7 --node-ip 192.0.2.17 --node-ip 2001:db8::17 --uplink eth0

The kubeconfig holds the node's certificate (`fairlead kubeconfig --node NAME` on the server prints one). It is the
client certificate for the API and the feed, and the server certificate for `kubectl logs`.";

/// Where kube-proxy serves its health, for load balancers.
pub(crate) const HEALTH_PORT: u16 = 10256;
/// Where kube-proxy serves its mode and metrics.
pub(crate) const METRICS_PORT: u16 = 10249;
/// Where a kubelet serves logs.
const KUBELET_PORT: u16 = 10250;

/// Arguments of `fairlead node`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NodeArgs {
    /// Name of the Node object [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The node's credentials
    #[arg(long, value_name = "FILE", value_parser = absolute_path, default_value = "/etc/fairlead/node.kubeconfig")]
    kubeconfig: PathBuf,
    /// The feed [default: port 6444 of the API server]
    #[arg(long, value_name = "URL")]
    feed: Option<String>,
    /// Directory of volumes and pods' files [default: /var/lib/fairlead/nodes/NAME]
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    state_dir: Option<PathBuf>,
    /// Directory of sockets and short-lived files [default: /run/fairlead/nodes/NAME]
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    run_dir: Option<PathBuf>,
    /// Directory of pinned BPF objects, on a BPF file system [default: /sys/fs/bpf/fairlead/NAME]
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    bpffs: Option<PathBuf>,
    /// cgroup of the node's pods, below the root of every hierarchy [default: fairlead/NAME]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// containerd's socket
    #[arg(long, value_name = "SOCKET", value_parser = absolute_path, default_value = "/run/containerd/containerd.sock")]
    containerd: PathBuf,
    /// containerd's namespace for the node's images and containers
    #[arg(long, value_name = "NAMESPACE", default_value = "fairlead")]
    containerd_namespace: String,
    /// Address of the node, one per family; the first is the primary one [default: the one that reaches the API]
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Vec<IpAddr>,
    /// Interface that leads to the other nodes [default: the one with the node's address]
    #[arg(long, value_name = "INTERFACE")]
    uplink: Option<String>,
    /// Directory of OCI image archives (*.tar) that pods may use; may be repeated
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    images: Vec<PathBuf>,
    /// How services reach their backends: ebpf, iptables, nftables or ipvs
    #[arg(long, value_name = "MODE", default_value = "ebpf")]
    proxy_mode: ProxyMode,
    #[command(flatten)]
    services: ServiceArgs,
    /// Address of the cluster DNS Service, one per family
    #[arg(long, value_name = "ADDRESS", default_values = ["10.96.0.10", "fd00:96::a"])]
    cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Label of the Node object, as KEY=VALUE; may be repeated
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Vec<(String, String)>,
}

/// Serves until SIGINT or SIGTERM. What is in the kernel stays there, so that a restart is not seen.
pub(crate) fn run(args: &NodeArgs) -> anyhow::Result<()> {
    args.services.check(args.proxy_mode)?;
    let identity = Identity::read(&args.kubeconfig)?;
    let place = place::find(wanted(args), &identity.host()?)?;
    let feed = identity.feed(args.feed.as_deref())?;
    daemon::run(async |shutdown| {
        let agent = Agent::new(agent_config(args, &place, feed)).await?;
        let client = identity.client().await?;
        let kubelet =
            Kubelet::new(kubelet_config(args, &place, &identity, agent.ready())?, client, agent.network())
                .await?;
        tracing::info!(node = place.name, uplink = place.uplink, addresses = ?place.addresses, "serving");
        let mut parts = Parts::new(shutdown);
        parts.spawn("agent", |stop| async { Ok(agent.run(stop).await?) });
        parts.spawn("kubelet", |stop| async { Ok(kubelet.run(stop).await?) });
        parts.join().await
    })
}

fn wanted(args: &NodeArgs) -> Wanted {
    Wanted {
        name: args.name.clone(),
        addresses: args.node_ip.clone(),
        uplink: args.uplink.clone(),
        state: args.state_dir.clone(),
        run: args.run_dir.clone(),
        bpffs: args.bpffs.clone(),
        cgroup: args.cgroup.clone(),
    }
}

fn agent_config(args: &NodeArgs, place: &Place, feed: FeedEndpoint) -> AgentConfig {
    AgentConfig {
        node_name: place.name.clone(),
        feed: feed.into(),
        pod_network: true,
        bpffs_dir: place.bpffs.clone(),
        cgroup_dir: place.cgroup.clone().into(),
        netns_dir: place.run.join("netns"),
        netns_prefix: "pod-".to_owned(),
        uplink: place.uplink.clone(),
        state_dir: place.state.join("agent"),
        proxy_mode: args.proxy_mode,
        services: args.services.config(&place.addresses),
        flow_events: true,
        admin_socket: place.run.join("admin.sock"),
        dns_heartbeat: Some(place.run.join(DNS_HEARTBEAT)),
        // kube-proxy's ports: health for load balancers on every address, the rest for this machine only.
        health_listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, HEALTH_PORT))],
        metrics_listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))],
    }
}

fn kubelet_config(
    args: &NodeArgs,
    place: &Place,
    identity: &Identity,
    network_ready: watch::Receiver<bool>,
) -> anyhow::Result<KubeletConfig> {
    let address = *place.addresses.first().context("the node has no address; give --node-ip")?;
    Ok(KubeletConfig {
        node_name: place.name.clone(),
        node_ips: place.addresses.clone(),
        containerd_socket: args.containerd.clone(),
        containerd_namespace: args.containerd_namespace.clone(),
        state_dir: place.state.join("kubelet"),
        run_dir: place.run.clone(),
        log_dir: place.state.join("pod-logs"),
        image_dirs: args.images.clone(),
        cgroup_root: place.cgroup.clone(),
        cluster_dns: args.cluster_dns.clone(),
        cluster_domain: args.cluster_domain.clone(),
        listen: SocketAddr::new(address, KUBELET_PORT),
        tls: TlsConfig {
            certificate_pem: identity.cert_pem.clone(),
            key_pem: identity.key_pem.clone(),
            client_ca_pem: identity.ca_pem.clone(),
        },
        capacity: Capacity::default(),
        labels: args.label.iter().cloned().collect(),
        network_ready,
        log_driver: LogDriver {
            executable: std::env::current_exe().context("cannot find this program's file")?,
            argument: "container-log".to_owned(),
        },
        pids_limit: None,
    })
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}
