//! What the server is told.

use std::{fmt::Write, net::SocketAddr, path::PathBuf, sync::Arc};

use fairlead_model::ObjectName;

use crate::{Inherited, Labels};

/// Configuration of a [`crate::DnsServer`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What to serve.
    pub corefile: Corefile,
    /// Addresses to answer on, UDP and TCP, where the Corefile names none for the usual port; other ports are served
    /// on the same hosts. None is every address of the host.
    pub listen: Vec<SocketAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The service that leads to this server.
    pub dns_service: ObjectName,
    /// Where names outside the cluster are asked, in order of preference: the upstream servers of the default Corefile
    /// (none refuses those names), and what `/etc/resolv.conf` means to `forward`.
    pub upstreams: Vec<SocketAddr>,
    /// Where Prometheus text is served (`/metrics`).
    pub metrics: At,
    /// Where `/health` is served.
    pub health: At,
    /// Where `/ready` is served.
    pub ready: At,
    /// UDP sockets and tasks per address; the kernel spreads clients over them.
    pub workers: usize,
    /// Whether the names of a cluster come in; `kubernetes` needs them.
    pub has_cluster: bool,
    /// Who knows labels; without, `kubernetes` cannot select by them.
    pub labels: Option<Arc<dyn Labels>>,
    /// Sockets to answer on that are open already.
    pub inherited: Inherited,
    /// Where the names of the cluster are kept for the next start; nowhere without a path.
    pub snapshot: Option<PathBuf>,
    /// Unix socket of whoever wants signs of life; nobody does without one.
    pub heartbeat: Option<PathBuf>,
}

/// Where the Corefile is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Corefile {
    /// The one that the cluster keeps, and until it has one, kubeadm's.
    Cluster,
    /// A file.
    File(PathBuf),
    /// A text; its name is for messages.
    Text {
        /// What the file would be called.
        name: String,
        /// What would be in it.
        text: String,
    },
}

/// Where an HTTP endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// As the Corefile says.
    Corefile,
    /// Nowhere, whatever the Corefile says.
    Nowhere,
    /// Here, if the Corefile has it at all.
    Address(SocketAddr),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            corefile: Corefile::Cluster,
            listen: Vec::new(),
            cluster_domain: "cluster.local".into(),
            dns_service: ObjectName::new("kube-system", "kube-dns"),
            upstreams: Vec::new(),
            metrics: At::Corefile,
            health: At::Corefile,
            ready: At::Corefile,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            has_cluster: true,
            labels: None,
            inherited: Inherited::default(),
            snapshot: None,
            heartbeat: None,
        }
    }
}

impl Config {
    /// kubeadm's Corefile for this cluster, with our upstream servers. Without `lameduck`: nothing leads clients to a
    /// server on their own node but its life, so that there is nothing to wait for at its end.
    pub(crate) fn default_corefile(&self) -> String {
        let domain = &self.cluster_domain;
        let mut forward = String::new();
        if !self.upstreams.is_empty() {
            forward.push_str("    forward .");
            for upstream in &self.upstreams {
                write!(forward, " {upstream}").expect("a string takes all text");
            }
            forward.push_str(" {\n       policy sequential\n       max_concurrent 1000\n    }\n");
        }
        format!(
            ".:53 {{
    errors
    health
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
{forward}    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
        )
    }
}
