//! What is to be done next in a pod: a pure function of its containers' records.

use tokio::time::Instant;

use super::record::{Record, Role, State};

/// When an ended container is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// From the API's word; `Always` when it is absent.
    pub(crate) fn parse(word: Option<&str>) -> Self {
        match word {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The next thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Start this container.
    Start(usize),
    /// Nothing now; look again at the time, or when something happens.
    Wait(Option<Instant>),
    /// All containers ended for good; sidecars are to be stopped.
    Finished { succeeded: bool },
}

/// What one container asks for.
enum Need {
    Start,
    Later(Option<Instant>),
    Done(bool),
}

/// Decides. Init containers run one after the other, sidecars keep running, then all others run side by side.
pub(crate) fn next(policy: RestartPolicy, records: &[Record], now: Instant) -> Step {
    let apps = || records.iter().enumerate().filter(|(_, record)| record.role == Role::App);
    let init_done = apps().any(|(_, record)| record.next_attempt > 0);
    let mut succeeded = true;
    let all_done = apps().all(|(_, record)| match need(policy, record, now) {
        Need::Done(ok) => {
            succeeded &= ok;
            true
        }
        _ => false,
    });
    if all_done {
        return Step::Finished { succeeded };
    }
    let mut wake: Option<Instant> = None;
    for (index, record) in records.iter().enumerate() {
        if record.role == Role::Init && init_done {
            continue;
        }
        match need(policy_of(record.role, policy), record, now) {
            Need::Start => return Step::Start(index),
            Need::Later(at) => {
                wake = [wake, at].into_iter().flatten().min();
                let holds_others = match record.role {
                    Role::App => false,
                    Role::Init => true,
                    Role::Sidecar => !init_done && !record.started(),
                };
                if holds_others {
                    return Step::Wait(wake);
                }
            }
            Need::Done(false) if record.role == Role::Init => return Step::Finished { succeeded: false },
            Need::Done(_) => {}
        }
    }
    Step::Wait(wake)
}

fn policy_of(role: Role, policy: RestartPolicy) -> RestartPolicy {
    match (role, policy) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

fn need(policy: RestartPolicy, record: &Record, now: Instant) -> Need {
    let due = record.not_before.is_none_or(|at| at <= now);
    match &record.state {
        State::Running { .. } => Need::Later(None),
        State::Exited(end) if !policy.restarts(end.exit_code) => Need::Done(end.exit_code == 0),
        State::Waiting { .. } | State::Exited(_) if due => Need::Start,
        State::Waiting { .. } | State::Exited(_) => Need::Later(record.not_before),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::pods::record::{self, Termination};

    fn records() -> Vec<Record> {
        let pod = json!({ "spec": {
            "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }, { "name": "b" }] } });
        record::of_pod(&serde_json::from_value(pod).unwrap())
    }

    fn run(record: &mut Record) {
        record.next_attempt += 1;
        record.state = State::Running { id: "x".into(), started_at: Timestamp::UNIX_EPOCH };
    }

    fn end(record: &mut Record, exit_code: i32, now: Instant) {
        let termination = Termination {
            id: "x".into(),
            exit_code,
            reason: String::new(),
            message: String::new(),
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
        };
        record.exited(termination, now);
    }

    #[test]
    fn init_containers_run_in_order_then_the_others_together() {
        let now = Instant::now();
        let mut all = records();
        let policy = RestartPolicy::Always;
        assert_eq!(next(policy, &all, now), Step::Start(0));
        run(&mut all[0]);
        assert_eq!(next(policy, &all, now), Step::Wait(None));
        end(&mut all[0], 0, now);
        assert_eq!(next(policy, &all, now), Step::Start(1));
        run(&mut all[1]);
        assert_eq!(next(policy, &all, now), Step::Start(2));
        run(&mut all[2]);
        assert_eq!(next(policy, &all, now), Step::Start(3));
        run(&mut all[3]);
        assert_eq!(next(policy, &all, now), Step::Wait(None));
    }

    #[test]
    fn a_failed_init_container_is_repeated_or_fails_the_pod() {
        let now = Instant::now();
        let mut all = records();
        run(&mut all[0]);
        end(&mut all[0], 1, now);
        assert_eq!(next(RestartPolicy::Always, &all, now), Step::Start(0));
        assert_eq!(next(RestartPolicy::Never, &all, now), Step::Finished { succeeded: false });
    }

    #[test]
    fn the_second_restart_waits() {
        let now = Instant::now();
        let mut all = vec![records().remove(2)];
        for _ in 0..2 {
            run(&mut all[0]);
            end(&mut all[0], 0, now);
        }
        let due = now + Duration::from_secs(10);
        assert_eq!(next(RestartPolicy::Always, &all, now), Step::Wait(Some(due)));
        assert_eq!(next(RestartPolicy::Always, &all, due), Step::Start(0));
    }

    #[test]
    fn a_pod_ends_when_no_container_is_restarted() {
        let now = Instant::now();
        let mut all = records().split_off(2);
        for record in &mut all {
            run(record);
            end(record, 0, now);
        }
        assert_eq!(next(RestartPolicy::OnFailure, &all, now), Step::Finished { succeeded: true });
        end(&mut all[1], 3, now);
        assert_eq!(next(RestartPolicy::Never, &all, now), Step::Finished { succeeded: false });
    }
}
