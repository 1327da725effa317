//! The store on one redb file in a directory of its own.
//!
//! Reads run in the caller's task on redb's snapshots. Writes go to one thread, which commits what is queued as one
//! transaction with one fsync (group commit), publishes it, and then answers. So an answer means: on disk, and
//! visible to every watch. With [`Durability::Deferred`] it means the latter, and the disk has it a moment later.
//!
//! When the disk is nearly full, creates and updates are refused and everything else goes on. When it fails all the
//! same, redb serves nothing more, so the writer opens the file again, as often as it takes: what was not answered is
//! then there as a whole or not at all, and watches are told what they missed, or are cut off where it was lost.

mod durability;
mod import;
mod inbox;
mod keys;
mod lock;
mod pace;
mod partition;
mod reader;
mod schema;
mod slot;
mod space;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use crate::watch::Hub;
use crate::{Entry, ListRequest, Listing, Revision, Store, StoreError, Watch, Write};
pub use durability::Durability;
use durability::Syncs;
use inbox::Inbox;
use keys::Keys;
use lock::DirectoryLock;
use slot::Slot;
use writer::{Command, Writer};

/// How the embedded store is set up.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The directory of the store; made (mode 0700) when absent. Holds `lock` and `store.redb`.
    pub dir: PathBuf,
    /// What an acknowledged write has survived.
    pub durability: Durability,
    /// How much history to keep.
    pub retention: Retention,
    /// How much of leases and events, whose changes are kept apart.
    pub brief_retention: Retention,
    /// Memory for cached database pages.
    pub cache_bytes: usize,
    /// How many events may wait for one watcher before it is cut off.
    pub watch_queue_len_max: usize,
    /// Creates and updates are refused when the file system has less space than this; deletions may use it. With 0 only
    /// the disk itself refuses.
    pub space_reserved_bytes: u64,
}

/// How much history to keep. A change is forgotten when it is beyond `revisions_max`, or when it is both older than
/// `age` and not among the newest `revisions_min`.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Keep at least so many changes.
    pub revisions_min: u64,
    /// Keep at most so many changes.
    pub revisions_max: u64,
    /// Keep changes at least so long, up to `revisions_max`.
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        // Five minutes is etcd's compaction interval under kube-apiserver. The limit bounds what a watch that resumes
        // reads into memory, and is more than a minute of a busy cluster's writes (270 pods/s).
        Self { revisions_min: 1_000, revisions_max: 20_000, age: Duration::from_secs(300) }
    }
}

impl Retention {
    /// Enough for a watch of leases or events to be resumed.
    #[must_use]
    pub const fn brief() -> Self {
        Self { revisions_min: 100, revisions_max: 2_000, age: Duration::from_secs(75) }
    }
}

impl EmbeddedConfig {
    /// The defaults, in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Synced,
            retention: Retention::default(),
            brief_retention: Retention::brief(),
            cache_bytes: 8 << 20,
            watch_queue_len_max: 1_024,
            space_reserved_bytes: 16 << 20,
        }
    }
}

/// The store on one redb file.
#[derive(Debug)]
pub struct EmbeddedStore {
    slot: Arc<Slot>,
    keys: Arc<Keys>,
    hub: Arc<Hub>,
    synced: Arc<AtomicU64>,
    /// Closing it ends the writer.
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<thread::JoinHandle<()>>,
    /// Released last.
    _lock: DirectoryLock,
}

/// How many writes may wait for the writer.
const COMMAND_QUEUE_LEN_MAX: usize = 1_024;

impl EmbeddedStore {
    /// Opens or makes the store in `config.dir` and locks the directory.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, StoreError> {
        let lock = DirectoryLock::acquire(&config.dir)?;
        let (slot, revision) = Slot::open(config)?;
        // The name of a new file is durable only when its directory is.
        File::open(&config.dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::Directory {
            operation: "sync the directory",
            path: config.dir.clone(),
            source: Arc::new(error),
        })?;
        let keys = Arc::new(Keys::read(&*slot.get()?, revision)?);
        let slot = Arc::new(slot);
        let hub = Arc::new(Hub::new(revision, config.watch_queue_len_max));
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE_LEN_MAX);
        let retention = [config.retention, config.brief_retention];
        let syncs = Syncs::new(config.durability, revision);
        let synced = syncs.synced();
        let writer = Writer::new(slot.clone(), keys.clone(), hub.clone(), retention, syncs);
        let writer = Inbox::new(queue).and_then(|inbox| {
            thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(inbox))
        });
        let writer = writer.map_err(|error| StoreError::Directory {
            operation: "start the writer thread of",
            path: config.dir.clone(),
            source: Arc::new(error),
        })?;
        Ok(Self { slot, keys, hub, synced, commands: Some(commands), writer: Some(writer), _lock: lock })
    }

    /// The newest revision that is known to be on disk, and all before it.
    #[must_use]
    pub fn synced(&self) -> Revision {
        self.synced.load(Ordering::Acquire)
    }

    async fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self.commands.as_ref().ok_or(StoreError::Closed)?;
        commands.send(command).await.map_err(|_| StoreError::Closed)
    }

    /// Runs a read that may touch many pages off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.slot.get()?;
        let task = tokio::task::spawn_blocking(move || read(&database));
        task.await.map_err(|_| StoreError::Closed)?
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Transact { writes, reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        reader::get(&*self.slot.get()?, key)
    }

    async fn list(&self, request: ListRequest) -> Result<Listing, StoreError> {
        self.slot.get()?;
        // Of most prefixes that every write asks for, such as a namespace's quotas, there is nothing.
        if request.at.is_none()
            && let Some(revision) = self.keys.nothing_under(&request.prefix)
        {
            return Ok(Listing { entries: Vec::new(), revision, remaining: 0 });
        }
        let keys = self.keys.clone();
        self.read(move |database| reader::list(database, &keys, &request)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let registration = self.hub.register(prefix, after);
        let until = registration.history_until;
        let prefix = prefix.to_owned();
        let backlog = self.read(move |database| reader::history(database, &prefix, after, until)).await?;
        Ok(registration.complete(backlog))
    }

    async fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Compact { upto, reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        reader::revision(&*self.slot.get()?)
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.revision().await?;
        self.slot.space.check()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer ended by a panic");
        }
    }
}

#[cfg(test)]
mod tests;
