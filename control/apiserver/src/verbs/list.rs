//! Lists: pages of a consistent state, as lists, tables or metadata.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use fairlead_store::{Entry, ListRequest, Revision, StoreError};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::select::{self, At, Selection};
use crate::api::{self, Call};
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::negotiate::{self, Form};
use crate::{object, protobuf, table};

/// How many entries are read at a time while a selector looks for those it wants.
const SCAN_LEN: usize = 500;

/// A page of selected objects.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) revision: Revision,
    continue_token: Option<String>,
    remaining: Option<usize>,
}

/// Answers a list.
pub(crate) async fn list(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let form = negotiate::form(call.headers, &call.info.query)?;
    let page = page(call).await?;
    match form {
        Form::Plain => render_raw(call, &page),
        Form::Table(include) => {
            let objects = decode(call, &page)?;
            let mut table = table::table(call.resource, &objects, Timestamp::now(), include);
            table["metadata"] = page.metadata();
            Ok(body::json(StatusCode::OK, &table))
        }
        Form::Partial => {
            let head = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata(),
            });
            render(&head, &page, |out, entry| {
                object::write_partial(out, &entry.value, entry.mod_revision, call.owners());
                Ok(())
            })
        }
        Form::PartialProtobuf => {
            let items: Vec<Value> = decode(call, &page)?.iter().map(object::partial).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata(),
                "items": items,
            });
            Ok(body::protobuf(StatusCode::OK, protobuf::encode_partial(&list)?))
        }
        Form::Protobuf => {
            let list = list_value(call, decode(call, &page)?, page.metadata());
            Ok(body::protobuf(StatusCode::OK, protobuf::encode(&list)?))
        }
        Form::Yaml => {
            let list = list_value(call, decode(call, &page)?, page.metadata());
            api::yaml(StatusCode::OK, &list)
        }
    }
}

/// A list of this kind.
pub(crate) fn list_value(call: &Call<'_>, items: Vec<Value>, metadata: Value) -> Value {
    let mut list = json!({ "kind": call.resource.list_kind, "apiVersion": call.resource.api_version() });
    list["metadata"] = metadata;
    list["items"] = Value::Array(items);
    list
}

/// The objects of a page.
pub(crate) fn decode(call: &Call<'_>, page: &Page) -> Result<Vec<Value>, ApiError> {
    let decode = |entry: &Entry| object::decode(call.resource, &entry.value, entry.mod_revision);
    page.entries.iter().map(decode).collect()
}

/// The page that the request's parameters ask for.
pub(crate) async fn page(call: &Call<'_>) -> Result<Page, ApiError> {
    let query = &call.info.query;
    let selection = Selection::of(call)?;
    let at = select::list_at(query)?;
    let limit = query.number("limit")?.filter(|limit| *limit > 0);
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut request = ListRequest::prefix(selection.prefix.as_str());
    if let Some(token) = query.get("continue") {
        let (revision, after) = parse_token(token)?;
        request.at = revision;
        request.after = Some(format!("{}{after}", api::prefix(call.resource, None)));
    } else if let At::Exactly(revision) = at {
        request.at = Some(revision);
    }
    let page = select_page(call, &selection, request, limit).await?;
    match at {
        At::NotOlderThan(requested) if requested > page.revision => {
            Err(ApiError::FutureResourceVersion { requested, current: page.revision })
        }
        _ => Ok(page),
    }
}

async fn select_page(
    call: &Call<'_>,
    selection: &Selection,
    mut request: ListRequest,
    limit: Option<usize>,
) -> Result<Page, ApiError> {
    let everything = selection.is_everything();
    request.limit = match limit {
        Some(limit) if everything => Some(limit),
        Some(limit) => Some(limit.max(SCAN_LEN)),
        None => None,
    };
    let mut entries = Vec::new();
    loop {
        let listing = call.api.store.list(request.clone()).await;
        let listing = listing.map_err(|error| expired(call, &request, error))?;
        let revision = listing.revision;
        request.at = Some(revision);
        request.after = listing.entries.last().map(|entry| entry.key.clone());
        let mut left = listing.entries.len() + listing.remaining;
        for entry in listing.entries {
            left -= 1;
            if !everything && !selection.matches(&object::decode(call.resource, &entry.value, 0)?) {
                continue;
            }
            entries.push(entry);
            if Some(entries.len()) == limit && left > 0 {
                let remaining = everything.then_some(left);
                let at = i64::try_from(revision).unwrap_or(NEWEST);
                let continue_token = entries.last().map(|entry| token(call, at, &entry.key));
                return Ok(Page { entries, revision, continue_token, remaining });
            }
        }
        if listing.remaining == 0 {
            return Ok(Page { entries, revision, continue_token: None, remaining: None });
        }
    }
}

