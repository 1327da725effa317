//! DNS over HTTPS (RFC 8484): a question in a POST body or in the `dns` parameter of a GET.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::MESSAGE_MAX;
use crate::{
    codec::{RawRecord, counts, question_end},
    handler::{Handler, Step},
    metrics::Client,
};

/// Where questions are asked; CoreDNS's path and everybody's.
const PATH: &str = "/dns-query";
/// The media type of a message.
const MESSAGE: &str = "application/dns-message";
/// Requests of one connection at a time; CoreDNS's number.
const STREAMS_MAX: u32 = 256;
/// How long a client may take for its headers, or be silent between two pings.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves a connection, HTTP/1.1 or HTTP/2.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: Client,
    handler: Arc<Handler>,
) -> io::Result<()> {
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(respond(request, client, &handler).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

async fn respond(
    request: Request<Incoming>,
    client: Client,
    handler: &Arc<Handler>,
) -> Response<Full<Bytes>> {
    let question = match read(request).await {
        Ok(question) => question,
        Err(status) => return failure(status),
    };
    let mut out = Vec::new();
    let answer = match handler.start(&question, client, &mut out) {
        Step::Ignore => return failure(StatusCode::BAD_REQUEST),
        Step::Reply(_) => out,
        Step::Wait(answer) => match answer.await.into_iter().next() {
            Some(answer) => answer,
            None => return failure(StatusCode::FORBIDDEN),
        },
    };
    // RFC 8484 §5.1: caches on the way keep an answer no longer than its shortest record.
    let age = format!("max-age={}", shortest_ttl(&answer).unwrap_or(0));
    let response = Response::builder().header(CONTENT_TYPE, MESSAGE).header(CACHE_CONTROL, age);
    response.body(Full::from(answer)).unwrap_or_else(|_| failure(StatusCode::INTERNAL_SERVER_ERROR))
}

/// The message in a request.
async fn read(request: Request<Incoming>) -> Result<Bytes, StatusCode> {
    if request.uri().path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *request.method() {
        Method::GET => {
            let query = request.uri().query().unwrap_or_default();
            let text = query.split('&').find_map(|pair| pair.strip_prefix("dns="));
            let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok());
            bytes.map(Bytes::from).ok_or(StatusCode::BAD_REQUEST)
        }
        Method::POST => {
            if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != MESSAGE) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let body = Limited::new(request.into_body(), MESSAGE_MAX).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn failure(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, POST"));
    }
    response
}

/// The least TTL of all records but the EDNS one.
fn shortest_ttl(message: &[u8]) -> Option<u32> {
    let [_, answers, authorities, additionals] = counts(message)?;
    let mut at = question_end(message)?;
    let mut least = None;
    for _ in 0..answers + authorities + additionals {
        let record = RawRecord::read(message, at)?;
        if record.rtype != fairlead_zone::RecordType::OPT {
            least = Some(least.map_or(record.ttl, |least: u32| least.min(record.ttl)));
        }
        at = record.end;
    }
    least
}
