//! What `up` says on the terminal. A terminal that is gone is no reason to stop a cluster.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use crate::output::duration;

/// Says how far things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    began: Instant,
}

impl Report {
    /// Time starts now.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.began.elapsed()
    }

    /// A line as it is.
    pub(crate) fn say(self, line: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Something is done that began at `since`.
    pub(crate) fn done(self, what: &str, since: Instant) {
        let took = duration(since.elapsed());
        let mark = console::style("✓").green();
        self.say(&format!("  {mark} {what:<44} {:>8}", console::style(took).dim()));
    }

    /// Something happened that was not asked for.
    pub(crate) fn note(self, what: &str) {
        let now = jiff::Zoned::now().strftime("%H:%M:%S");
        self.say(&format!("{now}  {} {what}", console::style("!").yellow()));
    }
}
