//! `fairlead node`: a node's dataplane and kubelet in one process.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::absolute_path;

const EXAMPLES: &str = "\
Examples:
  fairlead node --kubeconfig /etc/fairlead/node.kubeconfig
  fairlead node --name worker-7 --node-ip 192.0.2.17 --node-ip 2001:db8::17 --uplink eth0

The kubeconfig holds the node's certificate (`fairlead kubeconfig --node NAME` on the server prints one). It is the
client certificate for the API and the feed, and the server certificate for `kubectl logs`.";

/// How services reach their backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ProxyMode {
    /// BPF programs at the socket and the link.
    Ebpf,
}

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
    #[arg(long, value_name = "NAMESPACE", default_value = "k8s.io")]
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
    /// How services reach their backends
    #[arg(long, value_enum, default_value = "ebpf")]
    proxy_mode: ProxyMode,
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
pub(crate) fn run(args: NodeArgs) -> anyhow::Result<()> {
    anyhow::bail!("wip {args:?}")
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}
