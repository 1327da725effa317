//! What a kubelet is told when it is made.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use tokio::sync::watch;

/// Everything the kubelet of one node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the node, primary family first.
    pub node_ips: Vec<IpAddr>,
    /// containerd's socket.
    pub containerd_socket: PathBuf,
    /// containerd's namespace for this node's images and containers.
    pub containerd_namespace: String,
    /// Volumes and the files of pods; survives restarts.
    pub state_dir: PathBuf,
    /// Short-lived files.
    pub run_dir: PathBuf,
    /// Container logs, as `<namespace>_<pod>_<uid>/<container>/<attempt>.log`.
    pub log_dir: PathBuf,
    /// Where OCI image archives (`*.tar`) are looked for.
    pub image_dirs: Vec<PathBuf>,
    /// This node's subtree of the cgroup hierarchies, without a leading slash: `fairlead/<node>`.
    pub cgroup_root: String,
    /// Name server addresses of pods with the `ClusterFirst` policy.
    pub cluster_dns: Vec<IpAddr>,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// Address of the HTTPS server.
    pub listen: SocketAddr,
    /// Certificate and key of the HTTPS server and the CA of its clients.
    pub tls: TlsConfig,
    /// What the node offers, where it is not what the machine has.
    pub capacity: Capacity,
    /// Labels of the Node object, over the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// True when the node's network is in place.
    pub network_ready: watch::Receiver<bool>,
    /// The program that writes container logs.
    pub log_driver: LogDriver,
    /// Highest number of processes in one container.
    pub pids_limit: Option<i64>,
}

/// PEM texts.
#[derive(Clone)]
pub struct TlsConfig {
    /// Certificate chain of the server.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// Clients must show a certificate of this authority.
    pub client_ca_pem: String,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

/// What the node offers; `None` takes the machine's value.
#[derive(Clone, Default, Debug)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Number of pods; 110 when not given.
    pub pods: Option<u32>,
}

/// A program that containerd's shim starts per container as `<executable> <argument> <log file>`; it must call
/// [`run_log_driver`](crate::run_log_driver) with what follows the argument.
#[derive(Clone, Debug)]
pub struct LogDriver {
    /// Absolute path.
    pub executable: PathBuf,
    /// First argument, a hidden subcommand.
    pub argument: String,
}
