//! Tracing to standard error.

mod queue;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts tracing with the filter the user gave, or `default`. A filter that does not parse is said, not fatal. What is
/// given back waits, when it is dropped, until everything is written.
pub(crate) fn start(filter: Option<&str>, default: &str) -> queue::Flush {
    let (filter, complaint) = match filter.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(problem)) => (EnvFilter::new(default), Some(problem)),
        None => (EnvFilter::new(default), None),
    };
    let queue = queue::Queue::new(std::io::stderr());
    let flush = queue.flush_at_end();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        .init();
    if let Some(problem) = complaint {
        tracing::warn!(%problem, "--log-level is not a level or filter; using \"{default}\"");
    }
    flush
}
