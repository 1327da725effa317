//! Large answers in gzip, for clients that take it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::body::Body;

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

/// Compresses an answer that is whole and large.
pub(crate) async fn large(mut response: Response<Body>) -> Response<Body> {
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
            let headers = response.headers_mut();
            headers.remove(CONTENT_LENGTH);
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
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
