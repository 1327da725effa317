//! Replica sets: as many pods as wanted.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetStatus},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::Resource;
use serde_json::json;

use crate::{
    cache::{Caches, Key, Touched},
    driver::Controller,
    meta::{controller, controller_reference, is_controlled_by, is_deleting, selects},
    plan::{Announce, Plan, Write},
    pods,
};

/// Pods created or deleted in one go (upstream's `BurstReplicas`).
const BURST: usize = 500;

/// Deleting a pod with a lower cost is preferred.
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The controller.
#[derive(Debug, Default)]
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn keys(&self, view: &Caches, touched: &Touched) -> Vec<Key> {
        match touched {
            Touched::ReplicaSet(changed) => vec![Key::of(changed.latest())],
            Touched::Pod(changed) => changed.sides().flat_map(|pod| keys_of_pod(view, pod)).collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &Caches, key: &Key, now: Timestamp) -> Plan {
        let Some(set) = view.replica_sets.get(key) else { return Plan::default() };
        let all = view.pods.in_namespace(&key.namespace);
        let claims = claims(&set, &all);
        if !claims.is_empty() {
            return Plan { writes: claims, again_in: None };
        }
        let uid = set.metadata.uid.as_deref();
        let owned: Vec<&Pod> =
            all.iter().map(AsRef::as_ref).filter(|pod| is_controlled_by(&pod.metadata, uid)).collect();
        let active: Vec<&Pod> = owned.iter().copied().filter(|pod| pods::is_active(pod)).collect();
        let mut plan = Plan::default();
        if !is_deleting(&set.metadata) {
            plan.writes = scale(&set, &active, &all);
        }
        report(&set, &active, &owned, now, &mut plan);
        plan
    }
}

/// The sets a pod concerns: its controller or, if it has none, those that would adopt it.
fn keys_of_pod(view: &Caches, pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(owner) = controller(&pod.metadata) {
        let ours = owner.kind == "ReplicaSet";
        return if ours { vec![Key::new(namespace, &owner.name)] } else { Vec::new() };
    }
    let sets = view.replica_sets.in_namespace(&namespace);
    sets.iter().filter(|set| wants(set, pod)).map(|set| Key::of(set.as_ref())).collect()
}

fn wants(set: &ReplicaSet, pod: &Pod) -> bool {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

/// Adopts pods that match and belong to nobody, releases pods that do not match any more.
fn claims(set: &ReplicaSet, all: &[Arc<Pod>]) -> Vec<Write> {
    if is_deleting(&set.metadata) {
        return Vec::new();
    }
    let uid = set.metadata.uid.as_deref();
    let mut writes = Vec::new();
    for pod in all.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
        let ours = is_controlled_by(&pod.metadata, uid);
        match (ours, wants(set, pod)) {
            (true, false) => owners.retain(|owner| Some(owner.uid.as_str()) != uid),
            (false, true) if controller(&pod.metadata).is_none() && !pods::is_finished(pod) => {
                owners.push(controller_reference(set));
            }
            _ => continue,
        }
        writes.push(Write::patch(pod.as_ref(), json!({"metadata": {"ownerReferences": owners}})));
    }
    writes
}

/// Creates what is missing or deletes what is too much.
fn scale(set: &ReplicaSet, active: &[&Pod], all: &[Arc<Pod>]) -> Vec<Write> {
    let spec = set.spec.clone().unwrap_or_default();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let announce = |done, failed, what| Announce { regarding: set.object_ref(&()), done, failed, what };
    if active.len() < wanted {
        let pod = pod_of(set, spec.template.unwrap_or_default());
        let announce = announce("SuccessfulCreate", "FailedCreate", "Created pod");
        let missing = (wanted - active.len()).min(BURST);
        return vec![Write::create(&pod, Some(announce)); missing];
    }
    let surplus = (active.len() - wanted).min(BURST);
    let announce = announce("SuccessfulDelete", "FailedDelete", "Deleted pod");
    let victims = by_expendability(set, active, all).into_iter().take(surplus);
    victims.map(|pod| Write::delete(pod, Some(announce.clone()))).collect()
}

/// A pod of a template, owned by the set.
fn pod_of(set: &ReplicaSet, template: PodTemplateSpec) -> Pod {
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The order in which pods go, as upstream's `ActivePodsWithRanks`: without a node; pending; not ready; cheap to
/// delete; on a node with more pods of the same deployment; ready for less long; restarted more; younger.
fn by_expendability<'a>(set: &ReplicaSet, active: &[&'a Pod], all: &[Arc<Pod>]) -> Vec<&'a Pod> {
    let per_node = related_per_node(set, all);
    let rank = |pod: &Pod| {
        let phase = match pods::phase(pod) {
            "Pending" => 0,
            "Running" => 2,
            _ => 1,
        };
        let annotations = pod.metadata.annotations.as_ref();
        let cost = annotations.and_then(|map| map.get(DELETION_COST)?.parse::<i32>().ok()).unwrap_or(0);
        let doubled = pods::node(pod).and_then(|node| per_node.get(node)).copied().unwrap_or(0);
        let first = (pods::node(pod).is_some(), phase, pods::is_ready(pod), cost, Reverse(doubled));
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let ready = Reverse(pods::ready_since(pod));
        (first, ready, Reverse(pods::restarts(pod)), Reverse(created))
    };
    let mut ordered = active.to_vec();
    ordered.sort_by_cached_key(|pod| rank(pod));
    ordered
}

/// Active pods per node of all sets with the same controller.
fn related_per_node(set: &ReplicaSet, all: &[Arc<Pod>]) -> HashMap<String, usize> {
    let uid = set.metadata.uid.as_deref();
    let mut count = HashMap::new();
    let own = all.iter().filter(|pod| is_controlled_by(&pod.metadata, uid) && pods::is_active(pod));
    for node in own.filter_map(|pod| pods::node(pod)) {
        *count.entry(node.to_owned()).or_default() += 1;
    }
    count
}

/// Brings the status up to date, and comes back when a pod will have been ready for long enough.
fn report(set: &ReplicaSet, active: &[&Pod], owned: &[&Pod], now: Timestamp, plan: &mut Plan) {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|template| template.metadata?.labels).unwrap_or_default();
    let labelled = |pod: &&&Pod| crate::meta::holds(&labels, pod.metadata.labels.as_ref());
    let mut available = 0;
    for pod in active {
        match pods::is_available(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            Ok(()) => available += 1,
            Err(Some(from)) => {
                plan.again(Duration::try_from(from.duration_since(now)).unwrap_or_default());
            }
            Err(None) => {}
        }
    }
    let terminating = owned.iter().filter(|pod| is_deleting(&pod.metadata) && !pods::is_finished(pod));
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(labelled).count())),
        ready_replicas: Some(count(active.iter().filter(|pod| pods::is_ready(pod)).count())),
        available_replicas: Some(available),
        terminating_replicas: Some(count(terminating.count())),
        observed_generation: set.metadata.generation,
        conditions: old.conditions.clone(),
    };
    if !same(&status, &old) {
        plan.writes.push(Write::patch_status(set, &status));
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// An unset number is a zero.
fn same(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let numbers = |status: &ReplicaSetStatus| {
        let optional = [
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.terminating_replicas,
        ];
        (status.replicas, optional.map(Option::unwrap_or_default), status.observed_generation)
    };
    numbers(a) == numbers(b)
}

#[cfg(test)]
mod tests;
