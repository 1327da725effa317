//! SIGTERM and SIGINT as a flag. The first process of a pid namespace gets no signal that it has no handler for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGINT, SIGTERM};

/// How often a waiting thread looks at the flag.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the process was asked to stop.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// Installs the handlers.
pub(crate) fn requested() -> Stop {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).expect("both signals may be handled");
    }
    Stop(flag)
}

impl Stop {
    /// Has it been asked for?
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until it is asked for.
    pub(crate) fn wait(&self) {
        self.wait_until(None);
    }

    /// Waits until it is asked for or the time has come.
    pub(crate) fn wait_until(&self, end: Option<Instant>) {
        while !self.is_set() && end.is_none_or(|end| Instant::now() < end) {
            thread::sleep(LOOK);
        }
    }
}
