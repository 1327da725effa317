//! When a commit is synced to the disk, and which revisions may be given out until the next one is.
//!
//! A crash takes the commits since the last synced one back. Clients may have seen their revisions, and none of those may
//! ever be given to another write: a watch that goes on after it would miss what came before. So each synced commit
//! stores a *ceiling*, above all revisions that are given out before the next one. A store that was not closed goes on at
//! its ceiling, without history: whoever saw what is lost lists anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redb::{Table, WriteTransaction};

use super::partition::{BRIEF, LASTING};
use super::schema::{META_CEILING, META_REVISION, read_meta};
use crate::error::During;
use crate::{Revision, StoreError};

/// What an acknowledged write has survived already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Everything: it is on disk.
    #[default]
    Synced,
    /// Nothing yet. It is on disk after `interval` at most; until then a crash of the process or the machine may take it
    /// back, and with it everything that was written later. What is left is a state that was once the newest.
    Deferred {
        /// How long a write may wait for a synced commit.
        interval: Duration,
    },
}

/// How many revisions may be given out between two synced commits: more than an interval of seconds has. A commit that
/// would go beyond is synced.
const STRIDE: u64 = 1_000_000;

/// Which commits are synced.
#[derive(Debug)]
pub(super) struct Syncs {
    durability: Durability,
    ceiling: Revision,
    /// When the oldest commit was made that is not synced.
    unsynced_since: Option<Instant>,
    /// The newest revision that is synced.
    synced: Arc<AtomicU64>,
}

impl Durability {
    /// The ceiling that a synced commit at a revision stores; 0 is none, and the store is as it would be after a crash.
    pub(super) fn ceiling(self, revision: Revision) -> Revision {
        match self {
            Self::Synced => 0,
            Self::Deferred { .. } => revision + STRIDE,
        }
    }
}

impl Syncs {
    /// Of a store that was just opened at a revision.
    pub(super) fn new(durability: Durability, revision: Revision) -> Self {
        let synced = Arc::new(AtomicU64::new(revision));
        Self { durability, ceiling: durability.ceiling(revision), unsynced_since: None, synced }
    }

    /// The store was opened again, at a revision.
    pub(super) fn reopened(&mut self, revision: Revision) {
        self.committed(revision, Some(self.durability.ceiling(revision)));
    }

    /// The newest revision that is synced, for others to read.
    pub(super) fn synced(&self) -> Arc<AtomicU64> {
        self.synced.clone()
    }

    pub(super) fn are_deferred(&self) -> bool {
        self.durability != Durability::Synced
    }

    /// When the next synced commit is due, if one will be.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.durability {
            Durability::Synced => None,
            Durability::Deferred { interval } => self.unsynced_since.map(|since| since + interval),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// The ceiling to store when the commit that goes up to a revision must be synced.
    pub(super) fn ceiling_of(&self, revision: Revision) -> Option<Revision> {
        let must = !self.are_deferred() || self.is_due() || revision >= self.ceiling;
        must.then(|| self.durability.ceiling(revision))
    }

    /// A commit up to a revision was made; `ceiling` is the one that it stored when it was synced.
    pub(super) fn committed(&mut self, revision: Revision, ceiling: Option<Revision>) {
        match ceiling {
            Some(ceiling) => {
                (self.ceiling, self.unsynced_since) = (ceiling, None);
                self.synced.store(revision, Ordering::Release);
            }
            None => self.unsynced_since = self.unsynced_since.or_else(|| Some(Instant::now())),
        }
    }

    /// A commit failed: what is not synced is tried again after a while.
    pub(super) fn failed(&mut self) {
        self.unsynced_since = self.unsynced_since.map(|_| Instant::now());
    }

    /// From now on every commit is synced, and the next one says that nothing is unsynced.
    pub(super) fn end(&mut self) {
        self.durability = Durability::Synced;
    }
}

/// Goes on at the ceiling when the store was not closed, and stores the next one. Returns the newest revision.
pub(super) fn resume(
    transaction: &WriteTransaction,
    meta: &mut Table<'_, &'static str, u64>,
    durability: Durability,
) -> Result<Revision, StoreError> {
    const OPERATION: &str = "go on after a crash";
    let (found, ceiling) = (read_meta(meta, META_REVISION)?, read_meta(meta, META_CEILING)?);
    let revision = found.max(ceiling);
    if revision > found {
        tracing::warn!(
            found,
            revision,
            "the store was not closed: its last writes may be lost, and clients list anew"
        );
        meta.insert(META_REVISION, revision).during(OPERATION)?;
        for part in [LASTING, BRIEF] {
            let mut log = transaction.open_table(part.log).during(OPERATION)?;
            log.retain(|_, _| false).during(OPERATION)?;
            meta.insert(part.compacted, revision).during(OPERATION)?;
        }
    }
    meta.insert(META_CEILING, durability.ceiling(revision)).during(OPERATION)?;
    Ok(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_synced_when_it_is_due_and_before_the_ceiling() {
        let hour = Duration::from_secs(3_600);
        let never = Durability::Deferred { interval: hour };
        let mut syncs = Syncs::new(never, 10);
        assert_eq!((syncs.due(), syncs.ceiling_of(11)), (None, None));
        syncs.committed(11, None);
        let due = syncs.due();
        syncs.committed(12, None);
        assert!(due.is_some() && due == syncs.due(), "the oldest one counts");
        assert_eq!(syncs.ceiling_of(10 + STRIDE - 1), None);
        let ceiling = syncs.ceiling_of(10 + STRIDE);
        assert_eq!(ceiling, Some(10 + 2 * STRIDE));
        assert_eq!(syncs.synced().load(Ordering::Acquire), 10);
        syncs.committed(10 + STRIDE, ceiling);
        assert_eq!(syncs.synced().load(Ordering::Acquire), 10 + STRIDE);
        assert_eq!((syncs.due(), syncs.ceiling_of(10 + STRIDE)), (None, None));
        let mut at_once = Syncs::new(Durability::Deferred { interval: Duration::ZERO }, 10);
        at_once.committed(11, None);
        assert_eq!(at_once.ceiling_of(11), Some(11 + STRIDE));
        let due = at_once.due();
        at_once.failed();
        assert!(at_once.due() >= due && at_once.due().is_some(), "it is tried again");
        at_once.end();
        assert_eq!(at_once.ceiling_of(12), Some(0));
        assert_eq!(Syncs::new(Durability::Synced, 10).ceiling_of(11), Some(0));
    }
}
