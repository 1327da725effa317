//! Watches: a stream of JSON lines, made as the client reads it.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fairlead_store::{Event, EventKind, ListRequest, Revision, StoreError, Watch};
use futures::stream;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::select::{self, Selection};
use crate::api::{Api, Call};
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::negotiate::{self, Form};
use crate::object::Owners;
use crate::resource::Resource;
use crate::{object, protobuf, table};

/// How long a watch lasts when the client does not say: this, and up to as much again, so that the clients of a
/// restarted server do not all come back at once (kube-apiserver's `--min-request-timeout`).
const TIMEOUT_SECS_MIN: u64 = 1_800;
/// How often an idle watch is told the current revision (apiserver `storage/cacher`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long the objects are together that are read at a time for the initial events.
const INITIAL_PAGE_BYTES: usize = 256 << 10;
/// How many waiting events are written into one chunk.
const CHUNK_EVENTS_MAX: usize = 128;
/// After how many chunks in a row a watch to which there is always more to say looks whether it has to end.
const CHUNKS_IN_A_ROW_MAX: u32 = 64;

/// Answers a watch.
pub(crate) async fn watch(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let query = &call.info.query;
    let form = negotiate::form(call.headers, query)?;
    let selection = Selection::of(call)?;
    let initial_events = select::initial_events(query)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let from = select::revision(query)?.filter(|revision| *revision > 0);
    let lasts = duration(query.number("timeoutSeconds")?);
    let now = Instant::now();

    // From a version on come the changes since; without one, first what there is.
    let with_initial = initial_events.unwrap_or(from.is_none());
    let start = match from {
        Some(from) if !with_initial => from,
        from => {
            let current = call.api.store.revision().await?;
            if let Some(requested) = from.filter(|from| *from > current) {
                return Err(ApiError::FutureResourceVersion { requested, current });
            }
            current
        }
    };
    let watch = match call.api.store.watch(&selection.prefix, start).await {
        Ok(watch) => watch,
        // Inside the stream, where every client looks for it, as kube-apiserver's watch cache does.
        Err(error @ StoreError::Compacted { .. }) => {
            let mut out = BytesMut::new();
            write_error(&mut out, form, &ApiError::from(error));
            return Ok(body::with_type(StatusCode::OK, media_type(form), Body::from(out.freeze())));
        }
        Err(error) => return Err(error.into()),
    };
    let (ends_at, next_bookmark) = (now + lasts, now + BOOKMARK_EVERY);
    let follower = Follower {
        api: call.api.clone(),
        resource: call.resource,
        form,
        owners: call.owners(),
        selection,
        watch,
        phase: if with_initial { Phase::Initial { after: None } } else { Phase::Live },
        start,
        last: start,
        marks_initial_end: initial_events == Some(true) && bookmarks,
        bookmarks,
        ends_at,
        alarm: Box::pin(sleep_until(if bookmarks { ends_at.min(next_bookmark) } else { ends_at })),
        draining: Box::pin(call.api.draining.clone().cancelled_owned()),
        in_a_row: 0,
        headings_sent: false,
    };
    let lines = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.chunk().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    Ok(body::with_type(StatusCode::OK, media_type(form), Body::from_stream(lines)))
}

/// How long a watch lasts when its client asks for so many seconds.
fn duration(asked: Option<i64>) -> Duration {
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let seconds = asked.unwrap_or_else(|| TIMEOUT_SECS_MIN + rand::random::<u64>() % TIMEOUT_SECS_MIN);
    Duration::from_secs(seconds)
}

/// What a watch is doing.
#[derive(Debug)]
enum Phase {
    /// Sending the objects that exist at `start`, from after this key.
    Initial { after: Option<String> },
    /// Following changes.
    Live,
    /// Nothing more is sent.
    Ended,
}

/// A watch in progress.
#[derive(Debug)]
struct Follower {
    api: Arc<Api>,
    resource: &'static Resource,
    form: Form,
    owners: Owners,
    selection: Selection,
    watch: Watch,
    phase: Phase,
    start: Revision,
    /// The revision of the last event seen, sent or not.
    last: Revision,
    marks_initial_end: bool,
    bookmarks: bool,
    ends_at: Instant,
    /// When it ends or is told the current revision. This and `draining` are kept, because to wait anew for each event is
    /// most of what a watch costs.
    alarm: Pin<Box<Sleep>>,
    /// The server stops.
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Chunks since it was last looked whether the watch ends.
    in_a_row: u32,
    /// A table's columns are described in its first event only.
    headings_sent: bool,
}

