//! `fairlead server`: the control plane in one process. Scheduler, controllers and feed are clients of the API like
//! any other; they reach it without a socket.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;

use crate::cli::{absolute_path, prefix};

const EXAMPLES: &str = "\
Examples:
  fairlead server --advertise-address 192.0.2.10
  fairlead server --listen 127.0.0.1:6443 --state-dir ./state --kubeconfig ./kubeconfig

Sockets passed by systemd (Sockets= with FileDescriptorName=api or feed) are used besides those of --listen and
--feed-listen; then no default address is bound.";

/// Arguments of `fairlead server`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    /// Directory of the store and the certificate authority
    #[arg(long, default_value = "/var/lib/fairlead", value_name = "DIR", value_parser = absolute_path)]
    state_dir: PathBuf,
    /// Address of the API; may be repeated [default: 0.0.0.0:6443, unless a socket is inherited]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Address of the feed; may be repeated [default: 0.0.0.0:6444, unless a socket is inherited]
    #[arg(long, value_name = "ADDRESS:PORT")]
    feed_listen: Vec<SocketAddr>,
    /// Address where others reach this server: endpoint of the `kubernetes` Service, name in the certificate
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    advertise_address: IpAddr,
    /// Further name or address in the server's certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    server_name: Vec<String>,
    /// Network of service addresses, one per family
    #[arg(long, value_name = "PREFIX", value_parser = prefix, default_values = ["10.96.0.0/16", "fd00:96::/112"])]
    service_cidr: Vec<(IpAddr, u8)>,
    /// Network of pod addresses, one per family; each node gets a /24 or a /64 of it
    #[arg(long, value_name = "PREFIX", value_parser = prefix, default_values = ["10.244.0.0/16", "fd00:244::/56"])]
    cluster_cidr: Vec<(IpAddr, u8)>,
    /// Address of the cluster DNS Service, one per family
    #[arg(long, value_name = "ADDRESS", default_values = ["10.96.0.10", "fd00:96::a"])]
    cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Where to write an administrator's kubeconfig [default: admin.kubeconfig in the state directory]
    #[arg(long, value_name = "FILE", value_parser = absolute_path)]
    kubeconfig: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM.
pub(crate) fn run(args: ServerArgs) -> anyhow::Result<()> {
    anyhow::bail!("wip {args:?}")
}
