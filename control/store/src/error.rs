//! What can go wrong in a store.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Revision;

/// An error of the store. Cheap to clone: one failed commit answers many writers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A create found the key.
    #[error("key {key} already exists")]
    Exists {
        /// The key.
        key: String,
    },
    /// An update or delete did not find the key.
    #[error("key {key} does not exist")]
    NotFound {
        /// The key.
        key: String,
    },
    /// The key changed since the writer read it.
    #[error("key {key} was changed by revision {actual}, not {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// What the writer had read.
        expected: Revision,
        /// What is stored.
        actual: Revision,
    },
    /// A transaction is about one key in two ways.
    #[error("a transaction names the key {key} twice")]
    NamedTwice {
        /// The key.
        key: String,
    },
    /// The history does not go back so far.
    #[error("revision {requested} has been compacted; the history begins after {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The newest forgotten revision.
        compacted: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future; the newest is {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The watcher did not take its events fast enough and was cut off; it may watch again from the last one it got.
    #[error("the watcher was too slow and was cut off")]
    WatchTooSlow,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// Another process uses the directory.
    #[error(
        "the state directory {} is in use by process {holder}; stop that process or choose another directory",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id found in the lock file.
        holder: String,
    },
    /// A newer version of the program wrote the directory.
    #[error(
        "{} was written by a newer version (layout {found}; this version understands up to {supported}); \
         start that newer version, or restore a backup",
        path.display()
    )]
    NewerLayout {
        /// The database file.
        path: PathBuf,
        /// Its layout version.
        found: u64,
        /// The newest layout version that this program reads.
        supported: u64,
    },
    /// A record cannot be decoded.
    #[error("the record {record} in {table} is damaged; restore a backup")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The record's key.
        record: String,
    },
    /// The directory or a file of the store cannot be used.
    #[error("cannot {operation} {}", path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The key is not below the root of this store.
    #[error("the key {key} is not below {root}")]
    ForeignKey {
        /// The key.
        key: String,
        /// The root.
        root: String,
    },
    /// etcd does not answer. A write may have happened all the same: read before writing again.
    #[error("cannot {operation} etcd at {endpoints}: {reason}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Where.
        endpoints: Arc<str>,
        /// Why not.
        reason: String,
    },
    /// etcd does not do this: wrong credentials, a request that is too large, a version that is too old.
    #[error("cannot {operation} etcd at {endpoints}: {reason}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// Where.
        endpoints: Arc<str>,
        /// Why not.
        reason: String,
    },
    /// A copy would mix with what is there.
    #[error("the target has {entries} entries already, such as {key}; copy into an empty store")]
    NotEmpty {
        /// How many.
        entries: u64,
        /// One of them.
        key: String,
    },
    /// The embedded store has been written to.
    #[error("the target has been used (its revision is {revision}); copy into a new directory")]
    Used {
        /// Its revision.
        revision: Revision,
    },
    /// A copy ended before its source did.
    #[error("the copy is not complete; nothing of it was kept")]
    Incomplete,
    /// There is no space for a write. Reads go on.
    #[error("the store accepts no writes: {reason}")]
    Full {
        /// What is full, and what to do.
        reason: String,
    },
    /// The database failed.
    #[error("cannot {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: Arc<redb::Error>,
    },
}

impl StoreError {
    /// Whether the same call can succeed later without anybody's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::WatchTooSlow | Self::FutureRevision { .. } | Self::Unavailable { .. })
    }
}

impl StoreError {
    /// Whether the disk failed under the database.
    pub(crate) fn is_io(&self) -> bool {
        match self {
            Self::Database { source, .. } => matches!(**source, redb::Error::Io(_) | redb::Error::PreviousIo),
            _ => false,
        }
    }

    /// Whether it failed for lack of space.
    pub(crate) fn is_out_of_space(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Database { source, .. } => {
                matches!(&**source, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded))
            }
            _ => false,
        }
    }
}

/// Names the operation that failed in redb.
pub(crate) trait During<T> {
    /// Wraps the error with what was tried.
    fn during(self, operation: &'static str) -> Result<T, StoreError>;
}

impl<T, E: Into<redb::Error>> During<T> for Result<T, E> {
    fn during(self, operation: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Database { operation, source: Arc::new(error.into()) })
    }
}
