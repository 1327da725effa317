//! The status of a deployment, which `kubectl rollout status` reads.

use k8s_openapi::{
    api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSet},
    jiff::SignedDuration,
};

use super::{
    Rollout, conditions,
    replica_sets::{available, size, wanted},
    rollout::limits,
    secs,
};
use crate::plan::{Plan, Write};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

fn replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

fn number(value: Option<i32>) -> i32 {
    value.unwrap_or(0)
}

impl Rollout {
    fn old_status(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    /// Whether the last status says that everything is new and available.
    pub(super) fn is_complete(&self) -> bool {
        self.completes(&self.old_status())
    }

    fn completes(&self, status: &DeploymentStatus) -> bool {
        let wanted = wanted(&self.deployment);
        number(status.updated_replicas) == wanted
            && number(status.replicas) == wanted
            && number(status.available_replicas) == wanted
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// Brings the status up to date; `created` is the replica set that this plan creates.
    pub(super) fn report(&self, created: Option<&str>, plan: &mut Plan) {
        let old = self.old_status();
        let mut status = self.counts(&old);
        let mut conditions = old.conditions.clone().unwrap_or_default();
        self.set_available(&status, &mut conditions);
        self.set_progressing(&old, &status, created, &mut conditions, plan);
        status.conditions = Some(conditions);
        if !same(&status, &old) {
            // Not the resource version: the plan may just have changed the deployment's annotations.
            plan.writes.push(Write::patch_status(self.deployment.as_ref(), &status));
        }
    }

    fn counts(&self, old: &DeploymentStatus) -> DeploymentStatus {
        let sum = |of: fn(&ReplicaSet) -> i32| self.all().map(of).sum::<i32>();
        let available = sum(available);
        let terminating = |set: &ReplicaSet| {
            set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
        };
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: Some(sum(replicas)),
            updated_replicas: Some(self.new.as_deref().map_or(0, replicas)),
            ready_replicas: Some(sum(ready)),
            available_replicas: Some(available),
            unavailable_replicas: Some((sum(size) - available).max(0)),
            terminating_replicas: Some(sum(terminating)),
            collision_count: old.collision_count,
            conditions: None,
        }
    }

    fn set_available(&self, status: &DeploymentStatus, conditions: &mut Vec<DeploymentCondition>) {
        let (_, unavailable) = limits(&self.deployment.spec.clone().unwrap_or_default());
        let enough = number(status.available_replicas) >= wanted(&self.deployment) - unavailable;
        let (reason, message) = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        conditions::set(conditions, (AVAILABLE, enough, reason), message.into(), self.now, false);
    }

    fn set_progressing(
        &self,
        old: &DeploymentStatus,
        status: &DeploymentStatus,
        created: Option<&str>,
        conditions: &mut Vec<DeploymentCondition>,
        plan: &mut Plan,
    ) {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        if spec.paused == Some(true) {
            let paused = "Deployment is paused".to_owned();
            conditions::set(conditions, (PROGRESSING, true, "DeploymentPaused"), paused, self.now, false);
            return;
        }
        let current = conditions.iter().find(|condition| condition.type_ == PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|current| current.reason.as_deref()).unwrap_or_default();
        let unknown = self.deployment.metadata.name.clone().unwrap_or_default();
        let set = self.new.as_deref().and_then(|new| new.metadata.name.clone()).unwrap_or(unknown);
        let mut put = |status: bool, reason: &str, message: String, refresh: bool| {
            conditions::set(conditions, (PROGRESSING, status, reason), message, self.now, refresh);
        };
        if let Some(created) = created {
            put(true, "NewReplicaSetCreated", format!("Created new replica set \"{created}\""), true);
        } else if self.completes(status) {
            put(true, DONE, format!("ReplicaSet \"{set}\" has successfully progressed."), false);
        } else if progresses(old, status) {
            put(true, "ReplicaSetUpdated", format!("ReplicaSet \"{set}\" is progressing."), true);
        } else if current.is_none() {
            put(true, "FoundNewReplicaSet", format!("Found new replica set \"{set}\""), true);
        } else if reason != DONE && reason != TIMED_OUT {
            let deadline = secs(spec.progress_deadline_seconds.unwrap_or(600));
            let since = current.as_ref().and_then(|current| current.last_update_time.as_ref());
            let passed = since.map_or(SignedDuration::ZERO, |since| self.now.duration_since(since.0));
            let passed = std::time::Duration::try_from(passed).unwrap_or_default();
            match deadline.checked_sub(passed) {
                Some(left) if !left.is_zero() => plan.again(left),
                _ => put(false, TIMED_OUT, format!("ReplicaSet \"{set}\" has timed out progressing."), false),
            }
        }
    }
}

/// Whether anything moves in the right direction.
fn progresses(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

/// An unset number is a zero.
fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let numbers = |status: &DeploymentStatus| {
        [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.unavailable_replicas,
            status.terminating_replicas,
        ]
        .map(number)
    };
    numbers(a) == numbers(b) && a.observed_generation == b.observed_generation && a.conditions == b.conditions
}
