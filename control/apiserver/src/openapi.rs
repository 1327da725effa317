//! `/openapi/v3`: what the objects and paths look like, a document for each version of each group; and `/openapi/v2`, one
//! document for everything, in JSON and in protobuf, which kubectl asks when version 3 does not know a kind.
//!
//! The schemas, by far the most of it, are made and compressed by the build script. The paths follow from the table of
//! resources; they are compressed when a document is first asked for, appended, and kept. Nothing is ever held
//! uncompressed.

mod paths;
mod swagger;
#[cfg(test)]
mod tests;
mod v2;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzDecoder};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::body::{self, Body};
use crate::error::ApiError;
use crate::request::Query;
use crate::resource::served;

/// The media type of the document of version 2, as clients ask for it, and as it is sent.
const SWAGGER_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const SWAGGER_SENT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What one version of a group looks like.
#[derive(Debug)]
struct Part {
    /// Such as `apps/v1`.
    api_version: &'static str,
    /// Where its types are, such as `io.k8s.api.apps.v1`.
    package: &'static str,
    head: Head,
}

/// The first part of a document: everything up to its paths.
#[derive(Debug)]
struct Head {
    /// Compressed (RFC 1951), without a last block.
    deflated: &'static [u8],
    /// Of the document.
    crc: u32,
    /// Of the document.
    length: u32,
    /// Of the document.
    digest: u64,
}

include!(concat!(env!("OUT_DIR"), "/openapi_table.rs"));

/// A whole document.
#[derive(Debug)]
struct Document {
    /// What it is served under, such as `apis/apps/v1`.
    path: String,
    /// What changes when the document does.
    hash: String,
    part: &'static Part,
    compressed: OnceLock<Bytes>,
}

/// The answer to a GET below `/openapi`, `None` for other paths.
pub(crate) fn answer(
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Result<Response<Body>, ApiError>> {
    if path == "/openapi/v2" {
        return Some(swagger_answer(headers));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        return Some(Ok(body::json(StatusCode::OK, &root())));
    }
    let rest = rest.strip_prefix('/')?;
    let document = documents().iter().find(|document| document.path == rest)?;
    Some(document.answer(query, headers))
}

/// Which documents there are, each under an address that changes with its content.
fn root() -> Value {
    let row = |document: &Document| {
        let Document { path, hash, .. } = document;
        (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }))
    };
    json!({ "paths": documents().iter().map(row).collect::<Map<_, _>>() })
}

/// The documents of the versions that have kinds.
fn documents() -> &'static [Document] {
    static DOCUMENTS: OnceLock<Vec<Document>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let serves = |part: &&Part| served().any(|row| row.api_version() == part.api_version);
        PARTS.iter().filter(serves).map(Document::of).collect()
    })
}

impl Document {
    fn of(part: &'static Part) -> Self {
        let root = if part.api_version.contains('/') { "apis" } else { "api" };
        let mut hasher = DefaultHasher::new();
        (part.head.digest, ending(part)).hash(&mut hasher);
        Self {
            path: format!("{root}/{}", part.api_version),
            hash: format!("{:016X}", hasher.finish()),
            part,
            compressed: OnceLock::new(),
        }
    }

    fn answer(&self, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        if headers.contains_key(ACCEPT)
            && !accepts(headers, &ACCEPT, &["application/json", "application/*", "*/*"])
        {
            return Err(ApiError::NotAcceptable);
        }
        let mut response = Response::new(Body::empty());
        if query.get("hash").is_some_and(|hash| hash != self.hash) {
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let address = format!("/openapi/v3/{}?hash={}", self.path, self.hash);
            response.headers_mut().insert(LOCATION, value(&address));
            return Ok(response);
        }
        let tag = format!("\"{}\"", self.hash);
        if headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response = encoded(headers, body::JSON, self.compressed()?)?;
        }
        let headers = response.headers_mut();
        headers.insert(ETAG, value(&tag));
        if query.get("hash").is_some() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let expires = Timestamp::now() + SignedDuration::from_hours(24 * 365);
            let expires = expires.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            headers.insert(EXPIRES, value(&expires));
        }
        Ok(response)
    }

    /// The document in gzip's format.
    fn compressed(&self) -> Result<Bytes, ApiError> {
        if let Some(bytes) = self.compressed.get() {
            return Ok(bytes.clone());
        }
        let bytes = self.part.head.compress(ending(self.part).as_bytes())?;
        Ok(self.compressed.get_or_init(|| bytes).clone())
    }
}

