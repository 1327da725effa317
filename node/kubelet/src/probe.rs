//! Probes and lifecycle hooks: what is asked of a container, and when its answers count.
//!
//! A probe runs at once when its initial delay is zero. Until the container first answers well, startup and readiness
//! probes are repeated quickly within their period; those early failures count for nothing, the one at the end of each
//! period does. So a container is ready as soon as it is, and no threshold is reached earlier than upstream.

mod check;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Probe;
use tokio::time::Instant;

pub(crate) use self::check::{Action, Prober};

/// First and longest pause between quick repetitions.
const QUICK_FIRST: Duration = Duration::from_millis(10);
const QUICK_MAX: Duration = Duration::from_millis(200);

/// What a probe is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    /// As in `Readiness probe failed`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What a probe's answers amount to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The success threshold is reached.
    Healthy,
    /// A counted failure below the threshold, for an Event.
    Failed(String),
    /// The failure threshold is reached.
    Unhealthy(String),
}

/// Counts answers against thresholds.
#[derive(Debug)]
struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    successes: u32,
    failures: u32,
    healthy: Option<bool>,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        Self {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            successes: 0,
            failures: 0,
            healthy: None,
        }
    }

    /// Counts an answer; tells what is news.
    fn count(&mut self, answer: Result<(), String>) -> Option<Outcome> {
        match answer {
            Ok(()) => {
                self.failures = 0;
                self.successes += 1;
                let news = self.successes >= self.success_threshold && self.healthy != Some(true);
                if news {
                    self.healthy = Some(true);
                }
                news.then_some(Outcome::Healthy)
            }
            Err(message) => {
                self.successes = 0;
                self.failures += 1;
                if self.failures < self.failure_threshold {
                    return Some(Outcome::Failed(message));
                }
                self.healthy = Some(false);
                Some(Outcome::Unhealthy(message))
            }
        }
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

/// Probes until the future is dropped, reporting each outcome. A startup probe ends with its first success.
pub(crate) async fn run<F: Future<Output = ()>>(
    kind: ProbeKind,
    probe: Probe,
    prober: Arc<Prober>,
    report: impl Fn(Outcome) -> F,
) {
    let action = Action::of_probe(&probe);
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let mut counter = Counter::new(&probe);
    let mut quick = kind != ProbeKind::Liveness;
    let mut pause = QUICK_FIRST;
    let mut period_end = Instant::now() + period;
    loop {
        let answer = prober.check(&action, timeout).await;
        let now = Instant::now();
        if quick && answer.is_err() && now + pause < period_end {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(QUICK_MAX);
            continue;
        }
        let succeeded = answer.is_ok();
        if let Some(outcome) = counter.count(answer) {
            report(outcome).await;
        }
        if kind == ProbeKind::Startup && counter.healthy == Some(true) {
            return;
        }
        quick &= !succeeded;
        pause = QUICK_MAX;
        tokio::time::sleep_until(period_end).await;
        period_end = Instant::now() + period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_decide_what_is_news() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(2), ..Probe::default() };
        let mut counter = Counter::new(&probe);
        let bad = || Err("no".to_owned());
        assert_eq!(counter.count(Ok(())), None);
        assert_eq!(counter.count(Ok(())), Some(Outcome::Healthy));
        assert_eq!(counter.count(Ok(())), None);
        assert_eq!(counter.count(bad()), Some(Outcome::Failed("no".into())));
        assert_eq!(counter.count(bad()), Some(Outcome::Unhealthy("no".into())));
        assert_eq!(counter.count(Ok(())), None);
        assert_eq!(counter.count(Ok(())), Some(Outcome::Healthy));
    }
}
