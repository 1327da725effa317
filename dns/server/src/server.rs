//! The server: binds everything, then runs everything.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use fairlead_model::Update;
use fairlead_zone::Zone;
use futures::{Stream, StreamExt, stream::BoxStream};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, DnsError,
    admin::{self, Endpoint},
    forward::Forwarder,
    handler::Handler,
    metrics::Metrics,
    sync, tcp, udp,
};

/// A DNS server that is bound and not yet running.
pub struct DnsServer {
    handler: Arc<Handler>,
    zone: Arc<ArcSwap<Zone>>,
    metrics: Arc<Metrics>,
    updates: BoxStream<'static, Update>,
    addresses: Vec<SocketAddr>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
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
            updates: updates.boxed(),
            addresses: Vec::new(),
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for address in &config.listen {
            server.bind(*address, config.workers.max(1)).await?;
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
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), DnsError> {
        let stop = shutdown.child_token();
        let mut tasks: JoinSet<Result<(), DnsError>> = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(udp::serve(socket, Arc::clone(&self.handler), stop.clone()));
        }
        for listener in self.tcp {
            let serving = tcp::serve(listener, Arc::clone(&self.handler), stop.clone());
            tasks.spawn(async {
                serving.await;
                Ok(())
            });
        }
        for endpoint in self.endpoints {
            let serving = endpoint.serve(stop.clone());
            tasks.spawn(async {
                serving.await;
                Ok(())
            });
        }
        let following = sync::follow(self.updates, self.zone, self.metrics, stop.clone());
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

    /// Binds TCP first: it is the one that fails when another server is there.
    async fn bind(&mut self, address: SocketAddr, workers: usize) -> Result<(), DnsError> {
        let failure = |protocol| move |source| DnsError::Bind { address, protocol, purpose: "DNS", source };
        let listener = tcp::bind(address).await.map_err(failure("TCP"))?;
        let bound = listener.local_addr().map_err(failure("TCP"))?;
        self.udp.extend(udp::bind(bound, workers).map_err(failure("UDP"))?);
        self.tcp.push(listener);
        self.addresses.push(bound);
        Ok(())
    }
}
