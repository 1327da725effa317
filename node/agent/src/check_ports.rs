//! Servers on services' `healthCheckNodePort`s: a load balancer asks each node whether it has endpoints of the service.
//!
//! Which ports are open follows the cluster ([`Locals`](crate::locals::Locals)); what is answered is looked up when it
//! is asked.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{AgentError, health::Health};

/// How many ready endpoints stand behind the answer, for load balancers that weigh (KEP-4770's header).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Pause before a port that somebody else has is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The servers.
pub(crate) struct CheckPorts {
    health: Arc<Health>,
    /// They listen on every address; else on those that serve node ports.
    everywhere: bool,
    ports: BTreeMap<u16, Port>,
    serving: JoinSet<()>,
    retry_at: Option<Instant>,
}

/// A port that is asked for.
#[derive(Default)]
struct Port {
    servers: BTreeMap<IpAddr, Server>,
    /// The user knows that it cannot be opened.
    warned: bool,
}

struct Server {
    stop: CancellationToken,
    closed: oneshot::Receiver<()>,
}

impl CheckPorts {
    pub(crate) fn new(health: Arc<Health>, everywhere: bool) -> Self {
        let (ports, serving) = (BTreeMap::new(), JoinSet::new());
        Self { health, everywhere, ports, serving, retry_at: None }
    }

    /// Follows the cluster until it is told to stop.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let mut stats = self.health.stats.subscribe();
        loop {
            self.follow().await;
            let retry_at = self.retry_at;
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = stats.changed() => if changed.is_err() { break },
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
                Some(_) = self.serving.join_next() => {}
            }
        }
        for port in std::mem::take(&mut self.ports).into_values() {
            port.close().await;
        }
        Ok(())
    }

    /// Closes what nobody asks for any more, then opens what is missing.
    async fn follow(&mut self) {
        let wanted = self.health.cluster.read(|inner| inner.locals.ports());
        let unwanted: Vec<u16> = self.ports.keys().filter(|port| !wanted.contains(port)).copied().collect();
        for port in unwanted {
            if let Some(port) = self.ports.remove(&port) {
                port.close().await;
            }
        }
        let addresses = match self.everywhere {
            true => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
            false => self.health.stats.peek(|stats| stats.node_port_addresses.clone()),
        };
        for port in self.ports.values_mut() {
            port.leave(|address| !addresses.contains(address)).await;
        }
        let due = self.retry_at.is_none_or(|at| at <= Instant::now());
        let mut failed = false;
        for number in wanted {
            let missing = |port: &Port| addresses.iter().any(|address| !port.servers.contains_key(address));
            match self.ports.get(&number) {
                Some(port) if !missing(port) => {}
                Some(port) if port.warned && !due => failed = true,
                _ => failed |= !self.open(number, &addresses).await,
            }
        }
        if due || !failed {
            self.retry_at = failed.then(|| Instant::now() + RETRY);
        }
    }

    /// Opens the port on those of the addresses where it is not; false when one cannot be had.
    async fn open(&mut self, number: u16, addresses: &[IpAddr]) -> bool {
        let port = self.ports.entry(number).or_default();
        let mut problem = None;
        for address in addresses.iter().copied() {
            if port.servers.contains_key(&address) {
                continue;
            }
            match bind(address, number).await {
                Ok(listener) => {
                    let (stop, (dropped, closed)) = (CancellationToken::new(), oneshot::channel());
                    let listener = Watched { listener, _dropped: dropped };
                    let router = router(Arc::clone(&self.health), number);
                    let served =
                        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
                    self.serving.spawn(async move {
                        if let Err(error) = served.await {
                            tracing::warn!(port = number, %error, "a health check port stopped");
                        }
                    });
                    port.servers.insert(address, Server { stop, closed });
                }
                Err(error) => problem = Some((address, error)),
            }
        }
        let Some((address, error)) = problem else {
            port.warned = false;
            return true;
        };
        if !std::mem::replace(&mut port.warned, true) {
            let name =
                self.health.cluster.read(|inner| inner.locals.at_port(number).map(|(name, _)| name.clone()));
            let service = name.map(|name| name.to_string()).unwrap_or_default();
            tracing::warn!(
                "service {service}: its healthCheckNodePort cannot be opened at {}: {error}; trying again every {} s",
                SocketAddr::new(address, number),
                RETRY.as_secs()
            );
        }
        false
    }
}

impl Port {
    /// Returns when nothing listens any more, so that the port can be opened again.
    async fn close(mut self) {
        self.leave(|_| true).await;
    }

    /// The same for some addresses.
    async fn leave(&mut self, unwanted: impl Fn(&IpAddr) -> bool) {
        for server in self.servers.extract_if(.., |address, _| unwanted(address)) {
            server.1.stop.cancel();
            // An error is the sender's end: the listener is gone.
            let _ = server.1.closed.await;
        }
    }
}

/// Every address of both families, or of IPv4 where the host has no IPv6.
async fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::new(address, port)).await {
        Err(error)
            if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// A listener whose end can be waited for.
struct Watched {
    listener: TcpListener,
    _dropped: oneshot::Sender<()>,
}

impl axum::serve::Listener for Watched {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        axum::serve::Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn router(health: Arc<Health>, port: u16) -> Router {
    // kube-proxy answers on every path, and load balancers are configured with several.
    Router::new().fallback(answer).with_state((health, port))
}

/// The fields and headers are kube-proxy's (`pkg/proxy/healthcheck/service_health.go`).
async fn answer(State((health, port)): State<(Arc<Health>, u16)>) -> Response {
    let found =
        health.cluster.read(|inner| inner.locals.at_port(port).map(|(name, ready)| (name.clone(), ready)));
    let Some((name, ready)) = found else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let healthy = health.is_alive();
    let status = if healthy && ready > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (WEIGHT, HeaderValue::from(ready)),
    ];
    let body = json!({
        "service": { "namespace": &*name.namespace, "name": &*name.name },
        "localEndpoints": ready,
        "serviceProxyHealthy": healthy,
    });
    (status, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
