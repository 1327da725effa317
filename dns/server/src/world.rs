//! What outlives a Corefile: the cluster, the metrics, and what the command line says.

use std::{net::SocketAddr, sync::Arc};

use fairlead_zone::Name;
use tokio::sync::mpsc;

use crate::{
    Config, DnsError,
    config::At,
    heartbeat::Pulse,
    metrics::{Family, Registry},
    sync::Cluster,
};

const PLUGIN_ENABLED: Family = Family {
    name: "coredns_plugin_enabled",
    help: "A metric that indicates whether a plugin is enabled on per server and zone basis.",
};
const BUILD_INFO: Family = Family {
    name: "coredns_build_info",
    help: "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
};

/// What plugins may use.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) pulse: Arc<Pulse>,
    /// Ends the server.
    pub(crate) fatal: mpsc::UnboundedSender<DnsError>,
}

impl World {
    pub(crate) fn new(config: Config, fatal: mpsc::UnboundedSender<DnsError>) -> Self {
        let registry = Arc::new(Registry::default());
        let version = env!("CARGO_PKG_VERSION");
        registry.gauge(&BUILD_INFO, &[("goversion", ""), ("revision", ""), ("version", version)]).set(1);
        let cluster = Arc::new(Cluster::new(&registry));
        let pulse = Arc::new(Pulse::new(config.heartbeat.is_some()));
        Self { config, registry, cluster, pulse, fatal }
    }

    /// Says in the metrics that a plugin is in use.
    pub(crate) fn plugin_enabled(&self, server: &str, zones: &[Name], name: &str) {
        for zone in zones {
            let labels = [("name", name), ("server", server), ("view", ""), ("zone", &*zone.to_string())];
            self.registry.gauge(&PLUGIN_ENABLED, &labels).set(1);
        }
    }

    /// Where an endpoint is, when the command line does not say otherwise.
    pub(crate) fn endpoint(&self, at: At, corefile: SocketAddr) -> Option<SocketAddr> {
        match at {
            At::Corefile => Some(corefile),
            At::Nowhere => None,
            At::Address(address) => Some(address),
        }
    }
}
