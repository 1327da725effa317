//! Where a cluster keeps its things. Two clusters share none of these.

use std::path::{Path, PathBuf};

/// Networks of services' addresses, one of each family, unless others are given.
pub(crate) const SERVICE_NETWORKS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];

/// The name a cluster has when none is given.
pub(crate) const DEFAULT_CLUSTER: &str = "fairlead";

/// A development cluster's name and directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClusterPaths {
    /// The cluster's name: lower-case letters, digits and dashes.
    pub(crate) name: String,
    /// What is kept between runs: the store, the CA, containerd's images, volumes.
    pub(crate) state: PathBuf,
    /// What lives as long as the cluster runs: sockets, logs, the ledger.
    pub(crate) run: PathBuf,
}

impl ClusterPaths {
    /// Directories of the cluster `name`, those given or else the usual ones.
    pub(crate) fn new(name: &str, state: Option<PathBuf>, run: Option<PathBuf>) -> Self {
        let suffix = if name == DEFAULT_CLUSTER { String::new() } else { format!("-{name}") };
        Self {
            name: name.to_owned(),
            state: state.unwrap_or_else(|| format!("/var/lib/fairlead{suffix}").into()),
            run: run.unwrap_or_else(|| format!("/run/fairlead{suffix}").into()),
        }
    }

    /// What `up` has made, for `down`.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.run.join(format!("{}.json", self.name))
    }

    /// Held by the `up` that uses the state directory.
    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("up.lock")
    }

    /// Directory of the children's logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// A child's log.
    pub(crate) fn log(&self, role: &str) -> PathBuf {
        self.logs().join(format!("{role}.log"))
    }

    /// Administrator's kubeconfig, with the API server's address on the host.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    /// The CA and the certificates it has issued.
    pub(crate) fn pki(&self) -> PathBuf {
        pki_of(&self.state)
    }

    /// Directory with a directory for each node: `admin.sock`, kubeconfig, pod namespaces.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.run.join("nodes")
    }

    /// A node's runtime directory.
    pub(crate) fn node_run(&self, node: &str) -> PathBuf {
        self.nodes().join(node)
    }

    /// A node's persistent directory.
    pub(crate) fn node_state(&self, node: &str) -> PathBuf {
        self.state.join("nodes").join(node)
    }

    /// The private containerd's runtime directory.
    pub(crate) fn containerd_run(&self) -> PathBuf {
        self.run.join("containerd")
    }

    /// The private containerd's persistent directory.
    pub(crate) fn containerd_state(&self) -> PathBuf {
        self.state.join("containerd")
    }

    /// Name of the network namespace of a node, or of the fabric.
    pub(crate) fn netns_name(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }

    /// Path of that network namespace.
    pub(crate) fn netns(&self, node: &str) -> PathBuf {
        Path::new(NETNS_DIR).join(self.netns_name(node))
    }

    /// True for the name of a network namespace that `up` makes for this cluster, and for no other cluster's.
    pub(crate) fn owns_netns(&self, name: &str) -> bool {
        name.strip_prefix(self.name.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|role| role == FABRIC || is_node_name(role))
    }

    /// A node's directory of pinned maps, programs and links.
    pub(crate) fn bpffs(&self, node: &str) -> PathBuf {
        Path::new(BPFFS).join("fairlead").join(self.netns_name(node))
    }

    /// Path of the cluster's cgroup below a cgroup mount.
    pub(crate) fn cgroup(&self) -> PathBuf {
        Path::new("fairlead").join(&self.name)
    }
}

/// Where `ip netns` keeps its names too.
pub(crate) const NETNS_DIR: &str = "/run/netns";
/// Where a BPF file system belongs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// Role of the namespace with the bridge.
pub(crate) const FABRIC: &str = "fabric";

/// The CA below a server's state directory.
pub(crate) fn pki_of(state: &Path) -> PathBuf {
    state.join("pki")
}

/// Socket in a node's runtime directory on which its DNS server shows that it is alive.
pub(crate) const DNS_HEARTBEAT: &str = "dns.sock";

/// Name of the `index`th node, from 1.
pub(crate) fn node_name(index: u8) -> String {
    format!("node-{index}")
}

fn is_node_name(name: &str) -> bool {
    name.strip_prefix("node-").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::ClusterPaths;

    #[test]
    fn clusters_share_no_directory() {
        let (a, b) = (ClusterPaths::new("fairlead", None, None), ClusterPaths::new("blue", None, None));
        assert_eq!(a.state.to_str(), Some("/var/lib/fairlead"));
        assert_eq!(b.state.to_str(), Some("/var/lib/fairlead-blue"));
        assert_ne!(a.run, b.run);
        assert_ne!(a.bpffs("node-1"), b.bpffs("node-1"));
        assert_ne!(a.cgroup(), b.cgroup());
    }

    #[test]
    fn a_namespace_belongs_to_exactly_one_cluster() {
        let (a, b) = (ClusterPaths::new("a", None, None), ClusterPaths::new("a-node-1", None, None));
        for (name, of_a, of_b) in [
            ("a-node-1", true, false),
            ("a-fabric", true, false),
            ("a-node-1-fabric", false, true),
            ("a-node-1-node-2", false, true),
            ("a-node-", false, false),
            ("ab-node-1", false, false),
        ] {
            assert_eq!((a.owns_netns(name), b.owns_netns(name)), (of_a, of_b), "{name}");
        }
    }
}
