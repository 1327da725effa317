//! HTTP for people and probes: metrics, health, readiness.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use fairlead_zone::Zone;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, DnsError, forward::Forwarder, metrics::Metrics};

/// A listener with what it serves.
pub(crate) struct Endpoint {
    listener: TcpListener,
    router: Router,
}

/// Binds the endpoints that are configured.
pub(crate) async fn bind(
    config: &Config,
    zone: &Arc<ArcSwap<Zone>>,
    forwarder: &Arc<Forwarder>,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Endpoint>, DnsError> {
    let rows = [
        (config.metrics_listen, "metrics", metrics_router(forwarder, metrics)),
        (config.health_listen, "health", Router::new().route("/health", get(|| async { "OK" }))),
        (config.ready_listen, "readiness", ready_router(zone)),
    ];
    let mut endpoints = Vec::new();
    for (address, purpose, router) in rows {
        let Some(address) = address else { continue };
        let listener = listen(address, purpose).await?;
        endpoints.push(Endpoint { listener, router });
    }
    Ok(endpoints)
}

impl Endpoint {
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until shutdown.
    pub(crate) async fn serve(self, shutdown: CancellationToken) {
        let server = axum::serve(self.listener, self.router);
        if let Err(error) = server.with_graceful_shutdown(shutdown.cancelled_owned()).await {
            tracing::warn!(%error, "an HTTP endpoint of the DNS server ended");
        }
    }
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, DnsError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| DnsError::Bind { address, protocol: "TCP", purpose, source })
}

fn metrics_router(forwarder: &Arc<Forwarder>, metrics: &Arc<Metrics>) -> Router {
    let (forwarder, metrics) = (Arc::clone(forwarder), Arc::clone(metrics));
    Router::new().route(
        "/metrics",
        get(move || async move {
            let text = metrics.to_text(&forwarder);
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
        }),
    )
}

fn ready_router(zone: &Arc<ArcSwap<Zone>>) -> Router {
    let zone = Arc::clone(zone);
    Router::new().route(
        "/ready",
        get(move || async move {
            if zone.load().is_synced() {
                (StatusCode::OK, "OK")
            } else {
                // CoreDNS answers with the names of what is not ready.
                (StatusCode::SERVICE_UNAVAILABLE, "kubernetes")
            }
        }),
    )
}
