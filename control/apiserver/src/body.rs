//! Bodies: what is read from requests and written into answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::protobuf;

mod strict;

/// The body of an answer.
pub type Body = axum::body::Body;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Upstream's limit (apiserver `pkg/server/config.go`, `MaxRequestBodyBytes`).
pub(crate) const REQUEST_BYTES_MAX: usize = 3 << 20;

/// Upstream's limit for everything but watches (`RequestTimeout`).
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Reads a request's body whole.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, REQUEST_BYTES_MAX).collect());
    let late = ApiError::Timeout { limit_secs: BODY_TIMEOUT.as_secs() };
    match collected.await.map_err(|_| late)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::TooLarge { limit_bytes: REQUEST_BYTES_MAX })
        }
        Err(error) => Err(ApiError::BadRequest(format!("cannot read the request's body: {error}"))),
    }
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
    strict::read(&mut from).and_then(|read| from.end().map(|()| read))
}

/// The object in a body that is YAML, or JSON, which is YAML too, and the paths of the keys that are there twice.
pub(crate) fn parse_yaml(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    strict::read(serde_yaml_ng::Deserializer::from_slice(body))
        .map_err(|error| ApiError::BadRequest(format!("the body of the request is not valid YAML: {error}")))
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
