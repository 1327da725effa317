//! Deployments: one replica set per pod template, and the way from the old ones to the new one.

mod conditions;
mod replica_sets;
mod rollout;
mod status;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use serde_json::json;

use crate::{
    cache::{Caches, Key, Touched},
    driver::Controller,
    meta::{controller, controller_reference, is_controlled_by, is_deleting, selects},
    plan::{Plan, Write},
    pods,
};

/// The controller.
#[derive(Debug, Default)]
pub struct Deployments;

/// A deployment with its replica sets, as one reconciliation sees them.
struct Rollout {
    deployment: Arc<Deployment>,
    /// The one with the deployment's template.
    new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn keys(&self, view: &Caches, touched: &Touched) -> Vec<Key> {
        match touched {
            Touched::Deployment(changed) => vec![Key::of(changed.latest())],
            Touched::ReplicaSet(changed) => changed.sides().flat_map(|set| keys_of_set(view, set)).collect(),
            // Recreate waits for the last old pod to be gone.
            Touched::Pod(changed) if changed.new.is_none() || pods::is_finished(changed.latest()) => {
                keys_of_pod(view, changed.latest())
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &Caches, key: &Key, now: Timestamp) -> Plan {
        let Some(deployment) = view.deployments.get(key) else { return Plan::default() };
        let sets = view.replica_sets.in_namespace(&key.namespace);
        let adoptions = adoptions(&deployment, &sets);
        if !adoptions.is_empty() {
            return Plan { writes: adoptions, again_in: None };
        }
        let uid = deployment.metadata.uid.as_deref();
        let mut old: Vec<_> =
            sets.iter().filter(|set| is_controlled_by(&set.metadata, uid)).cloned().collect();
        old.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
        let new = replica_sets::find_new(&deployment, &old);
        old.retain(|set| new.as_ref().is_none_or(|new| new.metadata.uid != set.metadata.uid));
        let rollout = Rollout { deployment, new, old, now };
        rollout.plan(|| old_pods(view, key, &rollout.old))
    }
}

impl Rollout {
    fn plan(&self, old_pods_left: impl FnOnce() -> bool) -> Plan {
        let mut plan = Plan::default();
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let mut created = None;
        if !is_deleting(&self.deployment.metadata) {
            if spec.paused == Some(true) || self.is_scaling() {
                plan.writes.extend(self.scale_existing());
            } else {
                let steps =
                    if rollout::recreates(&spec) { self.recreate(old_pods_left) } else { self.roll() };
                created = steps.created;
                plan.writes.extend(steps.writes);
            }
            plan.writes.extend(self.clean_up());
        }
        self.report(created.as_deref(), &mut plan);
        plan
    }
}

fn keys_of_set(view: &Caches, set: &ReplicaSet) -> Vec<Key> {
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    if let Some(owner) = controller(&set.metadata) {
        return if owner.kind == "Deployment" { vec![Key::new(namespace, &owner.name)] } else { Vec::new() };
    }
    let deployments = view.deployments.in_namespace(&namespace);
    deployments.iter().filter(|one| wants(one, set)).map(|one| Key::of(one.as_ref())).collect()
}

fn keys_of_pod(view: &Caches, pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(owner) = controller(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else {
        return Vec::new();
    };
    let set = view.replica_sets.get(&Key::new(namespace, &owner.name));
    set.map(|set| keys_of_set(view, &set)).unwrap_or_default()
}

fn wants(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    selector.is_some_and(|selector| selects(selector, set.metadata.labels.as_ref()))
}

/// Takes over replica sets that match and belong to nobody.
fn adoptions(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<Write> {
    if is_deleting(&deployment.metadata) {
        return Vec::new();
    }
    let orphans = sets.iter().filter(|set| {
        controller(&set.metadata).is_none() && !is_deleting(&set.metadata) && wants(deployment, set)
    });
    let adopt = |set: &Arc<ReplicaSet>| {
        let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
        owners.push(controller_reference(deployment));
        Write::patch(set.as_ref(), json!({"metadata": {"ownerReferences": owners}}))
    };
    orphans.map(adopt).collect()
}

/// Whether pods of old replica sets still exist.
fn old_pods(view: &Caches, key: &Key, old: &[Arc<ReplicaSet>]) -> bool {
    view.pods.in_namespace(&key.namespace).iter().any(|pod| {
        let owner = controller(&pod.metadata).map(|owner| owner.uid.as_str());
        let of_old = old.iter().any(|set| owner.is_some() && set.metadata.uid.as_deref() == owner);
        of_old && !pods::is_finished(pod)
    })
}

/// From a whole number of seconds.
fn secs(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
