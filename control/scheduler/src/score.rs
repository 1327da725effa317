//! Score plugins: how well a pod goes on a node that can take it. One row each.

use k8s_openapi::api::core::v1::PodSpec;

use crate::{
    node::{NodeState, tolerates},
    pod::PodInfo,
    request::{CPU, MEMORY},
    selector,
};

/// The best score of one plugin.
pub const SCORE_MAX: i64 = 100;

/// How the raw scores of the nodes become 0..=[`SCORE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalise {
    /// They are already.
    No,
    /// In proportion to the highest; more is better.
    Proportional,
    /// In proportion to the highest; less is better.
    Reversed,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Score {
    /// Upstream's name.
    pub name: &'static str,
    /// Weight in the sum (upstream's default plugins).
    pub weight: i64,
    /// How to compare.
    pub normalise: Normalise,
    /// The raw score of a node.
    pub score: fn(&PodInfo, &PodSpec, &NodeState) -> i64,
}

/// All scores.
pub const SCORES: &[Score] = &[
    Score { name: "TaintToleration", weight: 3, normalise: Normalise::Reversed, score: taints },
    Score { name: "NodeAffinity", weight: 2, normalise: Normalise::Proportional, score: affinity },
    Score { name: "PodTopologySpread", weight: 2, normalise: Normalise::Reversed, score: siblings },
    Score { name: "NodeResourcesFit", weight: 1, normalise: Normalise::No, score: least_allocated },
    Score { name: "NodeResourcesBalancedAllocation", weight: 1, normalise: Normalise::No, score: balance },
];

/// The weighted sum per node, in the order of `nodes`.
pub fn totals(info: &PodInfo, spec: &PodSpec, nodes: &[&NodeState]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for row in SCORES {
        let raw: Vec<i64> = nodes.iter().map(|node| (row.score)(info, spec, node)).collect();
        let highest = raw.iter().copied().max().unwrap_or(0);
        for (total, raw) in totals.iter_mut().zip(raw) {
            let share = if highest > 0 { raw * SCORE_MAX / highest } else { 0 };
            *total += row.weight
                * match row.normalise {
                    Normalise::No => raw,
                    Normalise::Proportional => share,
                    Normalise::Reversed => SCORE_MAX - share,
                };
        }
    }
    totals
}

/// Taints that only advise against the node and are not tolerated.
fn taints(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> i64 {
    let advice = node.facts.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let untolerated = advice
        .filter(|taint| !spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint)));
    i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
}

/// Weights of the preferred node affinity terms that match.
fn affinity(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> i64 {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let preferred = affinity
        .into_iter()
        .flat_map(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    let matching = preferred
        .filter(|term| selector::term_matches(&term.preference, &node.facts.name, &node.facts.labels));
    matching.map(|term| i64::from(term.weight)).sum()
}

/// Pods of the same workload that are on the node already.
fn siblings(info: &PodInfo, _: &PodSpec, node: &NodeState) -> i64 {
    let siblings = node.pods.values().filter(|other| other.uid() != info.uid() && info.is_sibling(other));
    i64::try_from(siblings.count()).unwrap_or(i64::MAX)
}

/// Share of a resource that is taken once the pod is there, in hundredths; `None` when the node has none of it.
fn taken(info: &PodInfo, node: &NodeState, resource: &str) -> Option<i64> {
    let capacity = node.facts.allocatable.get(resource);
    let wanted = node.weight.get(resource).saturating_add(info.weight.get(resource));
    (capacity > 0).then(|| (wanted.saturating_mul(SCORE_MAX) / capacity).clamp(0, SCORE_MAX))
}

fn least_allocated(info: &PodInfo, _: &PodSpec, node: &NodeState) -> i64 {
    let taken: Vec<i64> = [CPU, MEMORY].iter().filter_map(|resource| taken(info, node, resource)).collect();
    let free: i64 = taken.iter().map(|taken| SCORE_MAX - taken).sum();
    free / i64::try_from(taken.len().max(1)).unwrap_or(1)
}

/// How evenly processor and memory are used; half their difference counts against the node.
fn balance(info: &PodInfo, _: &PodSpec, node: &NodeState) -> i64 {
    match (taken(info, node, CPU), taken(info, node, MEMORY)) {
        (Some(cpu), Some(memory)) => SCORE_MAX - (cpu - memory).abs() / 2,
        _ => SCORE_MAX,
    }
}
