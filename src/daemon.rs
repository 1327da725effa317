//! What every daemon does: a runtime, and an orderly end at SIGINT or SIGTERM.

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Runs a daemon until it ends by itself or is told to.
pub(crate) fn run<F>(main: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    // What lies in a huge page of the allocator is little, and all of the page would be resident.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "cannot do without huge pages");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        let shutdown = shutdown_on_signal()?;
        main(shutdown).await
    })
}

/// Cancelled by SIGINT, SIGTERM or SIGHUP.
pub(crate) fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    // Ends with the runtime; a second signal changes nothing about an orderly stop.
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}

/// The components of the process. All end together: one that fails takes the others with it, and a supervisor starts
/// a whole process again.
pub(crate) struct Parts {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Parts {
    /// None yet.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop, tasks: JoinSet::new() }
    }

    /// Runs a component until `stop`.
    pub(crate) fn spawn<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (running, stop) = (run(self.stop.clone()), self.stop.clone());
        let checked = async move {
            running.await.with_context(|| format!("the {name} failed"))?;
            if !stop.is_cancelled() {
                bail!("the {name} ended by itself");
            }
            Ok(())
        };
        self.tasks.spawn(checked.instrument(tracing::info_span!("part", name)));
    }

    /// Waits for all; the first failure is the one that counts.
    pub(crate) async fn join(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.context("a component panicked").flatten();
            outcome = outcome.and(ended);
            self.stop.cancel();
        }
        outcome
    }
}
