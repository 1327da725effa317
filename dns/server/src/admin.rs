//! HTTP for people and probes: metrics, health, readiness.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{DnsError, chain::ServerBlock, generation::Endpoint, metrics::Registry};

/// How long a request that has begun may go on after the end.
const GRACE: Duration = Duration::from_secs(1);

/// What the endpoints look at.
pub(crate) struct Status {
    pub(crate) registry: Arc<Registry>,
    /// The server blocks that are served now.
    pub(crate) blocks: ArcSwap<Vec<Arc<ServerBlock>>>,
    /// Ready once is ready, unless the Corefile says otherwise.
    pub(crate) was_ready: AtomicBool,
    pub(crate) continuously: AtomicBool,
    /// Told to end.
    pub(crate) ending: AtomicBool,
}

/// A bound listener.
pub(crate) struct Admin {
    listener: TcpListener,
    /// What it serves; replaced when the Corefile is.
    pub(crate) endpoint: Arc<ArcSwap<Endpoint>>,
}

type Shared = (Arc<Status>, Arc<ArcSwap<Endpoint>>);

impl Status {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            blocks: ArcSwap::default(),
            was_ready: AtomicBool::new(false),
            continuously: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        }
    }

    /// Whether every plugin can do its work, and nobody told it to end.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ending.load(Ordering::Relaxed) && self.unready().is_empty()
    }

    /// The plugins that are not ready, by name.
    fn unready(&self) -> Vec<&'static str> {
        if self.was_ready.load(Ordering::Relaxed) && !self.continuously.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let blocks = self.blocks.load();
        let slots = blocks.iter().flat_map(|block| &block.plugins);
        let mut names: Vec<&str> =
            slots.filter(|slot| !slot.plugin.is_ready()).map(|slot| slot.name).collect();
        names.sort_unstable();
        names.dedup();
        self.was_ready.store(names.is_empty(), Ordering::Relaxed);
        names
    }
}

impl Admin {
    /// Binds an address.
    pub(crate) async fn bind(address: SocketAddr, endpoint: Endpoint) -> Result<Self, DnsError> {
        let purpose = match endpoint {
            Endpoint { metrics: true, .. } => "metrics",
            Endpoint { health: true, .. } => "health",
            _ => "readiness",
        };
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.map_err(|source| DnsError::Bind { address, protocol: "TCP", purpose, source })?;
        Ok(Self { listener, endpoint: Arc::new(ArcSwap::from_pointee(endpoint)) })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until shutdown.
    pub(crate) async fn serve(self, status: Arc<Status>, shutdown: CancellationToken) {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/health", get(health))
            .route("/ready", get(ready))
            .with_state((status, self.endpoint));
        // Half a request may stay half for ever: its client does not hold up the end.
        let late = async {
            shutdown.cancelled().await;
            sleep(GRACE).await;
        };
        let server = axum::serve(self.listener, router);
        let server = server.with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tokio::select! {
            result = server.into_future() => if let Err(error) = result {
                tracing::warn!(%error, "an HTTP endpoint of the DNS server ended");
            },
            () = late => {}
        }
    }
}

async fn metrics(State((status, endpoint)): State<Shared>) -> Response {
    if !endpoint.load().metrics {
        return StatusCode::NOT_FOUND.into_response();
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], status.registry.to_text()).into_response()
}

async fn health(State((_, endpoint)): State<Shared>) -> Response {
    if endpoint.load().health { "OK".into_response() } else { StatusCode::NOT_FOUND.into_response() }
}

/// CoreDNS answers with the names of what is not ready.
async fn ready(State((status, endpoint)): State<Shared>) -> Response {
    if !endpoint.load().ready {
        return StatusCode::NOT_FOUND.into_response();
    }
    if status.ending.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    match status.unready().as_slice() {
        [] => "OK".into_response(),
        names => (StatusCode::SERVICE_UNAVAILABLE, names.join(",")).into_response(),
    }
}
