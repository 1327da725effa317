//! Watches: the hub that the writer publishes to, and the watcher's end.
//!
//! Each watcher has its own bounded queue, filled under one lock in commit order. A watcher whose queue is full is
//! cut off at that point: it still gets what is queued, then an error, and nobody else notices.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};

use crate::{Revision, StoreError};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Created,
    /// Its value was replaced.
    Updated,
    /// It was removed.
    Deleted,
}

/// One committed write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The write's revision.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// To which key.
    pub key: String,
    /// The new value; absent when the key was removed.
    pub value: Option<Bytes>,
    /// The value before; absent when the key was created.
    pub previous: Option<Bytes>,
}

/// A stream of events. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    backlog: VecDeque<Arc<Event>>,
    live: mpsc::Receiver<Arc<Event>>,
    after: Revision,
    lagged: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
}

impl Watch {
    /// The next event. After an error the watch is over.
    pub async fn next(&mut self) -> Result<Arc<Event>, StoreError> {
        if let Some(event) = self.backlog.pop_front() {
            return Ok(event);
        }
        loop {
            match self.live.recv().await {
                Some(event) if event.revision <= self.after => {}
                Some(event) => return Ok(event),
                None => return Err(self.ended()),
            }
        }
    }

    /// The next event if it is already here.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, StoreError> {
        if let Some(event) = self.backlog.pop_front() {
            return Ok(Some(event));
        }
        loop {
            match self.live.try_recv() {
                Ok(event) if event.revision <= self.after => {}
                Ok(event) => return Ok(Some(event)),
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(self.ended()),
            }
        }
    }

    /// A revision up to which every event of this watch is already queued: read it, drain [`Self::try_next`], and
    /// the watcher is known to be up to date at that revision.
    #[must_use]
    pub fn progress(&self) -> Revision {
        self.published.load(Ordering::Acquire).max(self.after)
    }

    fn ended(&self) -> StoreError {
        if self.lagged.load(Ordering::Acquire) { StoreError::WatchTooSlow } else { StoreError::Closed }
    }
}

/// Where the writer publishes and watchers register.
#[derive(Debug)]
pub(crate) struct Hub {
    watchers: Mutex<Vec<Watcher>>,
    published: Arc<AtomicU64>,
    queue_len_max: usize,
}

/// A registered watch whose backlog has not been read yet.
#[derive(Debug)]
pub(crate) struct Registration {
    watch: Watch,
    /// Events up to here must come from the history; later ones are in the live queue.
    pub(crate) history_until: Revision,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    queue: mpsc::Sender<Arc<Event>>,
    lagged: Arc<AtomicBool>,
}

impl Hub {
    pub(crate) fn new(published: Revision, queue_len_max: usize) -> Self {
        Self { watchers: Mutex::default(), published: Arc::new(AtomicU64::new(published)), queue_len_max }
    }

    pub(crate) fn register(&self, prefix: &str, after: Revision) -> Registration {
        let (queue, live) = mpsc::channel(self.queue_len_max);
        let lagged = Arc::new(AtomicBool::new(false));
        let mut watchers = self.lock();
        watchers.push(Watcher { prefix: prefix.to_owned(), queue, lagged: lagged.clone() });
        let history_until = self.published.load(Ordering::Acquire);
        drop(watchers);
        let published = self.published.clone();
        let watch = Watch { backlog: VecDeque::new(), live, after, lagged, published };
        Registration { watch, history_until }
    }

    /// Hands committed events, in order, to everybody who watches them.
    pub(crate) fn publish(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        let mut watchers = self.lock();
        watchers.retain(|watcher| watcher.offer(events));
        self.published.store(last.revision, Ordering::Release);
    }

    /// The newest published revision.
    pub(crate) fn published(&self) -> Revision {
        self.published.load(Ordering::Acquire)
    }

    /// Notes that there is nothing more to publish up to `revision`.
    pub(crate) fn advance(&self, revision: Revision) {
        let _watchers = self.lock();
        self.published.fetch_max(revision, Ordering::AcqRel);
    }

    /// Ends every watch because events up to `revision` are missing.
    pub(crate) fn cut_off(&self, revision: Revision) {
        let mut watchers = self.lock();
        for watcher in watchers.drain(..) {
            watcher.lagged.store(true, Ordering::Release);
        }
        self.published.fetch_max(revision, Ordering::AcqRel);
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watcher>> {
        // The list is valid after any panic: it is only ever pushed to and filtered.
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// The watch, with the events of the history put before the live ones.
    pub(crate) fn complete(mut self, backlog: VecDeque<Arc<Event>>) -> Watch {
        self.watch.after = self.watch.after.max(self.history_until);
        self.watch.backlog = backlog;
        self.watch
    }
}

impl Watcher {
    /// Queues the events of this watcher; false when it is gone or too slow.
    fn offer(&self, events: &[Arc<Event>]) -> bool {
        if self.queue.is_closed() {
            return false;
        }
        for event in events.iter().filter(|event| event.key.starts_with(&self.prefix)) {
            match self.queue.try_send(event.clone()) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(_)) => {
                    tracing::warn!(prefix = %self.prefix, "cut off a watcher that was too slow");
                    self.lagged.store(true, Ordering::Release);
                    return false;
                }
            }
        }
        true
    }
}
