//! The way to the kubelets: HTTPS with our certificate, checked against our authority.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::body::Body;
use crate::error::{ApiError, chain_of};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a kubelet's refusal is passed on.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// A client for every kubelet.
pub(crate) struct Kubelets {
    connector: TlsConnector,
    draining: CancellationToken,
}

impl std::fmt::Debug for Kubelets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelets").finish_non_exhaustive()
    }
}

type Driver = Connection<TokioIo<TlsStream<TcpStream>>, Empty<Bytes>>;

impl Kubelets {
    pub(crate) fn new(config: ClientConfig, draining: CancellationToken) -> Self {
        Self { connector: TlsConnector::from(Arc::new(config)), draining }
    }

    /// The body of the answer to a GET, as it comes.
    pub(crate) async fn get(&self, host: &str, port: u16, path: &str) -> Result<Body, ApiError> {
        let unavailable = |error: &dyn std::error::Error| {
            ApiError::Unavailable(format!("{host}:{port}: {}", chain_of(error)))
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unavailable(&error))?;
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            self.connector.connect(name, stream).await
        };
        let stream = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|error| unavailable(&error))?;
        let (mut sender, mut driver): (_, Driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(&error))?;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = Request::get(path)
            .header(HOST, authority)
            .body(Empty::new())
            .map_err(|error| ApiError::BadRequest(format!("cannot ask the kubelet for {path}: {error}")))?;
        // The connection is driven here until the answer's head, and then by whoever reads its body.
        let response = sender.send_request(request);
        let response = tokio::select! {
            response = response => response.map_err(|error| unavailable(&error))?,
            ended = &mut driver => {
                ended.map_err(|error| unavailable(&error))?;
                return Err(ApiError::Unavailable(format!("{host}:{port} closed the connection")));
            }
        };
        let status = response.status();
        let body = Driven {
            body: response.into_body(),
            driver: Some(driver),
            _sender: sender,
            draining: Box::pin(self.draining.clone().cancelled_owned()),
        };
        if status == StatusCode::OK {
            return Ok(Body::new(body));
        }
        let refusal = http_body_util::Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
        let refusal = refusal.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(ApiError::Upstream { code: status, message: refusal_text(&refusal) })
    }
}

/// A kubelet refuses with a text or with a `Status`.
fn refusal_text(refusal: &[u8]) -> String {
    let status: Option<Value> = serde_json::from_slice(refusal).ok();
    match status.as_ref().and_then(|status| status["message"].as_str()) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(refusal).trim().to_owned(),
    }
}

/// A body that drives its own connection.
struct Driven {
    body: hyper::body::Incoming,
    driver: Option<Driver>,
    /// Dropping it would end the connection.
    _sender: http1::SendRequest<Empty<Bytes>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if this.draining.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        if let Some(driver) = &mut this.driver
            && let Poll::Ready(ended) = Pin::new(driver).poll(context)
        {
            this.driver = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "a kubelet's connection ended");
            }
        }
        Pin::new(&mut this.body).poll_frame(context)
    }
}