impl Head {
    /// The document that begins with this, in gzip's format (RFC 1952).
    fn compress(&self, ending: &[u8]) -> Result<Bytes, ApiError> {
        // No name, no time, an unknown system.
        let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        out.extend(self.deflated);
        let mut encoder = DeflateEncoder::new(out, Compression::default());
        let deflated = encoder.write_all(ending).and_then(|()| encoder.finish());
        let mut out = deflated
            .map_err(|error| ApiError::Internal(format!("cannot compress an OpenAPI document: {error}")))?;
        out.extend(crc32(self.crc, ending).to_le_bytes());
        // Modulo 2^32, as the format says.
        let length = self.length.wrapping_add(ending.len() as u32);
        out.extend(length.to_le_bytes());
        Ok(out.into())
    }
}

/// Continues a checksum (RFC 1952, section 8) over more bytes.
fn crc32(before: u32, bytes: &[u8]) -> u32 {
    let step = |state: u32, byte: &u8| {
        let shift = |state: u32, _| if state & 1 == 1 { state >> 1 ^ 0xedb8_8320 } else { state >> 1 };
        (0..8).fold(state ^ u32::from(*byte), shift)
    };
    !bytes.iter().fold(!before, step)
}

/// What follows the first part.
fn ending(part: &Part) -> String {
    Value::Object(paths::paths(part)).to_string() + "}"
}

/// The document of version 2. It is asked for too rarely to be kept.
fn swagger_answer(headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let paths = documents().iter().flat_map(|document| paths::paths(document.part)).collect();
    // kubectl takes nothing but protobuf here, and says so.
    if accepts(headers, &ACCEPT, &[SWAGGER_ASKED]) {
        return encoded(headers, SWAGGER_SENT, SWAGGER.compress(&v2::paths(&paths))?);
    }
    if headers.contains_key(ACCEPT)
        && !accepts(headers, &ACCEPT, &["application/json", "application/*", "*/*"])
    {
        return Err(ApiError::NotAcceptable);
    }
    let ending = Value::Object(v2::plain_paths(&paths)).to_string() + "}";
    encoded(headers, body::JSON, SWAGGER_JSON.compress(ending.as_bytes())?)
}

/// A compressed document, inflated if the client does not take gzip.
fn encoded(headers: &HeaderMap, media_type: &'static str, gzip: Bytes) -> Result<Response<Body>, ApiError> {
    let takes_gzip = accepts(headers, &ACCEPT_ENCODING, &["gzip", "*"]);
    let bytes = if takes_gzip { gzip } else { inflate(&gzip)? };
    let mut response = body::with_type(StatusCode::OK, media_type, Body::from(bytes));
    if takes_gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

/// Whether a header that lists what a client takes names one of these.
fn accepts(headers: &HeaderMap, name: &HeaderName, wanted: &[&str]) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).any(|one| wanted.contains(&one.trim()))
}

/// For the rare client that does not take gzip.
fn inflate(compressed: &[u8]) -> Result<Bytes, ApiError> {
    let mut decoder = GzDecoder::new(Vec::new());
    let text = decoder.write_all(compressed).and_then(|()| decoder.finish());
    text.map(Bytes::from)
        .map_err(|error| ApiError::Internal(format!("cannot inflate an OpenAPI document: {error}")))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("hashes, paths and dates are ASCII")
}
