//! How much space the file system has, so that the store stops before the disk does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::statvfs;

use crate::StoreError;

/// The file system of the store.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    reserved_bytes: u64,
    /// What the last refused write needed to be free; 0 when none was refused since one was let through.
    wanted_bytes: AtomicU64,
}

/// A write is copied into `current` and, with what it replaces, into `log`; pages are half full at worst.
const AMPLIFICATION: u64 = 6;

impl Space {
    pub(super) fn new(dir: PathBuf, reserved_bytes: u64) -> Self {
        Self { dir, reserved_bytes, wanted_bytes: AtomicU64::new(0) }
    }

    /// Refuses when values of so many bytes would leave less than is reserved.
    pub(super) fn admit(&self, value_bytes: u64) -> Result<(), StoreError> {
        let needed = self.reserved_bytes.saturating_add(value_bytes.saturating_mul(AMPLIFICATION));
        let outcome = self.require(needed);
        if value_bytes > 0 {
            self.wanted_bytes.store(if outcome.is_err() { needed } else { 0 }, Ordering::Relaxed);
        }
        outcome
    }

    /// Whether a write like the last one would be let through.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.require(self.wanted_bytes.load(Ordering::Relaxed).max(self.reserved_bytes))
    }

    fn require(&self, needed: u64) -> Result<(), StoreError> {
        // Without an answer the write itself tells.
        let Ok(found) = statvfs(&self.dir) else { return Ok(()) };
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        if self.reserved_bytes > 0 && free < needed { Err(self.full(free)) } else { Ok(()) }
    }

    /// What to say when a write found no space.
    pub(super) fn exhausted(&self) -> StoreError {
        self.full(0)
    }

    fn full(&self, free: u64) -> StoreError {
        StoreError::Full {
            reason: format!(
                "the file system of {} has {} MiB left, of which {} MiB are kept for deletions; free some space, and \
                 writes go on by themselves",
                self.dir.display(),
                free >> 20,
                self.reserved_bytes >> 20
            ),
        }
    }
}
