//! Where a node's agent finds and keeps things.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use fairlead_kernel::{DataplaneConfig, NodeFootprint, ServiceOptions, Timeouts};
use fairlead_model::Prefix;
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
    /// How services are carried.
    pub services: ServiceConfig,
    /// Whether connection records are written.
    pub flow_events: bool,
    /// Unix socket of the administration endpoint.
    pub admin_socket: PathBuf,
    /// Unix socket on which this node's own DNS server shows that it is alive; without one it counts as alive.
    pub dns_heartbeat: Option<PathBuf>,
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
            services: self.services.options.clone(),
        }
    }
}

/// How services are carried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceConfig {
    /// What the kernel side is told.
    pub options: ServiceOptions,
    /// Addresses of the node as the API knows it; connections are masqueraded with them. The uplink's stand in for those
    /// that are not given.
    pub addresses: Vec<IpAddr>,
    /// Which of its addresses serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// How long connections are remembered.
    pub timeouts: Timeouts,
    /// Networks of cluster addresses: what is sent to one that nobody has is refused, or in nftables mode dropped.
    /// Without any they are those that the feed tells.
    pub service_networks: Vec<Prefix>,
    /// `spec.externalIPs` of services are not served.
    pub ignore_external_addresses: bool,
    /// How often everything is compared with what the kernel holds: others change it, too.
    pub repair_period: Duration,
    /// What concerns the modes with rules only.
    pub rules: RuleConfig,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            options: ServiceOptions::default(),
            addresses: Vec::new(),
            node_port_addresses: NodePortAddresses::default(),
            timeouts: Timeouts::default(),
            service_networks: Vec::new(),
            ignore_external_addresses: false,
            repair_period: Duration::from_secs(30),
            rules: RuleConfig::default(),
        }
    }
}

/// Settings of the modes iptables, nftables and IPVS, named as kube-proxy's flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleConfig {
    /// Masquerade everything that is sent to a cluster address.
    pub masquerade_all: bool,
    /// Bit of the packet mark that asks for masquerading.
    pub masquerade_bit: u8,
    /// Networks of all pods (`--cluster-cidr`); empty: a pod is whoever is in this node's pod networks.
    pub pod_networks: Vec<Prefix>,
    /// Node ports on `127.0.0.1`, iptables mode only.
    pub localhost_node_ports: bool,
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            masquerade_all: false,
            masquerade_bit: fairlead_plan::classic::MASQUERADE_BIT,
            pod_networks: Vec::new(),
            localhost_node_ports: true,
        }
    }
}

/// Which addresses of the node serve node ports and host ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum NodePortAddresses {
    /// All, the loopback addresses among them.
    #[default]
    All,
    /// [`ServiceConfig::addresses`].
    Primary,
    /// Those in these networks.
    Within(Vec<Prefix>),
}
