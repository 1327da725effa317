//! The kubelet's HTTPS server, for the API server: logs and health. Every client shows a certificate of the cluster's
//! authority.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    config::TlsConfig,
    logs::{self, reader::LogOptions},
    pods::{Registry, Shared, Summary},
};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Parts of a log on their way to a client.
const LOG_QUEUE_LEN_MAX: usize = 64;
/// How long a request for a log waits for a kubelet that has just started: for the pod, and for its worker to look at what runs.
const WORKER_BEGINS_WITHIN: Duration = Duration::from_secs(5);

/// A bound server.
pub(crate) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    registry: Registry,
}

impl Server {
    pub(crate) async fn bind(
        address: SocketAddr,
        tls: &TlsConfig,
        shared: Arc<Shared>,
        registry: Registry,
    ) -> Result<Self, Error> {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(tls)?));
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        Ok(Self { listener, acceptor, shared, registry })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let acceptor = self.acceptor.clone();
                        let routes = Routes { shared: self.shared.clone(), registry: self.registry.clone() };
                        connections.spawn(async move {
                            // A client without the right certificate ends here.
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            let service = hyper::service::service_fn(move |request| {
                                let routes = routes.clone();
                                async move { Ok::<_, Infallible>(routes.answer(request).await) }
                            });
                            let connection = hyper::server::conn::http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service);
                            if let Err(error) = connection.await {
                                tracing::debug!(%error, "connection to the kubelet ended");
                            }
                        });
                    }
                    Err(error) => tracing::warn!(%error, "accepting a connection"),
                },
                Some(_) = connections.join_next() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

fn server_config(tls: &TlsConfig) -> Result<ServerConfig, Error> {
    let error = |what| move |error: &dyn std::fmt::Display| Error::Tls { what, reason: error.to_string() };
    let certificates = |pem: &str, what: &'static str| {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        parsed.map_err(|reason| error(what)(&reason))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca_pem, "client CA")? {
        roots.add(certificate).map_err(|reason| error("client CA")(&reason))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|reason| error("client CA")(&reason))?;
    let key =
        PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).map_err(|reason| error("key")(&reason))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|reason| error("protocol versions")(&reason))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate_pem, "certificate")?, key)
        .map_err(|reason| error("certificate")(&reason))
}

#[derive(Clone)]
struct Routes {
    shared: Arc<Shared>,
    registry: Registry,
}

