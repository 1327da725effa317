//! Large answers in gzip, for clients that take it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::{self, StreamExt};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::body::{Body, BoxError};

/// Smaller answers are sent sooner than compressed (apiserver `handlers/responsewriters`).
const BYTES_MIN: u64 = 128 << 10;

/// Whether a client takes gzip.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

/// That an answer is sent in pieces, each as soon as there is one, and is worth being compressed.
#[derive(Clone, Copy)]
struct Long;

/// Marks an answer that is sent in pieces to be compressed for clients that take it.
pub(crate) fn mark_long(response: &mut Response<Body>) {
    response.extensions_mut().insert(Long);
}

/// Compresses an answer that is large.
pub(crate) async fn large(response: Response<Body>) -> Response<Body> {
    if response.extensions().get::<Long>().is_some() { in_pieces(response) } else { whole(response).await }
}

fn in_pieces(response: Response<Body>) -> Response<Body> {
    let mut response = response.map(|body| {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let state = (body.into_data_stream(), Some(encoder));
        Body::from_stream(stream::try_unfold(state, |(mut plain, mut encoder)| async move {
            while let Some(mut current) = encoder.take() {
                let piece = plain.next().await.transpose()?;
                let ends = piece.is_none();
                let compress = move || {
                    current.write_all(&piece.unwrap_or_default())?;
                    if ends {
                        current.try_finish()?;
                    }
                    let compressed = std::mem::take(current.get_mut());
                    std::io::Result::Ok((compressed, current))
                };
                let (compressed, current) = tokio::task::spawn_blocking(compress).await??;
                encoder = (!ends).then_some(current);
                // It keeps what is too little to be sent.
                if !compressed.is_empty() {
                    return Ok(Some((Bytes::from(compressed), (plain, encoder))));
                }
            }
            Ok::<_, BoxError>(None)
        }))
    });
    say_so(response.headers_mut());
    response
}

fn say_so(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

async fn whole(mut response: Response<Body>) -> Response<Body> {
    let is_large = response.body().size_hint().exact().is_some_and(|length| length >= BYTES_MIN);
    let is_plain = !response.headers().contains_key(CONTENT_ENCODING);
    if !is_large || !is_plain || response.status() != StatusCode::OK {
        return response;
    }
    let body = std::mem::replace(response.body_mut(), Body::empty());
    let Ok(collected) = body.collect().await else { return response };
    let plain = collected.to_bytes();
    let source = plain.clone();
    match tokio::task::spawn_blocking(move || compress(&source)).await {
        Ok(Ok(compressed)) => {
            *response.body_mut() = Body::from(compressed);
            say_so(response.headers_mut());
        }
        _ => *response.body_mut() = Body::from(plain),
    }
    response
}

fn compress(plain: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}
