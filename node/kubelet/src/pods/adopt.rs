//! Taking over what ran before this kubelet did.
//!
//! Three witnesses are heard: containerd knows which containers are there and which tasks run, labels say how the others
//! ended, and the status in the API remembers restarts and readiness.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};
use tokio::time::Instant;

use super::{
    labels::Found,
    record::{Record, State, Termination},
    worker::{Signal, Worker},
};
use crate::{Error, containerd::TaskState};

impl Worker {
    /// Takes over containers from before the kubelet's start.
    pub(super) async fn adopt(&mut self, mut found: Vec<Found>) {
        let known = self.pod.status.clone().unwrap_or_default();
        let statuses: Vec<_> =
            known.container_statuses.into_iter().chain(known.init_container_statuses).flatten().collect();
        for record in &mut self.records {
            if let Some(status) = statuses.iter().find(|status| status.name == record.container.name) {
                seed(record, status);
            }
        }
        found.sort_by_key(|container| container.attempt);
        for container in found {
            let Some(index) = self.records.iter().position(|record| record.container.name == container.name)
            else {
                continue;
            };
            if let Err(error) = self.adopt_container(index, container).await {
                tracing::warn!(%error, pod = self.identity.name, "container not taken over");
            }
        }
        // What the API believes to run and containerd does not know went away with the machine.
        for index in 0..self.records.len() {
            if let Some(id) = self.records[index].running_id().filter(|id| !self.probes.contains_key(*id)) {
                let id = id.to_owned();
                self.exited(index, id, None).await;
            }
        }
    }

    async fn adopt_container(&mut self, index: usize, found: Found) -> Result<(), Error> {
        let task = self.shared.containerd.task_state(&found.id).await?;
        let ready = self.records[index].probed_ready;
        let record = &mut self.records[index];
        if found.attempt + 1 < record.next_attempt {
            return self.shared.containerd.delete_container(&found.id).await;
        }
        record.next_attempt = found.attempt + 1;
        record.image = Some(found.image.clone());
        let started_at = match &record.state {
            State::Running { id, started_at } if *id == found.id => Some(*started_at),
            _ => found.created_at,
        };
        match (task, found.end.clone()) {
            (Some(TaskState::Running), _) => {
                let started_at = started_at.unwrap_or_else(Timestamp::now);
                record.state = State::Running { id: found.id.clone(), started_at };
                self.ensure_sandbox().await;
                self.watch_container(index, &found.id, found.process);
                // Its probe has not spoken yet; what was last told holds until then.
                self.records[index].probed_ready = ready;
            }
            (_, Some(end)) => record.exited(end, Instant::now()),
            // Created but not started, or lost with the machine.
            (task, None) => {
                record.state = State::Running { id: found.id.clone(), started_at: Timestamp::now() };
                let exit = match task {
                    Some(TaskState::Stopped(exit)) => Some(exit),
                    _ => None,
                };
                self.handle(Signal::Exited { id: found.id, exit }).await;
            }
        }
        Ok(())
    }
}

/// What the API remembers of a container: restarts, its last end, its readiness.
fn seed(record: &mut Record, status: &ContainerStatus) {
    record.image_id.clone_from(&status.image_id);
    record.probed_ready = status.ready;
    record.startup_passed = status.started.unwrap_or(false);
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let id = status.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://"));
    if let Some(id) = id {
        record.next_attempt = restarts + 1;
        let state = status.state.as_ref();
        if let Some(end) = state.and_then(|state| state.terminated.as_ref()).or_else(|| {
            // A container that was waiting for its restart.
            status.last_state.as_ref().and_then(|state| state.terminated.as_ref())
        }) {
            record.state = State::Exited(termination(id, end));
        }
        if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            let started_at = running.started_at.as_ref().map_or_else(Timestamp::now, |time| time.0);
            record.state = State::Running { id: id.to_owned(), started_at };
        }
    }
}

fn termination(id: &str, end: &ContainerStateTerminated) -> Termination {
    Termination {
        id: id.to_owned(),
        exit_code: end.exit_code,
        reason: end.reason.clone().unwrap_or_default(),
        message: end.message.clone().unwrap_or_default(),
        started_at: end.started_at.as_ref().map(|time| time.0),
        finished_at: end.finished_at.as_ref().map_or_else(Timestamp::now, |time| time.0),
    }
}