impl Routes {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path: Vec<_> = request.uri().path().trim_matches('/').split('/').collect();
        match (request.method(), path.as_slice()) {
            (&Method::GET, ["healthz"]) => text(StatusCode::OK, "ok"),
            (&Method::GET, ["pods"]) => self.pods(),
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                match log_options(request.uri().query().unwrap_or("")) {
                    Ok((options, previous)) => {
                        self.logs([namespace, pod, container], options, previous).await
                    }
                    Err(message) => text(StatusCode::BAD_REQUEST, message),
                }
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "use /containerLogs/{namespace}/{pod}/{container}, /pods or /healthz",
            ),
        }
    }

    fn pods(&self) -> Response<Body> {
        let pods = self.registry.all().into_iter().map(|handle| handle.summary.borrow().pod.clone());
        let items: Vec<_> = pods.map(|pod| serde_json::json!(*pod)).collect();
        let list =
            serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
        let mut response = text(StatusCode::OK, list.to_string());
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        response
    }

    async fn logs(
        &self,
        [namespace, name, container]: [&str; 3],
        options: LogOptions,
        previous: bool,
    ) -> Response<Body> {
        let known = self.registry.find_within(WORKER_BEGINS_WITHIN, namespace, name).await;
        let Some(mut handle) = known else {
            return text(StatusCode::NOT_FOUND, format!("pod {namespace}/{name} is not on this node"));
        };
        // When a kubelet starts, the object says that something runs before the pod's worker has looked what.
        let is_known = |summary: &Summary| {
            !summary.containers.is_empty() || !logs::absent::has_started(&summary.pod, container)
        };
        drop(tokio::time::timeout(WORKER_BEGINS_WITHIN, handle.summary.wait_for(is_known)).await);
        let Summary { pod, containers } = handle.summary.borrow().clone();
        let Some(role) = logs::absent::role(&pod, container) else {
            return text(
                StatusCode::NOT_FOUND,
                format!("pod {namespace}/{name} has no container {container}"),
            );
        };
        // None is known before the pod's worker has begun.
        let attempts = containers.iter().find(|(known, ..)| known == container).map_or(0, |known| known.1);
        let Some(attempt) = attempts.checked_sub(if previous { 2 } else { 1 }) else {
            let message = if previous {
                logs::absent::previous(&pod, container)
            } else {
                role.waiting(&pod, container)
            };
            return text(StatusCode::BAD_REQUEST, message);
        };
        let file = logs::file(&self.shared.config.log_dir, &handle.identity, container, attempt);
        let container = container.to_owned();
        let running = move |summary: &Summary| {
            let mut containers = summary.containers.iter();
            containers
                .any(|(name, attempts, running)| *name == container && *running && *attempts == attempt + 1)
        };
        let (sender, receiver) = mpsc::channel(LOG_QUEUE_LEN_MAX);
        let send = logs::reader::send(file, options, (handle.summary, running), sender);
        // The body drives the reading: it ends when the client goes away.
        let body = futures::stream::unfold((Box::pin(send), ReceiverStream::new(receiver), false), next_part);
        Response::new(BodyExt::boxed_unsync(StreamBody::new(body.map(|part| part.map(Frame::data)))))
    }
}

/// Runs the reader until it has a part for us.
async fn next_part<F: Future<Output = io::Result<()>> + Unpin>(
    (mut send, mut parts, ended): (F, ReceiverStream<io::Result<Bytes>>, bool),
) -> Option<(io::Result<Bytes>, (F, ReceiverStream<io::Result<Bytes>>, bool))> {
    if ended {
        return parts.next().await.map(|part| (part, (send, parts, true)));
    }
    tokio::select! {
        biased;
        part = parts.next() => part.map(|part| (part, (send, parts, false))),
        result = &mut send => match result {
            Err(error) => Some((Err(error), (send, parts, true))),
            Ok(()) => parts.next().await.map(|part| (part, (send, parts, true))),
        },
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// The options of the pods/log subresource, and whether the attempt before is asked for.
fn log_options(query: &str) -> Result<(LogOptions, bool), String> {
    let mut options = LogOptions::default();
    let mut previous = false;
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let flag =
            || value.parse::<bool>().map_err(|_| format!("{key} must be true or false, not {value:?}"));
        let number = || value.parse::<u32>().map_err(|_| format!("{key} must be a number, not {value:?}"));
        match key {
            "follow" => options.follow = flag()?,
            "previous" => previous = flag()?,
            "timestamps" => options.timestamps = flag()?,
            "tailLines" => options.tail_lines = Some(number()? as usize),
            "limitBytes" => options.limit_bytes = Some(number()?.into()),
            "sinceSeconds" => {
                let since = Timestamp::now() - jiff::SignedDuration::from_secs(number()?.into());
                options.since = Some(since);
            }
            "sinceTime" => {
                let time = value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+");
                options.since =
                    Some(time.parse().map_err(|_| format!("sinceTime {value:?} is not RFC 3339"))?);
            }
            _ => {}
        }
    }
    Ok((options, previous))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_read_from_the_query() {
        let (options, previous) =
            log_options("follow=true&tailLines=5&previous=false&sinceTime=2030-01-01T00%3A00%3A00Z").unwrap();
        assert!(options.follow && !previous);
        assert_eq!(options.tail_lines, Some(5));
        assert_eq!(options.since, Some("2030-01-01T00:00:00Z".parse().unwrap()));
        assert!(log_options("tailLines=many").unwrap_err().contains("tailLines"));
    }
}
