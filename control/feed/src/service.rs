//! The gRPC service: each reader pulls what it lacks from the index at its own pace.
//!
//! There is no queue per reader. A reader that is slow falls behind in the log; one that falls out of the log gets a
//! snapshot. Either way nobody else waits.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fairlead_model::{Revision, Update};
use fairlead_wire::proto::{self, feed_server::Feed};
use futures::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::index::{Index, Resume};

/// The index, and the last revision it told.
#[derive(Clone)]
pub(crate) struct Shared {
    index: Arc<Mutex<Index>>,
    told: watch::Sender<Revision>,
}

impl Shared {
    pub(crate) fn new(index: Index) -> Self {
        let told = watch::Sender::new(index.revision());
        Self { index: Arc::new(Mutex::new(index)), told }
    }

    /// Changes the index and wakes the readers when that made an update. The lock is never held across an await.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Index)) {
        let mut index = self.lock();
        change(&mut index);
        if let Some(revision) = index.commit() {
            self.told.send_replace(revision);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct FeedService {
    pub(crate) shared: Shared,
    pub(crate) shutdown: CancellationToken,
}

/// Where one reader is.
struct Reader {
    node: String,
    revision: Revision,
    updates: VecDeque<Arc<Update>>,
    messages: VecDeque<proto::WatchResponse>,
    shared: Shared,
    told: watch::Receiver<Revision>,
    shutdown: CancellationToken,
}

impl Reader {
    /// The next message, as soon as there is one; `None` when the feed ends.
    async fn next(&mut self) -> Option<proto::WatchResponse> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some(message);
            }
            if let Some(update) = self.updates.pop_front() {
                self.take(Arc::unwrap_or_clone(update));
                continue;
            }
            self.told.mark_unchanged();
            let resume = self.shared.lock().resume(self.revision);
            match resume {
                Resume::Deltas(updates) => self.updates.extend(updates),
                Resume::Snapshot(update) => {
                    let changes = update.changes.len();
                    tracing::info!(node = self.node, changes, "a reader of the feed gets a snapshot");
                    self.take(update);
                }
                Resume::Wait => tokio::select! {
                    () = self.shutdown.cancelled() => return None,
                    changed = self.told.changed() => changed.ok()?,
                },
            }
        }
    }

    fn take(&mut self, update: Update) {
        self.revision = update.revision;
        self.messages.extend(fairlead_wire::responses(update));
    }
}

#[tonic::async_trait]
impl Feed for FeedService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = request.remote_addr();
        let request = request.into_inner();
        let revision = request.revision.map(Revision::from).unwrap_or_default();
        tracing::info!(node = request.node, ?peer, sequence = revision.sequence, "a reader joined the feed");
        let reader = Reader {
            node: request.node,
            revision,
            updates: VecDeque::new(),
            messages: VecDeque::new(),
            told: self.shared.told.subscribe(),
            shared: self.shared.clone(),
            shutdown: self.shutdown.clone(),
        };
        let messages = stream::unfold(reader, async |mut reader| {
            let message = reader.next().await?;
            Some((Ok(message), reader))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
