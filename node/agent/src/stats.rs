//! Numbers about the agent's own work.

use std::time::{Duration, Instant};

use fairlead_model::Revision;
use fairlead_plan::ebpf::Usage;
use tokio::sync::watch;

/// Upper bounds of the buckets of kube-proxy's sync histogram: 1 ms doubled 14 times, in seconds.
pub(crate) const BUCKETS: usize = 15;

/// Upper bound of a bucket.
pub(crate) fn bucket_bound(index: usize) -> Duration {
    Duration::from_millis(1 << index)
}

/// What the sync loop has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct SyncStats {
    /// How many syncs took at most [`bucket_bound`] each; not cumulative.
    pub(crate) buckets: [u64; BUCKETS],
    pub(crate) count: u64,
    pub(crate) sum: Duration,
    pub(crate) failures: u64,
    /// Since when something waits to be applied.
    pub(crate) pending_since: Option<Instant>,
    pub(crate) last_success: Option<Instant>,
    pub(crate) last_error: Option<String>,
    pub(crate) problems: Vec<String>,
    pub(crate) usage: Usage,
    pub(crate) routes: usize,
    /// What has been applied completely.
    pub(crate) revision: Revision,
}

/// [`SyncStats`] for one writer and many readers.
#[derive(Debug, Default)]
pub(crate) struct Stats(watch::Sender<SyncStats>);

impl Stats {
    pub(crate) fn read(&self) -> SyncStats {
        self.0.borrow().clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SyncStats)) {
        self.0.send_modify(change);
    }

    /// To wait for a change.
    #[cfg(test)]
    pub(crate) fn subscribe(&self) -> watch::Receiver<SyncStats> {
        self.0.subscribe()
    }
}

impl SyncStats {
    pub(crate) fn observe(&mut self, took: Duration) {
        if let Some(bucket) = (0..BUCKETS).find(|index| took <= bucket_bound(*index)) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += took;
    }
}
