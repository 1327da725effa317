//! A pod's status: a pure function of what the kubelet knows of it.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    pods::record::{Record, Role, State, Termination},
    spec::resources::qos_class,
};

/// What the status is made of.
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) records: &'a [Record],
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) host_ips: &'a [IpAddr],
    /// The status of before: keeps transition times and the conditions of others.
    pub(crate) before: &'a PodStatus,
    /// The pod's network and volumes are in place.
    pub(crate) sandbox_ready: bool,
    pub(crate) terminating: bool,
    /// Set when no container will run again.
    pub(crate) succeeded: Option<bool>,
    pub(crate) now: Timestamp,
}

/// Conditions that are the kubelet's.
pub(crate) const OWN_CONDITIONS: [&str; 4] =
    ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

impl View<'_> {
    /// The whole status.
    pub(crate) fn status(&self) -> PodStatus {
        let phase = self.phase();
        let of = |init: bool| {
            let records = self.records.iter().filter(|record| (record.role != Role::App) == init);
            records.map(|record| self.container(record)).collect::<Vec<_>>()
        };
        let init = of(true);
        let addresses = || self.addresses.iter().map(ToString::to_string);
        let host_ips = || self.host_ips.iter().map(ToString::to_string);
        PodStatus {
            phase: Some(phase.to_owned()),
            conditions: Some(self.conditions(phase)),
            container_statuses: Some(of(false)),
            init_container_statuses: (!init.is_empty()).then_some(init),
            host_ip: host_ips().next(),
            host_ips: Some(host_ips().map(|ip| HostIP { ip }).collect()),
            pod_ip: addresses().next(),
            pod_ips: (!self.addresses.is_empty()).then(|| addresses().map(|ip| PodIP { ip }).collect()),
            start_time: self.before.start_time.clone().or(Some(Time(self.now))),
            qos_class: Some(qos_class(self.pod).to_owned()),
            observed_generation: self.pod.metadata.generation,
            ..self.before.clone()
        }
    }

    fn phase(&self) -> &'static str {
        match self.succeeded {
            Some(true) => return "Succeeded",
            Some(false) => return "Failed",
            None => {}
        }
        let mut apps = self.records.iter().filter(|record| record.role == Role::App);
        if apps.all(|record| record.next_attempt > 0) { "Running" } else { "Pending" }
    }

    fn conditions(&self, phase: &str) -> Vec<PodCondition> {
        let ended = self.succeeded.is_some();
        let initialized = self.initialized();
        let unready = self.unready();
        let ready = if ended {
            Err(("PodCompleted", String::new()))
        } else if unready.is_empty() {
            Ok(())
        } else {
            Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
        };
        let gates = match (&ready, self.unmet_gates()) {
            (Ok(()), gates) if !gates.is_empty() => {
                Err(("ReadinessGatesNotReady", format!("unmet readiness gates: [{}]", gates.join(" "))))
            }
            _ => ready.clone(),
        };
        let sandbox = if self.sandbox_ready && !ended { Ok(()) } else { Err(("", String::new())) };
        let initialized = match (initialized, phase) {
            (true, _) | (_, "Succeeded") => Ok(()),
            _ => Err(("ContainersNotInitialized", "init containers have not completed".to_owned())),
        };
        let own = OWN_CONDITIONS.into_iter().zip([sandbox, initialized, ready, gates]);
        let mut conditions: Vec<_> = own.map(|(kind, state)| self.condition(kind, state)).collect();
        let others = self.before.conditions.iter().flatten();
        conditions
            .extend(others.filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str())).cloned());
        conditions
    }

    fn condition(&self, kind: &str, state: Result<(), (&str, String)>) -> PodCondition {
        let status = if state.is_ok() { "True" } else { "False" };
        let old = self.before.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let (reason, message) = state.err().unwrap_or_default();
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: (!message.is_empty()).then_some(message),
            last_transition_time: since.or(Some(Time(self.now))),
            observed_generation: self.pod.metadata.generation,
            ..PodCondition::default()
        }
    }

    fn initialized(&self) -> bool {
        let apps_made = self.records.iter().any(|record| record.role == Role::App && record.next_attempt > 0);
        apps_made
            || self.records.iter().all(|record| match record.role {
                Role::App => true,
                Role::Sidecar => record.started(),
                Role::Init => matches!(&record.state, State::Exited(end) if end.exit_code == 0),
            })
    }

    fn unready(&self) -> Vec<&str> {
        let records = self.records.iter().filter(|record| record.role != Role::Init);
        let unready = records.filter(|record| self.terminating || !record.ready());
        unready.map(|record| record.container.name.as_str()).collect()
    }

    fn unmet_gates(&self) -> Vec<&str> {
        let gates = self.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let met = |kind: &str| {
            let mut conditions = self.before.conditions.iter().flatten();
            conditions.any(|condition| condition.type_ == kind && condition.status == "True")
        };
        gates.map(|gate| gate.condition_type.as_str()).filter(|kind| !met(kind)).collect()
    }

    fn container(&self, record: &Record) -> ContainerStatus {
        let backing_off = record.not_before.is_some() && self.succeeded.is_none() && !self.terminating;
        let (state, last) = match &record.state {
            State::Waiting { reason, message } => (waiting(reason, message), record.last.as_ref()),
            State::Running { started_at, .. } => {
                let running = ContainerStateRunning { started_at: Some(Time(*started_at)) };
                (ContainerState { running: Some(running), ..ContainerState::default() }, record.last.as_ref())
            }
            State::Exited(end) if backing_off && self.will_restart(record, end) => {
                let message = format!("back-off restarting failed container={}", record.container.name);
                (waiting("CrashLoopBackOff", &message), Some(end))
            }
            State::Exited(end) => (terminated(end), record.last.as_ref()),
        };
        let id = match &record.state {
            State::Running { id, .. } => Some(id),
            State::Exited(end) => Some(&end.id),
            State::Waiting { .. } => record.last.as_ref().map(|end| &end.id),
        };
        let completed =
            record.role == Role::Init && matches!(&record.state, State::Exited(end) if end.exit_code == 0);
        ContainerStatus {
            name: record.container.name.clone(),
            image: record.image.clone().or_else(|| record.container.image.clone()).unwrap_or_default(),
            image_id: record.image_id.clone(),
            container_id: id.map(|id| format!("containerd://{id}")),
            ready: completed || record.ready() && !self.terminating,
            started: Some(record.started()),
            restart_count: i32::try_from(record.restarts()).unwrap_or(i32::MAX),
            state: Some(state),
            last_state: last.map(terminated),
            ..ContainerStatus::default()
        }
    }

    fn will_restart(&self, record: &Record, end: &Termination) -> bool {
        let policy =
            self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
        match (record.role, policy) {
            (Role::Sidecar, _) | (Role::App, "Always") => true,
            (_, "Never") => false,
            _ => end.exit_code != 0,
        }
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
    };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(end: &Termination) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("containerd://{}", end.id)),
        exit_code: end.exit_code,
        reason: Some(end.reason.clone()),
        message: (!end.message.is_empty()).then(|| end.message.clone()),
        started_at: end.started_at.map(Time),
        finished_at: Some(Time(end.finished_at)),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::record;

    fn pod() -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "generation": 3 }, "spec": {
            "containers": [{ "name": "a", "image": "echo", "readinessProbe": { "tcpSocket": { "port": 1 } } }] } }))
        .unwrap()
    }

    fn status(records: &[Record], before: &PodStatus, terminating: bool, succeeded: Option<bool>) -> Value {
        let pod = pod();
        let view = View {
            pod: &pod,
            records,
            addresses: &["10.0.0.1".parse().unwrap()],
            host_ips: &[],
            before,
            sandbox_ready: true,
            terminating,
            succeeded,
            now: Timestamp::UNIX_EPOCH,
        };
        serde_json::to_value(view.status()).unwrap()
    }

    fn condition(status: &Value, kind: &str) -> Value {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap().clone()
    }

    fn running() -> Vec<Record> {
        let mut records = record::of_pod(&pod());
        records[0].next_attempt = 1;
        records[0].state = State::Running { id: "x".into(), started_at: Timestamp::UNIX_EPOCH };
        records
    }

    #[test]
    fn a_container_that_was_never_made_leaves_the_pod_pending() {
        let out = status(&record::of_pod(&pod()), &PodStatus::default(), false, None);
        assert_eq!(out["phase"], "Pending");
        assert_eq!(out["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
        assert_eq!(out["podIP"], "10.0.0.1");
        assert_eq!(out["observedGeneration"], 3);
    }

    #[test]
    fn readiness_follows_the_probe_and_ends_with_termination() {
        let mut records = running();
        let before = PodStatus::default();
        assert_eq!(condition(&status(&records, &before, false, None), "Ready")["status"], "False");
        records[0].probed_ready = true;
        let out = status(&records, &before, false, None);
        assert_eq!(condition(&out, "Ready")["status"], "True");
        assert_eq!(out["phase"], "Running");
        let out = status(&records, &before, true, None);
        assert_eq!(condition(&out, "Ready")["status"], "False");
        assert_eq!(out["containerStatuses"][0]["ready"], false);
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_does_not_change_and_others_are_left_alone() {
        let before: PodStatus = serde_json::from_value(json!({ "conditions": [
            { "type": "Initialized", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" },
            { "type": "PodScheduled", "status": "True" } ] }))
        .unwrap();
        let out = status(&running(), &before, false, None);
        assert_eq!(condition(&out, "Initialized")["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(condition(&out, "Ready")["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(condition(&out, "PodScheduled")["status"], "True");
    }

    #[test]
    fn a_crashed_container_shows_its_back_off_and_its_last_end() {
        let mut records = running();
        let end = Termination {
            id: "x".into(),
            exit_code: 7,
            reason: "Error".into(),
            message: "boom".into(),
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
        };
        records[0].exited(end.clone(), tokio::time::Instant::now());
        records[0].exited(end, tokio::time::Instant::now());
        let out = status(&records, &PodStatus::default(), false, None);
        let container = &out["containerStatuses"][0];
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
        let out = status(&records, &PodStatus::default(), false, Some(false));
        assert_eq!(out["phase"], "Failed");
        assert_eq!(out["containerStatuses"][0]["state"]["terminated"]["message"], "boom");
    }
}
