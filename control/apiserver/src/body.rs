//! Bodies: what is read from requests and written into answers.

use std::fmt::Display;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::limit::Limiter;
use crate::protobuf;

mod strict;

pub(crate) use strict::VALUES_MAX;

/// The body of an answer.
pub type Body = axum::body::Body;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Upstream's limit for everything but watches (`RequestTimeout`).
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";

/// A request's body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Reads a request's body whole, as far as there is room for it.
pub(crate) async fn collect<B>(body: B, limiter: &Limiter) -> Result<Collected, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let late = ApiError::Timeout { limit_secs: BODY_TIMEOUT.as_secs() };
    timeout(BODY_TIMEOUT, read(pin!(body), limiter)).await.map_err(|_| late)?
}

async fn read<B>(mut body: Pin<&mut B>, limiter: &Limiter) -> Result<Collected, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut room = limiter.room_for(body.size_hint().lower(), None)?;
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::BadRequest(format!("cannot read the request's body: {}", error.into()))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let read = first.len() + all.len() + data.len();
        room = limiter.room_for(read as u64, room)?;
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Collected { bytes, room })
}

/// The media type of a request's body, without parameters; JSON when the client does not say.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or(JSON);
    value.split(';').next().unwrap_or(JSON).trim()
}

/// The object in a request's body.
pub(crate) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    parse_strict(headers, body).map(|(object, _)| object)
}

/// The object in a request's body, and the paths of the keys that are there twice.
pub(crate) fn parse_strict(headers: &HeaderMap, body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    match content_type(headers) {
        JSON => parse_json(body).map_err(|error| {
            ApiError::BadRequest(format!("the body of the request is not valid JSON: {error}"))
        }),
        YAML => parse_yaml(body),
        protobuf::MEDIA_TYPE => {
            let object = protobuf::decode(body).map_err(|error| {
                ApiError::BadRequest(format!("the body of the request is not valid protobuf: {error}"))
            })?;
            Ok((object, Vec::new()))
        }
        other => Err(ApiError::UnsupportedMediaType(format!(
            "the body of the request was in an unknown format ({other}) - accepted media types include: {JSON}, {YAML}, {}",
            protobuf::MEDIA_TYPE
        ))),
    }
}

/// The value in a body that is JSON, and the paths of the keys that are there twice.
pub(crate) fn parse_json(body: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(body);
    strict::read(&mut from, body.len()).and_then(|read| from.end().map(|()| read))
}

/// The object in a body that is YAML, or JSON, which is YAML too, and the paths of the keys that are there twice.
pub(crate) fn parse_yaml(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let invalid = |problem: &dyn Display| {
        ApiError::BadRequest(format!("the body of the request is not valid YAML: {problem}"))
    };
    // What clients apply is mostly JSON, which is read much sooner as what it is.
    match parse_json(body) {
        Err(error) if error.is_data() => return Err(invalid(&error)),
        Err(_) => {}
        Ok(read) => return Ok(read),
    }
    // A YAML reader takes the whole document apart before the first value can be counted.
    if yaml_separators(body) > VALUES_MAX {
        return Err(invalid(&format_args!("it holds more than {VALUES_MAX} values")));
    }
    strict::read(serde_yaml_ng::Deserializer::from_slice(body), body.len()).map_err(|error| invalid(&error))
}

/// How often something in YAML can begin or end: no document has more than a few times as many parts. Text in quotes is
/// looked into, too, so this may be more than there is.
fn yaml_separators(body: &[u8]) -> usize {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let separates = |(at, byte): &(usize, &u8)| match byte {
        b',' | b'[' | b'{' | b'\n' | b'\r' => true,
        b'-' | b'?' | b':' => body.get(at + 1).is_none_or(is_blank),
        _ => false,
    };
    body.iter().enumerate().filter(separates).count()
}

/// A JSON answer.
pub(crate) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    json_bytes(code, Bytes::from(value.to_string()))
}

/// A JSON answer that is serialized already.
pub(crate) fn json_bytes(code: StatusCode, bytes: Bytes) -> Response<Body> {
    with_type(code, JSON, Body::from(bytes))
}

/// A protobuf answer.
pub(crate) fn protobuf(code: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    with_type(code, protobuf::MEDIA_TYPE, Body::from(bytes))
}

/// An answer of some media type.
pub(crate) fn with_type(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer that keeps what it is let in with until it is sent. One whose length is known is as good as sent.
pub(crate) fn hold(response: Response<Body>, permit: Option<Arc<OwnedSemaphorePermit>>) -> Response<Body> {
    match permit {
        Some(permit) if response.body().size_hint().exact().is_none() => response.map(|body| {
            let pieces = body.into_data_stream();
            Body::from_stream(pieces.inspect(move |_| _ = &permit))
        }),
        _ => response,
    }
}
