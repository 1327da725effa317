//! What the kubelet knows of each container of a pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

/// Delay before the second restart; doubled for each further one (as upstream's `MaxContainerBackOff` 300 s).
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts over without delay.
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// The container's part in its pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that goes on beside the others.
    Sidecar,
    /// What the pod is for.
    App,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Termination {
    pub(crate) id: String,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
}

/// Where the container is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Not started: never, or starting failed.
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        id: String,
        started_at: Timestamp,
    },
    Exited(Termination),
}

/// One container.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) container: Container,
    pub(crate) role: Role,
    pub(crate) state: State,
    /// The attempt before the current one.
    pub(crate) last: Option<Termination>,
    /// Number of the next attempt to be made.
    pub(crate) next_attempt: u32,
    /// Not to be started again before.
    pub(crate) not_before: Option<Instant>,
    /// Whether it passed its readiness probe, when it has one.
    pub(crate) probed_ready: bool,
    /// Whether it passed its startup probe, when it has one.
    pub(crate) startup_passed: bool,
    /// Being stopped.
    pub(crate) stopping: bool,
    pub(crate) image: Option<String>,
    pub(crate) image_id: String,
    pub(crate) stop_signal: Option<String>,
    pub(crate) backoff: Backoff,
}

impl Record {
    fn new(container: &Container, role: Role) -> Self {
        Self {
            container: container.clone(),
            role,
            state: State::Waiting { reason: "ContainerCreating", message: String::new() },
            last: None,
            next_attempt: 0,
            not_before: None,
            probed_ready: false,
            startup_passed: false,
            stopping: false,
            image: None,
            image_id: String::new(),
            stop_signal: None,
            backoff: Backoff::default(),
        }
    }

    /// The running attempt.
    pub(crate) fn running_id(&self) -> Option<&str> {
        match &self.state {
            State::Running { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Running, and past its startup probe.
    pub(crate) fn started(&self) -> bool {
        self.running_id().is_some() && (self.container.startup_probe.is_none() || self.startup_passed)
    }

    /// Started, past its readiness probe, and not being stopped.
    pub(crate) fn ready(&self) -> bool {
        self.started() && !self.stopping && (self.container.readiness_probe.is_none() || self.probed_ready)
    }

    /// How often it was restarted.
    pub(crate) fn restarts(&self) -> u32 {
        self.next_attempt.saturating_sub(1)
    }

    /// Records the end of an attempt and decides when the next may start.
    pub(crate) fn exited(&mut self, termination: Termination, now: Instant) {
        let ran = termination
            .started_at
            .and_then(|start| Duration::try_from(termination.finished_at.duration_since(start)).ok());
        let delay = self.backoff.after_run(ran.unwrap_or_default());
        self.not_before = (!delay.is_zero()).then(|| now + delay);
        self.state = State::Exited(termination);
        self.probed_ready = false;
        self.startup_passed = false;
        self.stopping = false;
    }

    /// Records that a new attempt could not be started; it is tried again later.
    pub(crate) fn start_failed(&mut self, reason: &'static str, message: String, now: Instant) {
        self.not_before = Some(now + self.backoff.after_run(Duration::ZERO).max(BACKOFF_FIRST));
        if let State::Exited(termination) = &self.state {
            self.last = Some(termination.clone());
        }
        self.state = State::Waiting { reason, message };
    }
}

/// Delays between restarts.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The delay after a run of this length.
    fn after_run(&mut self, ran: Duration) -> Duration {
        if ran >= BACKOFF_RESET {
            self.next = Duration::ZERO;
        }
        let delay = self.next;
        self.next = (delay * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
        delay
    }
}

/// The records of a new pod, init containers first.
pub(crate) fn of_pod(pod: &Pod) -> Vec<Record> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Record::new(container, if sidecar { Role::Sidecar } else { Role::Init })
    });
    init.chain(spec.containers.iter().map(|container| Record::new(container, Role::App))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_delayed_longer_and_longer_until_a_run_lasts() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..8).map(|_| backoff.after_run(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after_run(BACKOFF_RESET).as_secs(), 0);
        assert_eq!(backoff.after_run(Duration::ZERO).as_secs(), 10);
    }
}
