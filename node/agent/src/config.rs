//! Where a node's agent finds and keeps things.

use std::{net::SocketAddr, path::PathBuf};

use fairlead_kernel::{DataplaneConfig, NodeFootprint};
use fairlead_plan::ProxyMode;
use fairlead_wire::client::FeedSource;

/// Everything the agent must be told. The process already is in the node's network namespace.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node, as the API knows it.
    pub node_name: String,
    /// Where the feed is.
    pub feed: FeedSource,
    /// Whether pods get their network from this agent. If not, nothing is routed to other nodes' pods and nothing is
    /// taken back: they are another one's.
    pub pod_network: bool,
    /// Pin directory on a bpf file system, e.g. `/sys/fs/bpf/fairlead/<node>`.
    pub bpffs_dir: PathBuf,
    /// The node's cgroup, relative to the cgroup-v2 mount, e.g. `fairlead/<node>`.
    pub cgroup_dir: PathBuf,
    /// Where pods' network namespaces are mounted, e.g. `/run/netns`.
    pub netns_dir: PathBuf,
    /// How the names of this node's pod namespaces begin, e.g. `fairlead-<node>-`; must not be empty.
    pub netns_prefix: String,
    /// Interface that leads to other nodes.
    pub uplink: String,
    /// Where the checkpoint of pods' addresses is kept.
    pub state_dir: PathBuf,
    /// How services are programmed.
    pub proxy_mode: ProxyMode,
    /// Whether connection records are written.
    pub flow_events: bool,
    /// Unix socket of the administration endpoint.
    pub admin_socket: PathBuf,
    /// Where `/healthz` and `/livez` are served; port 10256 by convention.
    pub health_listen: Vec<SocketAddr>,
    /// Where `/proxyMode`, `/metrics` and `/healthz` are served; port 10249 of loopback by convention.
    pub metrics_listen: Vec<SocketAddr>,
}

impl Config {
    /// What `fairlead down` has to remove.
    pub fn footprint(&self) -> NodeFootprint {
        NodeFootprint {
            bpffs_dir: self.bpffs_dir.clone(),
            cgroup_dir: self.cgroup_dir.clone(),
            netns_dir: self.netns_dir.clone(),
            netns_prefix: self.netns_prefix.clone(),
        }
    }

    pub(crate) fn dataplane(&self) -> DataplaneConfig {
        DataplaneConfig {
            bpffs_dir: self.bpffs_dir.clone(),
            cgroup_dir: self.cgroup_dir.clone(),
            uplink: self.uplink.clone(),
            flow_events: self.flow_events,
        }
    }
}
