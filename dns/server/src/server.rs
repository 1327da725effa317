//! The server: binds everything, then runs everything.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use fairlead_model::{Update, View};
use fairlead_zone::Zone;
use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, DnsError,
    admin::{self, Endpoint},
    forward::Forwarder,
    handler::Handler,
    listen::{self, Bound, Listen, Scheme},
    metrics::Metrics,
    snapshot, sync,
};

/// A DNS server that is bound and not yet running.
pub struct DnsServer {
    handler: Arc<Handler>,
    zone: Arc<ArcSwap<Zone>>,
    metrics: Arc<Metrics>,
    updates: BoxStream<'static, Update>,
    addresses: Vec<SocketAddr>,
    bound: Vec<Bound>,
    endpoints: Vec<Endpoint>,
}

impl DnsServer {
    /// Binds all sockets. Updates of the cluster come from a stream, so that their source (the feed, a file, a test)
    /// is not this server's business.
    pub async fn new(
        config: Config,
        updates: impl Stream<Item = Update> + Send + 'static,
    ) -> Result<Self, DnsError> {
        let zone_config = config.zone()?;
        let port = config.listen.first().map_or(53, SocketAddr::port);
        let metrics = Arc::new(Metrics::new(port, &zone_config.cluster_domain.to_string()));
        let forwarder = Arc::new(Forwarder::new(&config.upstreams, Arc::clone(&metrics)));
        let zone = Arc::new(ArcSwap::from_pointee(Zone::new(zone_config)));
        if !forwarder.has_upstreams() {
            tracing::warn!(
                "no upstream DNS server is configured: names outside {} are refused",
                config.cluster_domain
            );
        }
        let mut server = Self {
            handler: Arc::new(Handler::new(Arc::clone(&zone), Arc::clone(&forwarder), Arc::clone(&metrics))),
            endpoints: admin::bind(&config, &zone, &forwarder, &metrics).await?,
            zone,
            metrics,
            updates: match config.snapshot {
                Some(path) => snapshot::remember(path, updates.boxed()).boxed(),
                None => updates.boxed(),
            },
            addresses: Vec::new(),
            bound: Vec::new(),
        };
        for address in &config.listen {
            let bound = listen::bind(&Listen {
                address: *address,
                scheme: Scheme::Dns,
                tls: None,
                workers: config.workers,
                inherited: config.inherited.clone(),
            })?;
            server.addresses.push(bound.address());
            server.bound.push(bound);
        }
        Ok(server)
    }

    /// The bound addresses, in the order they were configured.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The bound addresses of the HTTP endpoints that were configured: metrics, health, readiness, in this order.
    pub fn endpoint_addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().filter_map(Endpoint::address).collect()
    }

    /// Serves until shutdown or until a socket fails.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), DnsError> {
        let mut view = View::default();
        // What is known from the last run is there at once: the first question meets it.
        if let Some(Some(update)) = self.updates.next().now_or_never() {
            sync::apply(&mut view, update, &self.zone);
        }
        let stop = shutdown.child_token();
        let mut tasks: JoinSet<Result<(), DnsError>> = JoinSet::new();
        for bound in self.bound {
            tasks.spawn(bound.serve(Arc::clone(&self.handler), stop.clone()));
        }
        for endpoint in self.endpoints {
            let serving = endpoint.serve(stop.clone());
            tasks.spawn(async {
                serving.await;
                Ok(())
            });
        }
        let following = sync::follow(self.updates, view, self.zone, self.metrics, stop.clone());
        tasks.spawn(async {
            following.await;
            Ok(())
        });
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            // A panic in one loop ends the server: its supervisor starts a whole one again.
            let ended = match ended.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(ended) => ended,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Err(Err(_cancelled)) => Ok(()),
            };
            if result.is_ok() {
                result = ended;
            }
            stop.cancel();
        }
        result
    }
}
