//! Wiring: the listeners, TLS, connections, and the way in for components of the same process.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fairlead_store::Store;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::{self, ServiceAddresses};
use crate::admission::Admission;
use crate::api::{self, Api};
use crate::authn::{Identity, MASTERS};
use crate::body::Body;
use crate::bootstrap::{self, BootstrapError};
use crate::error::chain_of;
use crate::expiry;
use crate::furnish;
use crate::kubelet::Kubelets;
use crate::limit::{Limiter, Limits};
use crate::masters::Masters;
use crate::pki::{self, Issued, Pki};
use crate::recent::{RecentlyDecoded, RecentlySent};
use crate::request::InThisProcess;
use crate::tls::CertificateFile;
use crate::{Config, Error};

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may wait for its next request (kube-apiserver's `IdleTimeout`).
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the headers of a request may be; longer ones are answered with 431.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// How long open requests may take to end when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when a connection cannot be accepted, for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The API server: listeners bound, objects of the system made, ready to [`ApiServer::run`].
#[derive(Debug)]
pub struct ApiServer {
    api: Arc<Api>,
    masters: Masters,
    listeners: Vec<TcpListener>,
    tls: Arc<ServerConfig>,
}

/// The API as a `tower` service for components of this process; its user is in `system:masters`. Its lists and watches
/// show no `managedFields`.
#[derive(Clone, Debug)]
pub struct InProcess {
    api: Arc<Api>,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let api = self.api.clone();
        request.extensions_mut().insert(Identity::in_process());
        request.extensions_mut().insert(InThisProcess);
        Box::pin(async move { Ok(api::serve(api, request).await) })
    }
}

impl ApiServer {
    /// Opens or makes the certificates, makes the system's objects, and writes the administrator's kubeconfig.
    pub async fn new(config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        Self::with_limits(config, store, Limits::default()).await
    }

    /// The same, with other limits.
    pub async fn with_limits(config: Config, store: Arc<dyn Store>, limits: Limits) -> Result<Self, Error> {
        let pki = Pki::open_or_create(&config.state_dir.join("pki"))?;
        pki.stored(SERVER_FILE, "kube-apiserver", &[], &server_sans(&config))?;
        let client =
            pki.stored("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[MASTERS], &[])?;
        let admin = pki.stored("admin", "kubernetes-admin", &[MASTERS], &[])?;
        let roots = root_store(pki.ca_pem())?;
        let tls = Arc::new(server_tls(&config.state_dir.join("pki"), roots.clone())?);
        let draining = CancellationToken::new();
        let api = Arc::new(Api {
            store,
            addresses: ServiceAddresses::new(config.service_networks.clone(), config.service_node_ports),
            admission: Admission::new(),
            root_ca: pki.ca_pem().to_owned(),
            kubelets: Kubelets::new(client_tls(&client, roots)?, draining.clone()),
            draining,
            decoded: RecentlyDecoded::default(),
            sent: RecentlySent::default(),
            writes: TaskTracker::new(),
            limiter: Limiter::new(limits),
        });
        let listeners = config.listeners.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let port = match listeners.first() {
            Some(listener) => listener.local_addr().map_err(Error::Listener)?.port(),
            None => DEFAULT_PORT,
        };
        addresses::repair(&api).await.map_err(BootstrapError::from)?;
        let mut masters = Masters::new(api.clone(), &config, port);
        bootstrap::run(&api, &config, port, &mut masters).await?;
        if let Some(path) = &config.admin_kubeconfig {
            let text =
                pki::kubeconfig(&config.admin_server_url, pki.ca_pem(), &admin.cert_pem, &admin.key_pem);
            pki::write_private(path, &text)?;
        }
        Ok(Self { api, masters, listeners, tls })
    }

    /// The API for components of this process, for example `kube::Client::new(api.in_process(), "default")`.
    #[must_use]
    pub fn in_process(&self) -> InProcess {
        InProcess { api: self.api.clone() }
    }

    /// Serves until `shutdown`, then lets open requests end for a few seconds.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(self.tls);
        let tasks = TaskTracker::new();
        for listener in self.listeners {
            let serving = Serving {
                api: self.api.clone(),
                acceptor: acceptor.clone(),
                tasks: tasks.clone(),
                shutdown: shutdown.clone(),
            };
            tasks.spawn(serving.accept(listener));
        }
        tasks.spawn(expiry::run(self.api.clone(), shutdown.clone()));
        tasks.spawn(addresses::run(self.api.clone(), shutdown.clone()));
        tasks.spawn(furnish::run(self.api.clone(), shutdown.clone()));
        tasks.spawn(self.masters.run(shutdown.clone()));
        shutdown.cancelled().await;
        // Watches end now; connections finish the requests they are in.
        self.api.draining.cancel();
        tasks.close();
        self.api.writes.close();
        let ended = async { tokio::join!(tasks.wait(), self.api.writes.wait()) };
        if timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some requests had not ended when the API server stopped");
        }
        Ok(())
    }
}

/// What the files of the server's certificate are called.
const SERVER_FILE: &str = "apiserver";

/// The port of a server without listeners, where its Service points.
const DEFAULT_PORT: u16 = 6443;

/// What the tasks of one listener share.
#[derive(Clone)]
struct Serving {
    api: Arc<Api>,
    acceptor: TlsAcceptor,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Serving {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.tasks.spawn(self.clone().connection(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        // Watch events are small and must not wait for each other.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
        let stream = tokio::select! {
            () = self.shutdown.cancelled() => return,
            outcome = handshake => match outcome {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!("a TLS handshake took too long"),
            },
        };
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let identity = peer.and_then(Identity::of_certificate);
        let api = self.api;
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(identity) = identity.clone() {
                request.extensions_mut().insert(identity);
            }
            let api = api.clone();
            async move { Ok::<_, Infallible>(api::serve(api, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_buf_size(HEADER_BYTES_MAX as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .max_header_list_size(HEADER_BYTES_MAX);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(error = chain_of(error.as_ref()), "a connection ended");
        }
    }
}

fn listen(listener: &std::net::TcpListener) -> Result<TcpListener, Error> {
    listener.set_nonblocking(true).map_err(Error::Listener)?;
    let listener = listener.try_clone().map_err(Error::Listener)?;
    TcpListener::from_std(listener).map_err(Error::Listener)
}

/// The names and addresses by which clients reach the server.
fn server_sans(config: &Config) -> Vec<String> {
    let mut sans: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    sans.push(format!("kubernetes.default.svc.{}", config.cluster_domain));
    sans.extend(config.server_names.iter().cloned());
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
    addresses.extend(config.service_networks.first().map(|network| addresses::at(network, 1)));
    addresses.extend(&config.advertise);
    sans.extend(addresses.iter().map(IpAddr::to_string));
    sans.sort_unstable();
    sans.dedup();
    sans
}

fn root_store(ca_pem: &str) -> Result<Arc<RootCertStore>, Error> {
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(Error::Pem)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(Error::Tls)?;
    Ok(Arc::new(roots))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_tls(dir: &Path, roots: Arc<RootCertStore>) -> Result<ServerConfig, Error> {
    let certificate = CertificateFile::open(dir, SERVER_FILE, provider()).map_err(Error::Tls)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(Error::Verifier)?;
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn client_tls(client: &Issued, roots: Arc<RootCertStore>) -> Result<ClientConfig, Error> {
    let (chain, key) = client.to_der().map_err(Error::Pem)?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(Error::Tls)
}
