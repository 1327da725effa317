//! The objects of a list, read piece by piece, all of one state.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fairlead_store::{Entry, ListRequest, Revision, StoreError};
use serde_json::{Value, json};

use crate::api::{self, Api, Call};
use crate::error::ApiError;
use crate::object;
use crate::resource::Resource;
use crate::verbs::select::{self, At, Selection};

/// How long the objects are together that are in memory at a time; one that is longer is there alone.
const PIECE_BYTES: usize = 256 << 10;

/// A list in progress.
#[derive(Debug)]
pub(super) struct Walk {
    api: Arc<Api>,
    resource: &'static Resource,
    selection: Selection,
    /// What is read next. Its revision is known from the first piece on.
    request: ListRequest,
    /// After which key the list begins.
    start: Option<String>,
    limit: Option<usize>,
    /// How many objects it has had.
    len: usize,
    end: Option<End>,
}

/// What there is to say at the end of a list.
#[derive(Clone, Debug, Default)]
struct End {
    continue_token: Option<String>,
    remaining: Option<usize>,
}

impl Walk {
    /// The list that the request's parameters ask for, and its first piece.
    pub(super) async fn begin(call: &Call<'_>) -> Result<(Self, Vec<Entry>), ApiError> {
        let query = &call.info.query;
        let selection = Selection::of(call)?;
        let at = select::list_at(query)?;
        let limit = query.number("limit")?.filter(|limit| *limit > 0);
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut request =
            ListRequest { bytes_max: Some(PIECE_BYTES), ..ListRequest::prefix(selection.prefix.as_str()) };
        if let Some(token) = query.get("continue") {
            let (revision, after) = parse_token(token)?;
            request.at = revision;
            request.after = Some(format!("{}{after}", api::prefix(call.resource, None)));
        } else if let At::Exactly(revision) = at {
            request.at = Some(revision);
        }
        let start = request.after.clone();
        let (api, resource) = (call.api.clone(), call.resource);
        let mut walk = Self { api, resource, selection, request, start, limit, len: 0, end: None };
        let first = walk.next().await?.unwrap_or_default();
        match at {
            At::NotOlderThan(requested) if requested > walk.revision() => {
                Err(ApiError::FutureResourceVersion { requested, current: walk.revision() })
            }
            _ => Ok((walk, first)),
        }
    }

    /// The next piece, which is not empty unless it is the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>, ApiError> {
        let mut piece = Vec::new();
        while self.end.is_none() && piece.is_empty() {
            self.read(&mut piece).await?;
        }
        self.len += piece.len();
        Ok((self.end.is_none() || !piece.is_empty()).then_some(piece))
    }

    async fn read(&mut self, piece: &mut Vec<Entry>) -> Result<(), ApiError> {
        let everything = self.selection.is_everything();
        let left = self.limit.map(|limit| limit - self.len);
        // Who looks for some objects does not know how many have to be read.
        self.request.limit = left.filter(|_| everything);
        let listing = self.api.store.list(self.request.clone()).await;
        let listing = listing.map_err(|error| expired(self.resource, &self.request, error))?;
        self.request.at = Some(listing.revision);
        if let Some(last) = listing.entries.last() {
            self.request.after = Some(last.key.clone());
        }
        let mut follow = listing.entries.len() + listing.remaining;
        for entry in listing.entries {
            follow -= 1;
            if !everything && !self.selection.matches(&object::decode(self.resource, &entry.value, 0)?) {
                continue;
            }
            piece.push(entry);
            if Some(piece.len()) == left && follow > 0 {
                let remaining = everything.then_some(follow);
                let at = i64::try_from(listing.revision).unwrap_or(NEWEST);
                let continue_token = piece.last().map(|entry| token(self.resource, at, &entry.key));
                self.end = Some(End { continue_token, remaining });
                return Ok(());
            }
        }
        if listing.remaining == 0 {
            self.end = Some(End::default());
        }
        Ok(())
    }

    /// Begins again, with the same state.
    pub(super) fn restart(&mut self) {
        self.request.after.clone_from(&self.start);
        (self.len, self.end) = (0, None);
    }

    /// Whether there are no more pieces.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Of which revision the list is.
    pub(super) fn revision(&self) -> Revision {
        self.request.at.unwrap_or_default()
    }

    /// The list's metadata, if all of it is known already: where it can be continued only its end tells.
    pub(super) fn metadata(&self) -> Option<Value> {
        let end = match (&self.end, self.limit) {
            (Some(end), _) => end.clone(),
            (None, None) => End::default(),
            (None, Some(_)) => return None,
        };
        let mut metadata = json!({ "resourceVersion": self.revision().to_string() });
        if let Some(token) = end.continue_token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = end.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        Some(metadata)
    }
}

/// Of a list whose state is gone. It can be continued all the same, with what there is now.
fn expired(resource: &Resource, request: &ListRequest, error: StoreError) -> ApiError {
    match (error, &request.after) {
        (StoreError::Compacted { .. }, Some(after)) => {
            ApiError::ExpiredPage { continue_token: token(resource, NEWEST, after) }
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
fn token(resource: &Resource, revision: i64, key: &str) -> String {
    let prefix = api::prefix(resource, None);
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
