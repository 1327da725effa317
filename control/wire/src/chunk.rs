//! Updates cut into messages of bounded size, and put together again.

use fairlead_model::{Change, Revision, Update};
use prost::Message;

use crate::{WireError, proto};

/// A message holds at most this many changes.
const CHANGES_MAX: usize = 1000;

/// A message is closed once its changes have reached this many bytes; far below gRPC's usual limit of 4 MiB.
const BYTES_MAX: usize = 1 << 20;

/// The messages of one update; at least one, and all but the last have `more` set.
pub fn responses(update: Update) -> Vec<proto::WatchResponse> {
    let empty = proto::WatchResponse {
        revision: Some(update.revision.into()),
        snapshot: update.snapshot,
        more: false,
        changes: Vec::new(),
    };
    let mut messages = vec![empty.clone()];
    let mut bytes = 0;
    for change in update.changes {
        let change = proto::Change::from(change);
        let length = change.encoded_len();
        let last = messages.last_mut().expect("never empty");
        let full = last.changes.len() >= CHANGES_MAX || bytes + length > BYTES_MAX;
        if full && !last.changes.is_empty() {
            last.more = true;
            messages.push(empty.clone());
            bytes = 0;
        }
        bytes += length;
        messages.last_mut().expect("never empty").changes.push(change);
    }
    messages
}

/// Collects the messages of an update until it is complete.
#[derive(Debug, Default)]
pub struct Assembly {
    partial: Option<Update>,
}

impl Assembly {
    /// Adds a message; returns the update it completes.
    ///
    /// # Errors
    /// The message is invalid or does not belong to the update that has begun; what was collected is lost.
    pub fn push(&mut self, message: proto::WatchResponse) -> Result<Option<Update>, WireError> {
        let revision = message.revision.ok_or(WireError::Missing { field: "WatchResponse.revision" });
        let revision = Revision::from(revision.inspect_err(|_| self.partial = None)?);
        let mut update = match self.partial.take() {
            Some(update) if update.revision != revision => {
                let (expected, received) = (update.revision.sequence, revision.sequence);
                return Err(WireError::Interleaved { expected, received });
            }
            Some(update) => update,
            None => Update { revision, snapshot: message.snapshot, changes: Vec::new() },
        };
        for change in message.changes {
            update.changes.push(Change::try_from(change)?);
        }
        if message.more {
            self.partial = Some(update);
            return Ok(None);
        }
        Ok(Some(update))
    }

    /// Forgets what was collected: the connection it came from is gone.
    pub fn clear(&mut self) {
        self.partial = None;
    }
}

#[cfg(test)]
mod tests;