impl Follower {
    /// The next lines; `None` ends the stream.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut out = Lines::default();
        while out.is_empty() {
            let outcome = match &mut self.phase {
                Phase::Initial { after } => {
                    let after = after.take();
                    self.initial(after, &mut out).await
                }
                Phase::Live => self.live(&mut out).await,
                Phase::Ended => return None,
            };
            if let Err(error) = outcome {
                tracing::debug!(error = %error, "a watch ends with an error");
                write_error(out.own(), self.form, &error);
                self.phase = Phase::Ended;
            }
        }
        Some(out.freeze())
    }

    async fn initial(&mut self, after: Option<String>, out: &mut Lines) -> Result<(), ApiError> {
        let out = out.own();
        let request = ListRequest {
            prefix: self.selection.prefix.clone(),
            after,
            limit: None,
            at: Some(self.start),
            bytes_max: Some(INITIAL_PAGE_BYTES),
        };
        let listing = self.api.store.list(request).await?;
        for entry in &listing.entries {
            if self.selects(&entry.value)? {
                self.write(out, "ADDED", &entry.value, entry.mod_revision)?;
            }
        }
        if listing.remaining > 0 {
            let after = listing.entries.last().map(|entry| entry.key.clone());
            self.phase = Phase::Initial { after };
            return Ok(());
        }
        if self.marks_initial_end {
            self.write_bookmark(out, self.start, true)?;
        }
        self.phase = Phase::Live;
        Ok(())
    }

    async fn live(&mut self, out: &mut Lines) -> Result<(), ApiError> {
        if self.in_a_row >= CHUNKS_IN_A_ROW_MAX {
            self.in_a_row = 0;
            if self.api.draining.is_cancelled() || Instant::now() >= self.ends_at {
                self.phase = Phase::Ended;
                return Ok(());
            }
        }
        tokio::select! {
            // Events first: then the others are waited for only when there are none.
            biased;
            event = self.watch.next() => match event {
                Ok(event) => {
                    self.in_a_row += 1;
                    self.write_event(out, &event)?;
                    self.write_waiting(out)?;
                }
                Err(error) => self.ended(error)?,
            },
            () = &mut self.draining => self.phase = Phase::Ended,
            () = &mut self.alarm => {
                let now = Instant::now();
                self.up_to_date(out)?;
                if now >= self.ends_at {
                    self.phase = Phase::Ended;
                }
                self.alarm.as_mut().reset(self.ends_at.min(now + BOOKMARK_EVERY));
            }
        }
        Ok(())
    }

    /// A client that was cut off for being slow, or whose server stops, watches again from its last event.
    fn ended(&mut self, error: StoreError) -> Result<(), ApiError> {
        self.phase = Phase::Ended;
        match error {
            StoreError::WatchTooSlow | StoreError::Closed => Ok(()),
            error => Err(error.into()),
        }
    }

    fn write_waiting(&mut self, out: &mut Lines) -> Result<(), ApiError> {
        for _ in 0..CHUNK_EVENTS_MAX {
            match self.watch.try_next() {
                Ok(Some(event)) => self.write_event(out, &event)?,
                Ok(None) => break,
                // It is met again by the next read, after these lines are out.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Sends what is waiting, and then up to which revision that is everything.
    fn up_to_date(&mut self, out: &mut Lines) -> Result<(), ApiError> {
        let complete = self.watch.progress();
        loop {
            match self.watch.try_next() {
                Ok(Some(event)) => self.write_event(out, &event)?,
                Ok(None) => break,
                Err(error) => return self.ended(error),
            }
        }
        if self.bookmarks {
            self.write_bookmark(out.own(), complete.max(self.last), false)?;
        }
        Ok(())
    }

    /// One change as this watch's selection sees it: an object may come in, change, or leave.
    fn write_event(&mut self, out: &mut Lines, event: &Arc<Event>) -> Result<(), ApiError> {
        self.last = event.revision;
        if self.selection.is_one_key() && event.key != self.selection.prefix {
            return Ok(());
        }
        if self.selection.is_everything() || self.selection.is_one_key() {
            let kind = match event.kind {
                EventKind::Created => "ADDED",
                EventKind::Updated => "MODIFIED",
                EventKind::Deleted => "DELETED",
            };
            let value = event.value.as_ref().or(event.previous.as_ref());
            return match value {
                Some(value) => self.send(out, kind, value, event),
                None => Ok(()),
            };
        }
        let decoded = self.api.decoded.of(event, self.resource)?;
        let matches =
            |object: &Option<Value>| object.as_ref().is_some_and(|object| self.selection.matches(object));
        let (selected, was_selected) = (matches(&decoded.value), matches(&decoded.previous));
        match (selected, &event.value, was_selected, &event.previous) {
            (true, Some(value), true, _) => self.send(out, "MODIFIED", value, event),
            (true, Some(value), false, _) => self.send(out, "ADDED", value, event),
            (false, _, true, Some(previous)) => self.send(out, "DELETED", previous, event),
            _ => Ok(()),
        }
    }

    /// Writes an event's line, which is the same for all watches of its form but for those of tables.
    fn send(
        &mut self,
        out: &mut Lines,
        kind: &'static str,
        stored: &[u8],
        event: &Arc<Event>,
    ) -> Result<(), ApiError> {
        if matches!(self.form, Form::Table(_)) {
            return self.write(out.own(), kind, stored, event.revision);
        }
        let api = self.api.clone();
        let line = api.sent.line(event, self.resource, (self.form, self.owners, kind), || {
            let mut line = BytesMut::new();
            self.write(&mut line, kind, stored, event.revision)?;
            Ok(line.freeze())
        })?;
        out.push(line);
        Ok(())
    }

    fn selects(&self, stored: &[u8]) -> Result<bool, ApiError> {
        Ok(self.selection.is_everything()
            || self.selection.matches(&object::decode(self.resource, stored, 0)?))
    }

    fn write(
        &mut self,
        out: &mut BytesMut,
        kind: &str,
        stored: &[u8],
        revision: Revision,
    ) -> Result<(), ApiError> {
        match self.form {
            Form::Plain | Form::Yaml => {
                let json = object::with_version(self.resource, stored, revision, self.owners)?;
                write_line(out, kind, &json);
            }
            Form::Partial => {
                let mut json = BytesMut::new();
                object::write_partial(&mut json, stored, revision, self.owners);
                write_line(out, kind, &json);
            }
            Form::Protobuf => {
                let value = object::decode(self.resource, stored, revision)?;
                protobuf::put_watch_event(out, kind, &protobuf::encode(&value)?);
            }
            Form::PartialProtobuf => {
                let value = object::partial(&object::decode(self.resource, stored, revision)?);
                protobuf::put_watch_event(out, kind, &protobuf::encode_partial(&value)?);
            }
            Form::Table(include) => {
                let value = object::decode(self.resource, stored, revision)?;
                let mut table = table::table(self.resource, &[value], Timestamp::now(), include);
                table["metadata"]["resourceVersion"] = json!(revision.to_string());
                if std::mem::replace(&mut self.headings_sent, true) {
                    table["columnDefinitions"] = Value::Null;
                }
                write_line(out, kind, table.to_string().as_bytes());
            }
        }
        Ok(())
    }

    fn write_bookmark(
        &self,
        out: &mut BytesMut,
        revision: Revision,
        initial_end: bool,
    ) -> Result<(), ApiError> {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Plain | Form::Yaml | Form::Protobuf => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
            Form::Partial | Form::PartialProtobuf => object::partial(&json!({ "metadata": metadata })),
            // kubectl takes the revision from the table itself, clients of rows from the row's object.
            Form::Table(_) => json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": { "resourceVersion": revision.to_string() },
                "columnDefinitions": null,
                "rows": [{ "cells": [], "object": object::partial(&json!({ "metadata": metadata })) }],
            }),
        };
        match self.form {
            Form::Protobuf => protobuf::put_watch_event(out, "BOOKMARK", &protobuf::encode(&object)?),
            Form::PartialProtobuf => {
                protobuf::put_watch_event(out, "BOOKMARK", &protobuf::encode_partial(&object)?);
            }
            _ => write_line(out, "BOOKMARK", object.to_string().as_bytes()),
        }
        Ok(())
    }
}

