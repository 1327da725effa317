//! Waiting for something that has no event to wait for.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long [`eventually`] waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries until `probe` returns a value; for what has no event to wait for.
///
/// # Panics
/// It does not within ten seconds.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// The same for what takes longer.
///
/// # Panics
/// It does not within that time.
pub fn eventually_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(begin.elapsed() < patience, "{what} did not happen within {patience:?}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
