//! Stopping a container: preStop hook, its stop signal, the grace period, SIGKILL.

use std::time::Duration;

use nix::sys::signal::Signal as UnixSignal;
use tokio::time::Instant;

use super::worker::Worker;
use crate::probe::Action;

impl Worker {
    /// Begins to stop a running container; its end is told by the task that watches it. A second call can only
    /// shorten the grace period.
    pub(super) fn stop(&mut self, index: usize, grace: Duration, why: &str) {
        let record = &mut self.records[index];
        let Some(id) = record.running_id().map(ToOwned::to_owned) else { return };
        let already = std::mem::replace(&mut record.stopping, true);
        let name = record.container.name.clone();
        let lifecycle = record.container.lifecycle.as_ref();
        let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()).map(Action::of_hook);
        let signal = stop_signal(record.stop_signal.as_deref());
        let deadline = Instant::now() + grace;
        let containerd = self.shared.containerd.clone();
        let prober = self.probers.get(&id).cloned();
        if !already {
            self.event(Some(index), false, "Killing", format!("Stopping container {name}: {why}"));
        }
        self.tasks.spawn(async move {
            if !already && !grace.is_zero() {
                if let (Some(hook), Some(prober)) = (hook, prober) {
                    let run = tokio::time::timeout_at(deadline, prober.check(&hook, grace)).await;
                    if !matches!(run, Ok(Ok(()))) {
                        tracing::warn!(container = name, ?run, "preStop hook failed");
                    }
                }
                if let Err(error) = containerd.kill(&id, signal, false).await {
                    tracing::warn!(%error, "stop signal not sent");
                }
            }
            tokio::time::sleep_until(deadline).await;
            if let Err(error) = containerd.kill(&id, UnixSignal::SIGKILL, true).await {
                tracing::warn!(%error, "container not killed");
            }
        });
    }
}

/// The image's stop signal, by name (`SIGQUIT`, `QUIT`) or number; SIGTERM without one.
fn stop_signal(text: Option<&str>) -> UnixSignal {
    let Some(text) = text else { return UnixSignal::SIGTERM };
    let by_number = text.parse::<i32>().ok().and_then(|number| UnixSignal::try_from(number).ok());
    let by_name = || text.parse().or_else(|_| format!("SIG{text}").parse()).ok();
    by_number.or_else(by_name).unwrap_or(UnixSignal::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_come_in_three_notations() {
        for (text, signal) in [
            (None, UnixSignal::SIGTERM),
            (Some("SIGQUIT"), UnixSignal::SIGQUIT),
            (Some("INT"), UnixSignal::SIGINT),
            (Some("3"), UnixSignal::SIGQUIT),
            (Some("nonsense"), UnixSignal::SIGTERM),
        ] {
            assert_eq!(stop_signal(text), signal, "{text:?}");
        }
    }
}
