//! The reader's side of the feed: connects, resumes, puts updates together, and never gives up.

use std::{path::PathBuf, time::Duration};

use fairlead_model::{Revision, Update};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{
    Streaming,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use crate::{Assembly, WireError, proto};

/// How often the connection is checked while nothing arrives, and how long an answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// First pause between attempts; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where the feed is and how the two sides recognise each other.
#[derive(Clone)]
pub struct FeedEndpoint {
    /// `https://ADDRESS:PORT`.
    pub url: String,
    /// Certificate authority that signed the server's certificate, PEM.
    pub ca_pem: String,
    /// This client's certificate, PEM.
    pub cert_pem: String,
    /// Key of that certificate, PEM.
    pub key_pem: String,
    /// Name that the server's certificate must hold.
    pub server_name: String,
}

impl std::fmt::Debug for FeedEndpoint {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("FeedEndpoint");
        shown.field("url", &self.url).field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Where a reader finds the feed.
#[derive(Clone, Debug)]
pub enum FeedSource {
    /// On another machine, or as if it were.
    Tls(FeedEndpoint),
    /// On this machine: a Unix socket, which whoever may open it may read.
    Unix(PathBuf),
}

impl From<FeedEndpoint> for FeedSource {
    fn from(endpoint: FeedEndpoint) -> Self {
        Self::Tls(endpoint)
    }
}

impl FeedSource {
    fn url(&self) -> String {
        match self {
            Self::Tls(endpoint) => endpoint.url.clone(),
            Self::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    fn channel(&self) -> Result<Endpoint, tonic::transport::Error> {
        let channel = Endpoint::new(self.url())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let Self::Tls(endpoint) = self else { return Ok(channel) };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&endpoint.ca_pem))
            .identity(Identity::from_pem(&endpoint.cert_pem, &endpoint.key_pem))
            .domain_name(&endpoint.server_name);
        channel.tls_config(tls)
    }
}

/// How the connection to the feed is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Being made.
    Connecting,
    /// Made, and the server has accepted the request.
    Connected,
    /// Broken; another attempt follows.
    Broken {
        /// Attempts that failed since the last success.
        attempts: u32,
        /// Why the last one did.
        error: String,
    },
}

/// Why a connection ended. Always retried.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("connecting to the feed at {url}: {}", chain(.source))]
    Connect { url: String, source: tonic::transport::Error },
    #[error("the feed answered: {} ({:?})", .0.message(), .0.code())]
    Refused(#[from] tonic::Status),
    #[error(transparent)]
    Invalid(#[from] WireError),
    #[error("the feed closed the stream")]
    Closed,
}

/// tonic says "transport error" and keeps the reason in the sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A subscription to the feed that outlives every connection.
#[derive(Debug)]
pub struct Subscription {
    source: FeedSource,
    node: String,
    revision: Revision,
    stream: Option<Streaming<proto::WatchResponse>>,
    assembly: Assembly,
    attempts: u32,
    not_before: Instant,
    state: watch::Sender<ConnectionState>,
}

impl Subscription {
    /// A subscription in the name of `node`. Nothing is connected before [`next`](Self::next).
    pub fn new(source: impl Into<FeedSource>, node: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            node: node.into(),
            revision: Revision::default(),
            stream: None,
            assembly: Assembly::default(),
            attempts: 0,
            not_before: Instant::now(),
            state: watch::Sender::new(ConnectionState::Connecting),
        }
    }

    /// How the connection is doing, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// The next complete update. Waits and reconnects for as long as it takes; after a reconnection the server sends
    /// what was missed, or a snapshot. Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Update {
        loop {
            match self.step().await {
                Ok(Some(update)) => {
                    self.revision = update.revision;
                    return update;
                }
                Ok(None) => {}
                Err(interruption) => self.interrupted(&interruption),
            }
        }
    }

    /// One message, or a new connection.
    async fn step(&mut self) -> Result<Option<Update>, Interruption> {
        if self.stream.is_none() {
            sleep_until(self.not_before).await;
            self.stream = Some(self.connect().await?);
            self.attempts = 0;
            self.state.send_replace(ConnectionState::Connected);
            tracing::info!(url = self.source.url(), sequence = self.revision.sequence, "reading the feed");
        }
        let stream = self.stream.as_mut().expect("connected above");
        let message = stream.message().await?.ok_or(Interruption::Closed)?;
        Ok(self.assembly.push(message)?)
    }

    async fn connect(&self) -> Result<Streaming<proto::WatchResponse>, Interruption> {
        let failed = |source| Interruption::Connect { url: self.source.url(), source };
        let channel = self.source.channel().map_err(failed)?.connect().await.map_err(failed)?;
        let request = proto::WatchRequest { node: self.node.clone(), revision: Some(self.revision.into()) };
        let mut client = proto::feed_client::FeedClient::new(channel);
        Ok(client.watch(request).await?.into_inner())
    }

    fn interrupted(&mut self, interruption: &Interruption) {
        self.stream = None;
        self.assembly.clear();
        if matches!(interruption, Interruption::Invalid(_)) {
            // What this revision leads to cannot be read; only a snapshot can help.
            self.revision = Revision::default();
        }
        let backoff = BACKOFF_MIN.saturating_mul(1 << self.attempts.min(10)).min(BACKOFF_MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.not_before = Instant::now() + backoff;
        let error = interruption.to_string();
        tracing::warn!(attempts = self.attempts, ?backoff, error, "the feed is interrupted; trying again");
        self.state.send_replace(ConnectionState::Broken { attempts: self.attempts, error });
    }
}
