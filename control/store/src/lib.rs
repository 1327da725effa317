//! The revisioned store behind the API server.
//!
//! A flat, ordered map from keys to opaque values with one counter, the *revision*: every committed
//! write takes the next one, so all writes of the cluster are totally ordered. An entry remembers the
//! revision that created it and the one that last changed it; writes are compare-and-swap on the latter.
//! A bounded history of changes answers watches and lists in the past.
//!
//! The store never looks into a value and never answers a write before it is on disk, unless it was told to
//! ([`Durability::Deferred`]).
//!
//! Start reading at [`Store`], then [`embedded::EmbeddedStore`] and [`etcd::EtcdStore`].

mod error;
mod watch;

pub mod embedded;
pub mod etcd;
pub mod transfer;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::embedded::{Durability, EmbeddedConfig, EmbeddedStore, Retention};
pub use crate::error::StoreError;
pub use crate::etcd::{EtcdConfig, EtcdStore, EtcdTls};
pub use crate::watch::{Event, EventKind, Watch};

/// The number of a committed write. Revision 0 is the empty store.
pub type Revision = u64;

/// A key's value and the revisions that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value as it was written.
    pub value: Bytes,
    /// The write that created the key.
    pub create_revision: Revision,
    /// The write that last changed the value: the precondition of the next one.
    pub mod_revision: Revision,
}

/// One write of a transaction, with its precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates a key that is not there.
    Create {
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// Replaces the value of a key.
    Update {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The revision of the key's last change.
        expected: Revision,
    },
    /// Removes a key that is there.
    Delete {
        /// The key.
        key: String,
        /// The revision of the key's last change; any, when absent.
        expected: Option<Revision>,
    },
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// The value that is written, if one is.
    pub(crate) fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Create { value, .. } | Self::Update { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }

    /// Why the precondition does not hold of a key that is stored with this revision, or not at all.
    pub(crate) fn refusal(&self, stored: Option<Revision>) -> Option<StoreError> {
        let key = || self.key().to_owned();
        match (self, stored) {
            (Self::Create { .. }, None) => None,
            (Self::Create { .. }, Some(_)) => Some(StoreError::Exists { key: key() }),
            (_, None) => Some(StoreError::NotFound { key: key() }),
            (Self::Update { expected, .. } | Self::Delete { expected: Some(expected), .. }, Some(actual)) => {
                let differs = *expected != actual;
                differs.then(|| StoreError::Conflict { key: key(), expected: *expected, actual })
            }
            (Self::Delete { expected: None, .. }, Some(_)) => None,
        }
    }
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that start with this.
    pub prefix: String,
    /// Only keys that sort after this one: where the previous page ended.
    pub after: Option<String>,
    /// At most so many entries.
    pub limit: Option<usize>,
    /// The state at this revision; the newest one when absent.
    pub at: Option<Revision>,
    /// The page ends with the entry that makes its values so long together. It has at least one entry, if there is one.
    pub bytes_max: Option<usize>,
}

impl ListRequest {
    /// Everything under `prefix`, now.
    #[must_use]
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// One page of entries in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The revision of which this is the state.
    pub revision: Revision,
    /// How many entries follow after this page. When it ended for its length in bytes, they are not counted, and this is
    /// at least 1.
    pub remaining: usize,
}

/// A revisioned, watchable key-value store.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Commits all the writes or none of them, in one step that no other write comes between. Refused with the error of
    /// the first write whose precondition does not hold. A key may be named once. Returns the revision of the first
    /// write; those of the others are the same or follow without a gap.
    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError>;

    /// Creates `key`; fails with [`StoreError::Exists`] when it is there.
    async fn create(&self, key: &str, value: Bytes) -> Result<Revision, StoreError> {
        self.transact(vec![Write::Create { key: key.to_owned(), value }]).await
    }

    /// Replaces the value of `key` if its last change was `expected`.
    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Revision, StoreError> {
        self.transact(vec![Write::Update { key: key.to_owned(), value, expected }]).await
    }

    /// Removes `key`, if given only when its last change was `expected`. Returns the revision of the removal.
    async fn delete(&self, key: &str, expected: Option<Revision>) -> Result<Revision, StoreError> {
        self.transact(vec![Write::Delete { key: key.to_owned(), expected }]).await
    }

    /// The newest value of `key`.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// One page of the keys under a prefix; [`StoreError::Compacted`] or [`StoreError::FutureRevision`] when
    /// `request.at` is out of the history.
    async fn list(&self, request: ListRequest) -> Result<Listing, StoreError>;

    /// Every change under `prefix` later than revision `after`, in order, without gap or duplicate.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Forgets the history up to and including `upto`.
    async fn compact(&self, upto: Revision) -> Result<(), StoreError>;

    /// The newest committed revision.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Whether reads and writes are served now; if not, why.
    async fn health(&self) -> Result<(), StoreError> {
        self.revision().await.map(drop)
    }
}
