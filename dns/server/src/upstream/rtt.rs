//! How long a server takes to answer, and hence when a question without an answer is asked again (RFC 6298, as far as it
//! is about one server and not about congestion).

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Before anything is known; unbound's value is 376 ms.
const INITIAL: Duration = Duration::from_millis(400);
/// A server that is usually quick may have to ask others now and then. TCP waits as long (Linux, `TCP_RTO_MIN` and some).
const MIN: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(1);

/// What is known of the time; nothing while the smoothed time is 0.
#[derive(Default)]
pub(super) struct Rtt {
    smoothed_us: AtomicU32,
    variation_us: AtomicU32,
}

impl Rtt {
    /// How long to wait for an answer before asking again.
    pub(super) fn patience(&self) -> Duration {
        match self.smoothed_us.load(Relaxed) {
            0 => INITIAL,
            smoothed => {
                let us = u64::from(smoothed) + 4 * u64::from(self.variation_us.load(Relaxed));
                Duration::from_micros(us).clamp(MIN, MAX)
            }
        }
    }

    /// An answer to a question that was asked once took so long (Karn: of others it is not known which one it answers).
    pub(super) fn learn(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX / 2).clamp(1, u32::MAX / 2);
        let (smoothed, variation) = match self.smoothed_us.load(Relaxed) {
            0 => (took, took / 2),
            smoothed => {
                let variation = self.variation_us.load(Relaxed);
                (smoothed - smoothed / 8 + took / 8, variation - variation / 4 + smoothed.abs_diff(took) / 4)
            }
        };
        self.smoothed_us.store(smoothed.max(1), Relaxed);
        self.variation_us.store(variation, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_answers_take_within_bounds() {
        let rtt = Rtt::default();
        assert_eq!(rtt.patience(), INITIAL);
        (0..50).for_each(|_| rtt.learn(Duration::from_micros(300)));
        assert_eq!(rtt.patience(), MIN, "of a quick server");
        (0..50).for_each(|_| rtt.learn(Duration::from_millis(400)));
        assert!((Duration::from_millis(400)..Duration::from_millis(600)).contains(&rtt.patience()));
        (0..50).for_each(|_| rtt.learn(Duration::from_secs(10_000)));
        assert_eq!(rtt.patience(), MAX);
    }
}
