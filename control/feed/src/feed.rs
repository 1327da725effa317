//! The feed as a component: binds, watches, serves.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    time::Duration,
};

use fairlead_wire::proto::feed_server::FeedServer;
use futures::{Stream, StreamExt};
use kube::Client;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::Connected};

use crate::{
    index::Index,
    service::{FeedService, Shared},
    watch,
};

/// History kept for readers that reconnect, in changes.
const LOG_CHANGES_MAX: usize = 20_000;

/// Observations that one update may hold; more wait for the next one.
const BATCH_MAX: usize = 4096;

/// How often an idle connection is checked, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the feed listens, and who may read it.
#[derive(Debug)]
pub struct FeedConfig {
    /// Bound sockets; all serve the same feed.
    pub listeners: Vec<TcpListener>,
    /// Both sides of the mutual TLS.
    pub tls: FeedTls,
}

/// The server's identity and the authority that signs its readers'.
#[derive(Clone)]
pub struct FeedTls {
    /// The server's certificate (chain), PEM.
    pub cert_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
    /// Certificate authority of the clients, PEM. A client without a certificate of it is refused.
    pub client_ca_pem: String,
}

impl std::fmt::Debug for FeedTls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedTls").finish_non_exhaustive()
    }
}

/// Why the feed cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// A given socket cannot be used.
    #[error("the feed cannot listen on {address}")]
    Listen {
        /// Where it is bound, if that is known.
        address: String,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// The certificates are not usable.
    #[error("the feed's certificate, key or client CA is not usable; they must be PEM and match")]
    Tls(#[source] tonic::transport::Error),
    /// The server ended.
    #[error("the feed's server failed")]
    Serve(#[source] tonic::transport::Error),
}

/// The feed, bound and ready to run.
pub struct Feed {
    sockets: Sockets,
    server: Server,
    shared: Shared,
    client: Client,
    pods: Pods,
    service_networks: bool,
}

/// Where readers come from.
enum Sockets {
    Tcp(Vec<tokio::net::TcpListener>),
    Unix(tokio::net::UnixListener),
}

/// Which pods are told of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Pods {
    /// Those of every node.
    #[default]
    All,
    /// Those of one node, for a reader that is that node's and needs names of no others.
    OfNode(String),
}

impl Feed {
    /// Takes over the sockets and the certificates. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// A socket or a certificate is not usable.
    pub async fn new(config: FeedConfig, client: Client) -> Result<Self, FeedError> {
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&config.tls.cert_pem, &config.tls.key_pem))
            .client_ca_root(Certificate::from_pem(&config.tls.client_ca_pem));
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .tls_config(tls)
            .map_err(FeedError::Tls)?;
        let listeners = config.listeners.into_iter().map(adopt).collect::<Result<_, _>>()?;
        Ok(Self::with(Sockets::Tcp(listeners), server, client, Pods::All))
    }

    /// A feed for readers on this machine, in clear: whoever may open the socket may read. Must be called inside a Tokio
    /// runtime.
    ///
    /// # Errors
    /// The socket is not usable.
    pub fn local(listener: UnixListener, client: Client, pods: Pods) -> Result<Self, FeedError> {
        let address = listener.local_addr().ok();
        let address = address.and_then(|address| Some(address.as_pathname()?.display().to_string()));
        let adopted =
            listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
        let failed = |source| FeedError::Listen { address: address.unwrap_or_default(), source };
        let listener = adopted.map_err(failed)?;
        Ok(Self::with(Sockets::Unix(listener), Server::builder(), client, pods))
    }

    fn with(sockets: Sockets, server: Server, client: Client, pods: Pods) -> Self {
        let index = Index::new(random_epoch(), LOG_CHANGES_MAX);
        Self { sockets, server, shared: Shared::new(index), client, pods, service_networks: true }
    }

    /// Does not ask where addresses of services are: the reader knows.
    #[must_use]
    pub fn without_service_networks(mut self) -> Self {
        self.service_networks = false;
        self
    }

    /// The network addresses where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match &self.sockets {
            Sockets::Tcp(listeners) => {
                listeners.iter().filter_map(|socket| socket.local_addr().ok()).collect()
            }
            Sockets::Unix(_) => Vec::new(),
        }
    }

    /// Watches and serves until the shutdown; then every reader's stream ends.
    ///
    /// # Errors
    /// The server cannot accept connections any more.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), FeedError> {
        let Self { sockets, server, shared, client, pods, service_networks } = self;
        let service = FeedService { shared: shared.clone(), shutdown: shutdown.clone() };
        let serving = async {
            match sockets {
                Sockets::Tcp(listeners) => {
                    let connections = listeners.into_iter().map(TcpListenerStream::new);
                    let connections = futures::stream::select_all(connections).inspect(|connection| {
                        if let Ok(connection) = connection
                            && let Err(error) = connection.set_nodelay(true)
                        {
                            tracing::debug!(%error, "TCP_NODELAY");
                        }
                    });
                    serve(server, service, connections, shutdown).await
                }
                Sockets::Unix(listener) => {
                    serve(server, service, UnixListenerStream::new(listener), shutdown).await
                }
            }
        };
        let watching = async {
            let mut observations = watch::all(&client, &pods, service_networks).ready_chunks(BATCH_MAX);
            while let Some(batch) = observations.next().await {
                shared.update(|index| batch.into_iter().for_each(|one| index.observe(one)));
            }
        };
        tokio::select! {
            served = serving => served,
            () = watching => Ok(()),
        }
    }
}

async fn serve<C>(
    mut server: Server,
    service: FeedService,
    connections: impl Stream<Item = io::Result<C>>,
    shutdown: CancellationToken,
) -> Result<(), FeedError>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let server = server.add_service(FeedServer::new(service));
    let served = server.serve_with_incoming_shutdown(connections, shutdown.cancelled_owned()).await;
    served.map_err(FeedError::Serve)
}

fn adopt(listener: TcpListener) -> Result<tokio::net::TcpListener, FeedError> {
    let address =
        listener.local_addr().map_or_else(|_| "its socket".to_owned(), |address| address.to_string());
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|source| FeedError::Listen { address, source })
}

/// Different in every life, and never 0.
fn random_epoch() -> u64 {
    RandomState::new().hash_one(std::process::id()) | 1
}
