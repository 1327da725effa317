//! Removes what connections have left, as often as the tables' fill asks for.

use fairlead_abi::names;
use fairlead_kernel::{Collected, Garbage, Timeouts, clock::monotonic_ns};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::AgentError;

/// The last round, and what all rounds have removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) last: Collected,
    pub(crate) conntrack_removed: u64,
    pub(crate) affinity_removed: u64,
    /// Of each of `names::LRU`.
    pub(crate) evicted: [u64; names::LRU.len()],
}

/// The task.
pub(crate) struct GarbageLoop {
    pub(crate) garbage: Garbage,
    pub(crate) timeouts: Timeouts,
    pub(crate) totals: watch::Sender<Totals>,
}

impl GarbageLoop {
    /// Runs until it is told to stop. A round that fails is logged and made up for by the next.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        loop {
            let timeouts = self.timeouts;
            // A full table takes some tens of milliseconds to read.
            let round = tokio::task::spawn_blocking(move || {
                let collected = self.garbage.collect(monotonic_ns(), &timeouts);
                (self, collected)
            });
            let (back, collected) = match round.await {
                Ok(round) => round,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime ends.
                Err(_) => return Ok(()),
            };
            self = back;
            let collected = collected.unwrap_or_else(|error| {
                tracing::warn!(%error, "removing expired connections failed");
                self.totals.borrow().last
            });
            self.totals.send_modify(|totals| {
                totals.conntrack_removed += collected.conntrack.removed;
                totals.affinity_removed += collected.affinity.removed;
                for (evicted, lru) in totals.evicted.iter_mut().zip(&collected.lru) {
                    // While entries come and go, a look may miss some that are gone.
                    *evicted = lru.evicted.max(*evicted);
                }
                totals.last = collected;
            });
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(collected.next_in()) => {}
            }
        }
    }
}