/// Of a list whose state is gone. It can be continued all the same, with what there is now.
fn expired(call: &Call<'_>, request: &ListRequest, error: StoreError) -> ApiError {
    match (error, &request.after) {
        (StoreError::Compacted { .. }, Some(after)) => {
            ApiError::ExpiredPage { continue_token: token(call, NEWEST, after) }
        }
        (StoreError::Compacted { .. }, None) => {
            ApiError::Expired("The resourceVersion for the provided list is too old.".to_owned())
        }
        (error, _) => error.into(),
    }
}

/// The revision of a token for a list that is continued in whatever state there is.
const NEWEST: i64 = -1;

/// A continue token: the revision of the list, and the key (below the kind's prefix) where the page ended.
fn token(call: &Call<'_>, revision: i64, key: &str) -> String {
    let prefix = api::prefix(call.resource, None);
    let after = key.strip_prefix(&prefix).unwrap_or(key);
    URL_SAFE_NO_PAD.encode(json!({ "v": TOKEN_VERSION, "rv": revision, "start": after }).to_string())
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

pub(crate) fn parse_token(token: &str) -> Result<(Option<Revision>, String), ApiError> {
    let parse = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let revision = match value["rv"].as_i64()? {
            NEWEST => None,
            revision => Some(Revision::try_from(revision).ok().filter(|revision| *revision > 0)?),
        };
        let start = value["start"].as_str().filter(|start| !start.is_empty())?;
        (value["v"] == TOKEN_VERSION).then(|| (revision, start.to_owned()))
    };
    parse().ok_or_else(|| ApiError::BadRequest("continue key is not valid".to_owned()))
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }
}

/// The list without decoding its objects.
fn render_raw(call: &Call<'_>, page: &Page) -> Result<Response<Body>, ApiError> {
    let head = json!({
        "kind": call.resource.list_kind,
        "apiVersion": call.resource.api_version(),
        "metadata": page.metadata(),
    });
    let owners = call.owners();
    render(&head, page, |out, entry| {
        if call.resource.strategy.conversion.is_some() {
            let bytes: Bytes = object::with_version(call.resource, &entry.value, entry.mod_revision, owners)?;
            out.put_slice(&bytes);
        } else {
            object::write_with_version(out, &entry.value, entry.mod_revision, owners);
        }
        Ok(())
    })
}

/// A list whose items are written one after the other.
fn render(
    head: &Value,
    page: &Page,
    item: impl Fn(&mut BytesMut, &Entry) -> Result<(), ApiError>,
) -> Result<Response<Body>, ApiError> {
    let size: usize = page.entries.iter().map(|entry| entry.value.len() + 48).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = head.to_string();
    out.put_slice(&head.as_bytes()[..head.len() - 1]);
    out.put_slice(b",\"items\":[");
    for (index, entry) in page.entries.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        item(&mut out, entry)?;
    }
    out.put_slice(b"]}");
    Ok(body::json_bytes(StatusCode::OK, out.freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_says_where_to_go_on_and_nothing_else_is_one() {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let rows = [
            (json!({ "v": "meta.k8s.io/v1", "rv": 7, "start": "a/b" }), Some((Some(7), "a/b"))),
            (json!({ "v": "meta.k8s.io/v1", "rv": -1, "start": "a/b" }), Some((None, "a/b"))),
            (json!({ "v": "meta.k8s.io/v1", "rv": 0, "start": "a/b" }), None),
            (json!({ "v": "meta.k8s.io/v1", "rv": -2, "start": "a/b" }), None),
            (json!({ "v": "meta.k8s.io/v1", "rv": 7, "start": "" }), None),
            (json!({ "v": "meta.k8s.io/v2", "rv": 7, "start": "a" }), None),
            (json!([7]), None),
        ];
        for (value, expected) in rows {
            let expected = expected.map(|(revision, start)| (revision, start.to_owned()));
            assert_eq!(parse_token(&encode(value.clone())).ok(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_token_reader_panic(text in "\\PC{0,64}", raw: Vec<u8>) {
            let _ = parse_token(&text);
            let _ = parse_token(&URL_SAFE_NO_PAD.encode(raw));
        }
    }
}
