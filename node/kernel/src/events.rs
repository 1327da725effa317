//! Event records from the ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use fairlead_abi::names;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{KernelError, bpf::programs::Programs};

/// Reads event records. There is one reader per node.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
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
        Ok(Self { ring: ring.map_err(|error| failed(error.into()))? })
    }

    /// Waits for records and gives the bytes of each to `each`, oldest first; returns how many there were. Cancel
    /// safe.
    ///
    /// # Errors
    /// The ring buffer cannot be polled.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<usize> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let mut count = 0;
            let ring = ready.get_inner_mut();
            while let Some(record) = ring.next() {
                each(&record);
                count += 1;
            }
            ready.clear_ready();
            if count > 0 {
                return Ok(count);
            }
        }
    }
}
