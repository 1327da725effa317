//! The programs' rare diagnostics, as log records of this process.

use std::io;

use aya_log::EbpfLogger;
use futures::future::BoxFuture;
use tokio::io::{Interest, unix::AsyncFd};

use crate::bpf::programs::Programs;

/// Reads the diagnostics.
pub struct ProgramLogs(Box<dyn FnOnce() -> Forwarding + Send + Sync>);

type Forwarding = BoxFuture<'static, io::Result<()>>;

impl ProgramLogs {
    /// None when the programs have nothing to say.
    pub(crate) fn new(programs: &mut Programs) -> Option<Self> {
        match EbpfLogger::init(programs.ebpf_mut()) {
            Ok(logger) => Some(Self(Box::new(move || Box::pin(forward(logger))))),
            Err(error) => {
                tracing::debug!(%error, "the programs log nothing");
                None
            }
        }
    }

    /// Forwards to the `log` crate until it is dropped.
    ///
    /// # Errors
    /// The ring buffer cannot be polled.
    pub async fn run(self) -> io::Result<()> {
        (self.0)().await
    }
}

#[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays open")]
async fn forward<L: log::Log>(logger: EbpfLogger<L>) -> io::Result<()> {
    // SAFETY: the logger owns its ring buffer's descriptor, never replaces it, and lives as long as the `AsyncFd` that
    // owns it.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
    loop {
        let mut ready = logger.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
