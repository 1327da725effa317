//! Ending early. What is measured looks here from time to time and ends with an error, so that all that it made is removed; a
//! signal must not reach the processes that it started, or they would be gone before that: they are in groups of their own.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

static STOP: AtomicBool = AtomicBool::new(false);

/// Ends what is measured where it next looks.
pub fn stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// Looks.
///
/// # Errors
/// [`stop`] was called.
pub(crate) fn check() -> Result<()> {
    ensure!(!STOP.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
