//! The steps of a rollout: how many replicas each set should have next.

use k8s_openapi::{
    api::apps::v1::{DeploymentSpec, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::Resource;
use serde_json::json;

use super::{
    Rollout,
    replica_sets::{self, DESIRED, REVISION, available, number, size, wanted},
};
use crate::{
    meta::is_deleting,
    plan::{Notice, Write},
};

/// Kept old replica sets when the deployment does not say (apps/v1 defaults).
const HISTORY_DEFAULT: i32 = 10;

/// What a step wants.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) writes: Vec<Write>,
    /// Name of the replica set that is created.
    pub(super) created: Option<String>,
}

/// Whether old pods have to be gone before new ones come.
pub(super) fn recreates(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` in pods: the one rounds up, the other down, and they are not both 0.
pub(super) fn limits(spec: &DeploymentSpec) -> (i32, i32) {
    if recreates(spec) {
        return (0, 0);
    }
    let wanted = i64::from(spec.replicas.unwrap_or(1));
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.clone());
    let rolling = rolling.unwrap_or_default();
    let resolve = |value: Option<IntOrString>, round_up: bool| {
        let percent = match value {
            Some(IntOrString::Int(number)) => return i64::from(number),
            Some(IntOrString::String(text)) => text.trim_end_matches('%').parse::<i64>().unwrap_or(25),
            None => 25,
        };
        let exact = wanted.saturating_mul(percent);
        if round_up { (exact + 99) / 100 } else { exact / 100 }
    };
    let surge = resolve(rolling.max_surge, true);
    let unavailable = resolve(rolling.max_unavailable, false).min(wanted);
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    let small = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    (small(surge), small(unavailable))
}

impl Rollout {
    fn spec(&self) -> DeploymentSpec {
        self.deployment.spec.clone().unwrap_or_default()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new).map(AsRef::as_ref)
    }

    /// The deployment was resized since its active sets were last scaled: then existing sets are scaled first.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = wanted(&self.deployment);
        let mut active = self.all().filter(|set| size(set) > 0);
        self.old.iter().any(|set| size(set) > 0)
            && active
                .any(|set| number::<i32>(&set.metadata, DESIRED).is_some_and(|desired| desired != wanted))
    }

    /// Scales without rolling: the only active set gets everything; several get their share.
    pub(super) fn scale_existing(&self) -> Vec<Write> {
        let wanted = wanted(&self.deployment);
        let active: Vec<&ReplicaSet> = self.all().filter(|set| size(set) > 0).collect();
        let (surge, _) = limits(&self.spec());
        if active.len() <= 1 {
            let newest = || self.new.as_deref().or(self.old.last().map(AsRef::as_ref));
            let only = active.first().copied().or_else(newest);
            return only.into_iter().flat_map(|set| self.resize(set, wanted)).collect();
        }
        let total: i32 = active.iter().map(|set| size(set)).sum();
        let allowed = if wanted > 0 { wanted.saturating_add(surge) } else { 0 };
        let mut to_add = allowed - total;
        let mut sizes: Vec<(&ReplicaSet, i32)> = active.iter().map(|set| (*set, size(set))).collect();
        // Largest first when growing, smallest first when shrinking, as upstream; the first one takes the rest.
        sizes.sort_by_key(|(_, size)| if to_add > 0 { -*size } else { *size });
        let change = to_add;
        for (_, size) in &mut sizes {
            let share = i64::from(change) * i64::from(*size) / i64::from(total.max(1));
            let share = i32::try_from(share).unwrap_or(0);
            *size = (*size + share).max(0);
            to_add -= share;
        }
        if let Some((_, size)) = sizes.first_mut() {
            *size = (*size + to_add).max(0);
        }
        sizes.into_iter().flat_map(|(set, size)| self.resize(set, size)).collect()
    }

    /// Recreate: first no old pods, then the new ones.
    pub(super) fn recreate(&self, old_pods_left: impl FnOnce() -> bool) -> Steps {
        let mut steps = Steps::default();
        for set in self.old.iter().filter(|set| size(set) > 0) {
            steps.writes.extend(self.resize(set, 0));
        }
        if steps.writes.is_empty() && !old_pods_left() {
            self.ensure_new(wanted(&self.deployment), &mut steps);
        }
        steps
    }

    /// RollingUpdate: as many new pods as the surge allows, as few old ones as availability allows.
    pub(super) fn roll(&self) -> Steps {
        let wanted = wanted(&self.deployment);
        let (surge, unavailable) = limits(&self.spec());
        let total: i32 = self.all().map(size).sum();
        let current = self.new.as_deref().map_or(0, size);
        let room = (wanted.saturating_add(surge) - total).clamp(0, (wanted - current).max(0));
        let next = if current > wanted { wanted } else { current + room };
        let mut steps = Steps::default();
        self.ensure_new(next, &mut steps);
        // One thing at a time: old sets shrink on what has been seen of the new one.
        if steps.created.is_none() && next == current {
            self.shrink_old(wanted - unavailable, total, &mut steps.writes);
        }
        steps
    }

    fn ensure_new(&self, replicas: i32, steps: &mut Steps) {
        let deployment = &self.deployment;
        let newest = self.old.iter().filter_map(|set| number::<i64>(&set.metadata, REVISION)).max();
        let revision = newest.unwrap_or(0) + 1;
        let (surge, _) = limits(&self.spec());
        let annotations = replica_sets::annotations(deployment, revision, surge);
        let Some(new) = &self.new else {
            let set = replica_sets::build(deployment, replicas, annotations);
            let name = set.metadata.name.clone().unwrap_or_default();
            steps.writes.push(Write::create(&set, None));
            steps.writes.push(self.scaled(&name, 0, replicas));
            steps.writes.extend(self.set_revision(revision));
            steps.created = Some(name);
            return;
        };
        let known = number::<i64>(&new.metadata, REVISION).unwrap_or(0);
        let revision = revision.max(known);
        let mut annotations = annotations;
        annotations.insert(REVISION.into(), revision.to_string());
        let min_ready = self.spec().min_ready_seconds;
        let has = |key: &String, value: &String| {
            new.metadata.annotations.as_ref().and_then(|map| map.get(key)) == Some(value)
        };
        let unchanged = annotations.iter().all(|(key, value)| has(key, value))
            && new.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
                == min_ready.unwrap_or(0);
        if !unchanged || size(new) != replicas {
            let patch = json!({
                "metadata": {"annotations": annotations},
                "spec": {"replicas": replicas, "minReadySeconds": min_ready},
            });
            steps.writes.push(Write::patch(new.as_ref(), patch));
        }
        if size(new) != replicas {
            let name = new.metadata.name.clone().unwrap_or_default();
            steps.writes.push(self.scaled(&name, size(new), replicas));
        }
        steps.writes.extend(self.set_revision(revision));
    }

    /// The deployment carries the revision of its new replica set.
    fn set_revision(&self, revision: i64) -> Option<Write> {
        let known = number::<i64>(&self.deployment.metadata, REVISION);
        let patch = json!({"metadata": {"annotations": {REVISION: revision.to_string()}}});
        (known != Some(revision)).then(|| Write::patch(self.deployment.as_ref(), patch))
    }

    /// Takes pods from old sets: first those that are not available anyway, then the oldest, never below `floor`
    /// available pods.
    fn shrink_old(&self, floor: i32, total: i32, writes: &mut Vec<Write>) {
        let new_unavailable = self.new.as_deref().map_or(0, |new| (size(new) - available(new)).max(0));
        let mut budget = total - floor - new_unavailable;
        let mut sizes: Vec<(&ReplicaSet, i32)> =
            self.old.iter().map(|set| (set.as_ref(), size(set))).filter(|(_, size)| *size > 0).collect();
        if budget <= 0 || sizes.is_empty() {
            return;
        }
        for (set, size) in &mut sizes {
            let step = (*size - available(set)).clamp(0, budget);
            *size -= step;
            budget -= step;
        }
        let mut spare = (self.all().map(available).sum::<i32>() - floor).min(budget);
        for (_, size) in &mut sizes {
            let step = (*size).clamp(0, spare.max(0));
            *size -= step;
            spare -= step;
        }
        writes.extend(sizes.into_iter().flat_map(|(set, size)| self.resize(set, size)));
    }

    /// Gives a set another size and remembers the deployment's; nothing when both are so already.
    fn resize(&self, set: &ReplicaSet, replicas: i32) -> Vec<Write> {
        let (surge, _) = limits(&self.spec());
        let annotations = replica_sets::scale_annotations(&self.deployment, surge);
        let noted = number::<i32>(&set.metadata, DESIRED) == Some(wanted(&self.deployment));
        if size(set) == replicas && noted {
            return Vec::new();
        }
        let annotations: serde_json::Map<_, _> =
            annotations.into_iter().map(|(key, value)| (key, value.into())).collect();
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}});
        let mut writes = vec![Write::patch(set, patch)];
        if size(set) != replicas {
            let name = set.metadata.name.clone().unwrap_or_default();
            writes.push(self.scaled(&name, size(set), replicas));
        }
        writes
    }

    fn scaled(&self, set: &str, from: i32, to: i32) -> Write {
        let direction = if to >= from { "up" } else { "down" };
        Write::Notify(Notice {
            regarding: self.deployment.object_ref(&()),
            related: None,
            warning: false,
            reason: "ScalingReplicaSet",
            note: format!("Scaled {direction} replica set {set} from {from} to {to}"),
        })
    }

    /// Deletes what exceeds the history once a rollout is complete.
    pub(super) fn clean_up(&self) -> Vec<Write> {
        let keep = self.spec().revision_history_limit.unwrap_or(HISTORY_DEFAULT);
        if !self.is_complete() {
            return Vec::new();
        }
        let unused = |set: &&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            size(set) == 0
                && status.replicas == 0
                && status.observed_generation >= set.metadata.generation
                && !is_deleting(&set.metadata)
        };
        let mut unused: Vec<&ReplicaSet> = self.old.iter().map(AsRef::as_ref).filter(unused).collect();
        unused.sort_by_key(|set| number::<i64>(&set.metadata, REVISION));
        let surplus = unused.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
        unused.into_iter().take(surplus).map(|set| Write::delete(set, None)).collect()
    }
}
