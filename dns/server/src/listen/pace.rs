//! When a worker lets questions gather: under load, and when it is ahead of those who ask.
//!
//! A worker that is faster than its clients would be woken for each question, and a wake-up costs more than an answer. So
//! while questions come fast and few at a time, it sleeps a little before it reads again, as network cards hold interrupts
//! back. At the rates of most nodes this never happens, and no answer waits.

use std::time::{Duration, Instant};

/// How long questions may gather; with the kernel's slack of 50 µs (prctl(2), `PR_SET_TIMERSLACK`) at most some 80 µs.
pub(super) const NAP: Duration = Duration::from_micros(30);
/// Batches of so many are large enough.
const THIN: usize = 8;
/// Time over which questions are counted, and how many in it are fast: 64 000 in a second, a third of what a worker can do.
const WINDOW: Duration = Duration::from_millis(1);
const FAST: usize = 64;

/// How fast questions come.
pub(super) struct Pace {
    since: Instant,
    count: usize,
    is_fast: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0, is_fast: false }
    }

    /// Notes a batch; says whether to let some more questions come before the next.
    pub(super) fn note(&mut self, now: Instant, count: usize) -> bool {
        let window = now.saturating_duration_since(self.since);
        if window >= WINDOW {
            // The window may have been longer: who was idle in it was not asked fast.
            self.is_fast = self.count as f64 * WINDOW.as_secs_f64() >= FAST as f64 * window.as_secs_f64();
            (self.since, self.count) = (now, 0);
        }
        self.count += count;
        self.is_fast && count < THIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Naps of a worker that gets batches of a size at a distance.
    fn naps(size: usize, every_us: u64, batches: u32) -> usize {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let times = (0..batches).map(|number| start + Duration::from_micros(every_us) * number);
        times.filter(|now| pace.note(*now, size)).count()
    }

    #[test]
    fn questions_gather_only_when_they_come_fast_and_few_at_a_time() {
        assert_eq!(naps(1, 20, 10_000), 0, "50 000 in a second: each is answered at once");
        assert!(naps(1, 10, 10_000) > 9_000, "100 000 in a second, one at a time");
        assert!(naps(7, 100, 10_000) > 9_000, "70 000, a few at a time");
        assert_eq!(naps(8, 100, 10_000), 0, "80 000, enough at a time");
        assert_eq!(naps(32, 200, 10_000), 0, "whole batches");
    }

    #[test]
    fn a_burst_is_forgotten_with_its_window() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let at = |us| start + Duration::from_micros(us);
        for number in 0..200 {
            pace.note(at(number * 10), 1);
        }
        assert!(pace.note(at(2000), 1));
        assert!(!pace.note(at(9000), 1), "it was idle since");
        assert!(!pace.note(at(9001), 1));
    }
}
