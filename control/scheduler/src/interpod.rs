//! Required affinity and anti-affinity between pods, over topology domains.
//!
//! A term is about the nodes that have the same value for its topology key as the node in question; a node without
//! that label is in no domain. Preferred terms do not count here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec};
use kube::core::{Selector, SelectorExt};

use crate::{cluster::Cluster, node::NodeState, pod::PodInfo};

/// Upstream's words.
const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

fn affinity(spec: &PodSpec) -> &[PodAffinityTerm] {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref());
    required.unwrap_or_default()
}

fn anti_affinity(spec: &PodSpec) -> &[PodAffinityTerm] {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref());
    required.unwrap_or_default()
}

/// Whether a term of `owner`'s is about `other`: by namespace and by labels.
fn concerns(term: &PodAffinityTerm, owner: &PodInfo, other: &PodInfo) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    // Namespaces are not watched here: a selector of them can only be understood when it selects all.
    let everywhere = term.namespace_selector.as_ref().is_some_and(|selector| {
        Selector::try_from(selector.clone()).is_ok_and(|selector| selector.selects_all())
    });
    let own = named.is_empty() && term.namespace_selector.is_none() && owner.namespace() == other.namespace();
    let namespace = everywhere || own || named.iter().any(|name| name == other.namespace());
    let none = BTreeMap::new();
    let selector = term.label_selector.clone().and_then(|selector| Selector::try_from(selector).ok());
    namespace && selector.is_some_and(|selector| selector.matches(other.labels().unwrap_or(&none)))
}

/// Whether both nodes are in one domain of the key.
fn together(key: &str, a: &NodeState, b: &NodeState) -> bool {
    let value = |node: &NodeState| node.facts.labels.get(key).cloned();
    value(a).is_some() && value(a) == value(b)
}

/// The objection to a pod on a node because of other pods.
pub fn objection(
    info: &PodInfo,
    spec: &PodSpec,
    node: &NodeState,
    cluster: &Cluster,
) -> Option<&'static str> {
    let others = || {
        let pods = |state| NodeState::pods(state).map(move |other| (state, other));
        cluster.nodes().flat_map(pods).filter(|(_, other)| other.uid() != info.uid())
    };
    for term in affinity(spec) {
        let mut near = others().filter(|(state, _)| together(&term.topology_key, node, state));
        let near = near.any(|(_, other)| concerns(term, info, other));
        // The first pod of a group that wants to be together may go anywhere that has the label.
        let first = concerns(term, info, info)
            && node.facts.labels.contains_key(&term.topology_key)
            && !others().any(|(_, other)| concerns(term, info, other));
        if !near && !first {
            return Some(AFFINITY);
        }
    }
    for term in anti_affinity(spec) {
        let mut near = others().filter(|(state, _)| together(&term.topology_key, node, state));
        if near.any(|(_, other)| concerns(term, info, other)) {
            return Some(ANTI_AFFINITY);
        }
    }
    let repelled = others().any(|(state, other)| {
        let terms = other.spec().map(anti_affinity).unwrap_or_default();
        terms.iter().any(|term| together(&term.topology_key, node, state) && concerns(term, other, info))
    });
    repelled.then_some(EXISTING)
}

/// Whether a pod has any term, or could be repelled by one: the common case is that nobody has.
pub fn matters(spec: &PodSpec, cluster: &Cluster) -> bool {
    !affinity(spec).is_empty() || !anti_affinity(spec).is_empty() || cluster.repels()
}
