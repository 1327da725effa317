//! Lists: pages of a consistent state, as lists, tables or metadata.
//!
//! A list that is longer than a piece is sent while it is read, so that a server has no more of it in memory than a
//! piece, however long it is and however slowly its client reads. What goes wrong then closes the connection.

mod walk;
mod write;

use bytes::{Bytes, BytesMut};
use fairlead_store::{Entry, Revision};
use futures::stream;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Call;
use crate::body::{self, Body};
use crate::compress;
use crate::error::{ApiError, chain_of};
use crate::negotiate::{self, Form};
use crate::protobuf;
use walk::Walk;
use write::Writer;

#[cfg(test)]
pub(crate) use walk::parse_token;

/// Answers a list.
pub(crate) async fn list(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let form = negotiate::form(call.headers, &call.info.query)?;
    let media_type = match form {
        Form::Plain | Form::Partial | Form::Table(_) => body::JSON,
        Form::Yaml => body::YAML,
        Form::Protobuf | Form::PartialProtobuf => protobuf::MEDIA_TYPE,
    };
    let (mut walk, first) = Walk::begin(call).await?;
    let mut writer = Writer::new(call, form);
    if walk.is_over() {
        let mut items = BytesMut::new();
        writer.items(&mut items, &first)?;
        writer.tail(&mut items, None)?;
        let mut whole = writer.head(walk.metadata().as_ref(), items.len())?;
        whole.extend_from_slice(&items);
        return Ok(body::with_type(StatusCode::OK, media_type, Body::from(whole.freeze())));
    }
    let sending = if form.is_protobuf() {
        // How long it is stands before it, so it is read twice.
        let items_len = measure(&mut walk, &mut writer, first).await?;
        let metadata = walk.metadata();
        walk.restart();
        Sending { head: Some(writer.head(metadata.as_ref(), items_len)?), ..Sending::new(walk, writer, None) }
    } else {
        let head = writer.head(walk.metadata().as_ref(), 0)?;
        let metadata_is_last = walk.metadata().is_none();
        Sending { head: Some(head), metadata_is_last, ..Sending::new(walk, writer, Some(first)) }
    };
    let pieces = stream::try_unfold(sending, |mut sending| async move {
        let piece = sending.piece().await.inspect_err(|error| {
            tracing::warn!(error = chain_of(error), "a list broke off");
        })?;
        Ok::<_, ApiError>(piece.map(|piece| (piece, sending)))
    });
    let mut response = body::with_type(StatusCode::OK, media_type, Body::from_stream(pieces));
    compress::mark_long(&mut response);
    Ok(response)
}

/// How long all items of a list are, from its first piece on.
async fn measure(walk: &mut Walk, writer: &mut Writer, first: Vec<Entry>) -> Result<usize, ApiError> {
    let (mut piece, mut len, mut out) = (Some(first), 0, BytesMut::new());
    while let Some(entries) = piece {
        writer.items(&mut out, &entries)?;
        len += out.len();
        out.clear();
        piece = walk.next().await?;
    }
    Ok(len)
}

/// A list that is being sent.
struct Sending {
    walk: Walk,
    writer: Writer,
    /// What is sent before the first items.
    head: Option<BytesMut>,
    /// What was read already.
    first: Option<Vec<Entry>>,
    metadata_is_last: bool,
}

impl Sending {
    fn new(walk: Walk, writer: Writer, first: Option<Vec<Entry>>) -> Self {
        Self { walk, writer, head: None, first, metadata_is_last: false }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        let entries = match self.first.take() {
            Some(first) => Some(first),
            None => self.walk.next().await?,
        };
        let Some(entries) = entries else { return Ok(None) };
        let mut out = self.head.take().unwrap_or_default();
        self.writer.items(&mut out, &entries)?;
        if self.walk.is_over() {
            let metadata = self.walk.metadata().filter(|_| self.metadata_is_last);
            self.writer.tail(&mut out, metadata.as_ref())?;
        }
        Ok(Some(out.freeze()))
    }
}

/// A list of this kind.
pub(crate) fn list_value(call: &Call<'_>, items: Vec<Value>, metadata: Value) -> Value {
    let mut list = json!({ "kind": call.resource.list_kind, "apiVersion": call.resource.api_version() });
    list["metadata"] = metadata;
    list["items"] = Value::Array(items);
    list
}

/// Everything that the request's parameters ask for, at once.
pub(crate) async fn all(call: &Call<'_>) -> Result<(Vec<Entry>, Revision), ApiError> {
    let (mut walk, mut all) = Walk::begin(call).await?;
    while let Some(piece) = walk.next().await? {
        all.extend(piece);
    }
    Ok((all, walk.revision()))
}
