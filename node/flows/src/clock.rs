//! The kernel's monotonic time as time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// The distance between `CLOCK_MONOTONIC`, which events carry, and the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    offset_ns: u64,
}

impl Clock {
    /// From both clocks read at the same moment.
    pub const fn new(monotonic_ns: u64, unix_ns: u64) -> Self {
        Self { offset_ns: unix_ns.saturating_sub(monotonic_ns) }
    }

    /// From the monotonic clock read just now.
    pub fn now(monotonic_ns: u64) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(monotonic_ns, u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn to_unix_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add(self.offset_ns)
    }
}
