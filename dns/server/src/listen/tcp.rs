//! Connections: accepted within bounds, each served by a task.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{connection, https};
use crate::{
    handler::Handler,
    metrics::{Client, Transport},
};

/// Connections per address; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Connections per client; more are closed at once.
const CONNECTIONS_PER_CLIENT_MAX: usize = 64;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections each client has.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of a client.
struct Slot {
    clients: Clients,
    client: IpAddr,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    Plain,
    Tls,
    Https,
}

/// What a connection is served with.
#[derive(Clone)]
struct Service {
    speech: Speech,
    tls: Option<TlsAcceptor>,
    handler: Arc<Handler>,
}

/// Accepts connections until shutdown.
pub(super) async fn serve(
    listener: StdListener,
    speech: Speech,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let tls = tls.map(|config| acceptor(&config, speech));
    let service = Service { speech, tls, handler };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let clients = Clients::default();
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            (place, accepted) = accept => match accepted {
                Ok((stream, peer)) => {
                    let Some(slot) = clients.admit(peer.ip()) else {
                        service.handler.shed();
                        continue;
                    };
                    let service = service.clone();
                    connections.spawn(async move {
                        if let Err(error) = service.converse(stream, peer).await {
                            tracing::debug!(%peer, %error, "a connection ended");
                        }
                        drop((place, slot));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a TCP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Takes connections of those who mean to speak what is spoken here.
fn acceptor(config: &rustls::ServerConfig, speech: Speech) -> TlsAcceptor {
    let mut config = config.clone();
    let protocols: &[&[u8]] = match speech {
        Speech::Plain | Speech::Tls => &[b"dot"],
        Speech::Https => &[b"h2", b"http/1.1"],
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

impl Service {
    async fn converse(self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let transport = match self.speech {
            Speech::Plain => Transport::Tcp,
            Speech::Tls => Transport::Tls,
            Speech::Https => Transport::Https,
        };
        let client = Client { peer, local: stream.local_addr()?, transport };
        let Some(acceptor) = self.tls else {
            // DNS over HTTPS without TLS is for a proxy in front that ends TLS.
            return match self.speech {
                Speech::Plain | Speech::Tls => connection::converse(stream, client, &self.handler).await,
                Speech::Https => https::converse(stream, client, self.handler).await,
            };
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
        match self.speech {
            Speech::Plain | Speech::Tls => connection::converse(stream, client, &self.handler).await,
            Speech::Https => https::converse(stream, client, self.handler).await,
        }
    }
}

impl Clients {
    fn admit(&self, client: IpAddr) -> Option<Slot> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_insert(0);
        if *count >= CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        *count += 1;
        Some(Slot { clients: self.clone(), client })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}
