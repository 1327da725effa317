//! Event records from the ring buffer.

use std::{io, time::Duration};

use aya::maps::{MapData, RingBuf};
use fairlead_abi::names;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{KernelError, bpf::programs::Programs};

/// How often the ring is looked at. The programs wake the reader only when much is waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Reads event records. There is one reader per node.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    looks: Interval,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays open")]
    pub(crate) fn new(programs: &mut Programs) -> Result<Self, KernelError> {
        let ring = programs.map(names::EVENTS)?;
        // SAFETY: the ring buffer owns its map's descriptor, never replaces it, and lives as long as the `AsyncFd`
        // that owns it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let failed = KernelError::file("polling ring buffer", names::EVENTS.name);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { ring: ring.map_err(|error| failed(error.into()))?, looks })
    }

    /// Waits for records and gives the bytes of each to `each`, oldest first; returns how many there were. Cancel
    /// safe.
    ///
    /// # Errors
    /// The ring buffer cannot be polled.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<usize> {
        loop {
            tokio::select! {
                ready = self.ring.readable_mut() => ready?.clear_ready(),
                _ = self.looks.tick() => {}
            }
            let mut count = 0;
            let ring = self.ring.get_mut();
            while let Some(record) = ring.next() {
                each(&record);
                count += 1;
            }
            if count > 0 {
                return Ok(count);
            }
        }
    }
}
