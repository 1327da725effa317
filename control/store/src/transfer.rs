//! Copying a whole store: into another one, into a snapshot file and out of it.
//!
//! Entries travel as pages through a bounded channel, so that memory does not grow with the store. Both ends count
//! them and compute a digest over keys and values in key order; what differs has not been copied.

mod snapshot;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{Entry, ListRequest, Revision, Store, StoreError};

pub use snapshot::{Snapshot, SnapshotError};

/// Entries in key order.
pub type Page = Vec<Entry>;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many entries.
    pub entries: u64,
    /// SHA-256 over all keys and values.
    pub digest: [u8; 32],
}

/// Adds entries up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    entries: u64,
    hash: Sha256,
}

/// How many entries are in a page, and how many pages wait.
const PAGE_LEN: usize = 500;
/// How many pages may wait for the receiver of a copy.
pub const PAGES_MAX: usize = 4;
/// How many writes to the target are under way at once.
const WRITES_MAX: usize = 64;

impl Tally {
    pub(crate) fn add(&mut self, page: &[Entry]) {
        for entry in page {
            self.entries += 1;
            self.hash.update((entry.key.len() as u64).to_le_bytes());
            self.hash.update((entry.value.len() as u64).to_le_bytes());
            self.hash.update(entry.key.as_bytes());
            self.hash.update(&entry.value);
        }
    }

    pub(crate) fn finish(self) -> Summary {
        Summary { entries: self.entries, digest: self.hash.finalize().into() }
    }
}

/// Sends everything that is in the store at revision `at`. Ends early when the receiver does.
pub async fn export(
    store: &dyn Store,
    at: Revision,
    pages: mpsc::Sender<Page>,
) -> Result<Summary, StoreError> {
    let mut tally = Tally::default();
    let mut after = None;
    loop {
        let request = ListRequest { after, limit: Some(PAGE_LEN), at: Some(at), ..ListRequest::default() };
        let listing = store.list(request).await?;
        tally.add(&listing.entries);
        after = listing.entries.last().map(|entry| entry.key.clone());
        if !listing.entries.is_empty() && pages.send(listing.entries).await.is_err() {
            return Ok(tally.finish());
        }
        if listing.remaining == 0 {
            return Ok(tally.finish());
        }
    }
}

/// Writes everything into a store that is empty. Its revisions are its own: each entry gets a new one.
pub async fn fill(
    store: &std::sync::Arc<dyn Store>,
    pages: &mut mpsc::Receiver<Page>,
) -> Result<Summary, StoreError> {
    refuse_contents(&**store).await?;
    let mut tally = Tally::default();
    let mut writes = JoinSet::new();
    while let Some(page) = pages.recv().await {
        tally.add(&page);
        for entry in page {
            if writes.len() >= WRITES_MAX {
                settle(&mut writes).await?;
            }
            let store = store.clone();
            writes.spawn(async move { store.create(&entry.key, entry.value).await });
        }
    }
    while !writes.is_empty() {
        settle(&mut writes).await?;
    }
    Ok(tally.finish())
}

/// Reads a store again and adds it up.
pub async fn summarize(store: &dyn Store) -> Result<Summary, StoreError> {
    let at = store.revision().await?;
    let (pages, mut received) = mpsc::channel::<Page>(PAGES_MAX);
    let drained = async { while received.recv().await.is_some() {} };
    let (summary, ()) = futures::future::join(export(store, at, pages), drained).await;
    summary
}

/// Refuses a store that has entries.
async fn refuse_contents(store: &dyn Store) -> Result<(), StoreError> {
    let listing = store.list(ListRequest { limit: Some(1), ..ListRequest::default() }).await?;
    match listing.entries.first() {
        Some(entry) => {
            let entries = listing.remaining as u64 + 1;
            Err(StoreError::NotEmpty { entries, key: entry.key.clone() })
        }
        None => Ok(()),
    }
}

async fn settle(writes: &mut JoinSet<Result<Revision, StoreError>>) -> Result<(), StoreError> {
    match writes.join_next().await {
        Some(Ok(outcome)) => outcome.map(drop),
        // A write that panicked did not answer.
        Some(Err(_)) => Err(StoreError::Closed),
        None => Ok(()),
    }
}
