//! What the server is told.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use fairlead_model::{ObjectName, Prefix};
use fairlead_zone::{Name, ZoneConfig};

use crate::{DnsError, Inherited};

/// Configuration of a [`crate::DnsServer`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to answer on, UDP and TCP; each a real address, because an answer leaves from the address that was
    /// asked.
    pub listen: Vec<SocketAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Networks whose reverse names only this server answers: those of services and pods.
    pub reverse_networks: Vec<Prefix>,
    /// How long clients may keep a record of the cluster.
    pub ttl_secs: u32,
    /// The service that leads to this server.
    pub dns_service: ObjectName,
    /// Where names outside the cluster are asked, in order of preference; none refuses them.
    pub upstreams: Vec<SocketAddr>,
    /// Where Prometheus text is served (`/metrics`); not served without an address.
    pub metrics_listen: Option<SocketAddr>,
    /// Where `/health` is served.
    pub health_listen: Option<SocketAddr>,
    /// Where `/ready` is served.
    pub ready_listen: Option<SocketAddr>,
    /// UDP sockets and tasks per address; the kernel spreads clients over them.
    pub workers: usize,
    /// Sockets to answer on that are open already.
    pub inherited: Inherited,
    /// Where the names of the cluster are kept for the next start; nowhere without a path.
    pub snapshot: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            cluster_domain: "cluster.local".into(),
            reverse_networks: vec![
                Prefix { address: [10, 96, 0, 0].into(), length: 16 },
                Prefix { address: [0xfd00, 0x96, 0, 0, 0, 0, 0, 0].into(), length: 112 },
                Prefix { address: [10, 244, 0, 0].into(), length: 16 },
                Prefix { address: [0xfd00, 0x244, 0, 0, 0, 0, 0, 0].into(), length: 56 },
            ],
            ttl_secs: 5,
            dns_service: ObjectName::new("kube-system", "kube-dns"),
            upstreams: Vec::new(),
            metrics_listen: None,
            health_listen: None,
            ready_listen: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            inherited: Inherited::default(),
            snapshot: None,
        }
    }
}

impl Config {
    /// The zone's part of the configuration.
    pub(crate) fn zone(&self) -> Result<ZoneConfig, DnsError> {
        let cluster_domain = Name::parse(&self.cluster_domain)
            .map_err(|source| DnsError::ClusterDomain { domain: self.cluster_domain.clone(), source })?;
        let addresses: Vec<IpAddr> = self.listen.iter().map(SocketAddr::ip).collect();
        if addresses.is_empty() {
            return Err(DnsError::NoListenAddress);
        }
        if let Some(address) = self.listen.iter().find(|address| address.ip().is_unspecified()) {
            return Err(DnsError::WildcardListenAddress { address: *address });
        }
        Ok(ZoneConfig {
            cluster_domain,
            reverse_networks: self.reverse_networks.clone(),
            ttl_secs: self.ttl_secs,
            dns_service: self.dns_service.clone(),
            addresses,
        })
    }
}