/// What a chunk is made of. Most are one line, which is shared with other watches and need not be copied.
#[derive(Debug, Default)]
struct Lines {
    first: Bytes,
    all: BytesMut,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.all.is_empty()
    }

    fn push(&mut self, line: Bytes) {
        if self.is_empty() {
            self.first = line;
        } else {
            self.own().put_slice(&line);
        }
    }

    /// The lines as a buffer to append to.
    fn own(&mut self) -> &mut BytesMut {
        let first = std::mem::take(&mut self.first);
        self.all.put_slice(&first);
        &mut self.all
    }

    fn freeze(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

fn media_type(form: Form) -> &'static str {
    if form.is_protobuf() { protobuf::WATCH_MEDIA_TYPE } else { body::JSON }
}

fn write_error(out: &mut BytesMut, form: Form, error: &ApiError) {
    let status = error.status();
    match protobuf::encode(&status).ok().filter(|_| form.is_protobuf()) {
        Some(bytes) => protobuf::put_watch_event(out, "ERROR", &bytes),
        None => write_line(out, "ERROR", status.to_string().as_bytes()),
    }
}

fn write_line(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_watch_lasts_as_long_as_asked_or_half_an_hour_to_an_hour() {
        assert_eq!(duration(Some(7)), Duration::from_secs(7));
        for none in [None, Some(0), Some(-1)] {
            let lengths: BTreeSet<u64> = (0..100).map(|_| duration(none).as_secs()).collect();
            assert!(lengths.iter().all(|seconds| (1_800..3_600).contains(seconds)), "{lengths:?}");
            assert!(lengths.len() > 50, "not all at once: {lengths:?}");
        }
    }
}
