//! Filter plugins: whether a pod can run on a node. One row each.

use k8s_openapi::api::core::v1::{PodSpec, Taint};

use crate::{
    node::{NodeState, tolerates},
    pod::PodInfo,
    request::PODS,
    selector,
};

/// A row of the table: a plugin of upstream's name and what it objects to.
#[derive(Clone, Copy)]
pub struct Filter {
    /// Upstream's name.
    pub name: &'static str,
    /// The objections of the node to the pod, in upstream's words; none means that it fits.
    pub objections: fn(&PodInfo, &PodSpec, &NodeState) -> Vec<String>,
}

/// All filters in order. The first that objects decides what is reported for a node.
pub const FILTERS: &[Filter] = &[
    Filter { name: "NodeUnschedulable", objections: node_unschedulable },
    Filter { name: "NodeName", objections: node_name },
    Filter { name: "TaintToleration", objections: taint_toleration },
    Filter { name: "NodeReady", objections: node_ready },
    Filter { name: "NodeAffinity", objections: node_affinity },
    Filter { name: "NodePorts", objections: node_ports },
    Filter { name: "NodeResourcesFit", objections: node_resources_fit },
];

fn object(when: bool, objection: &str) -> Vec<String> {
    if when { vec![objection.to_owned()] } else { Vec::new() }
}

fn tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

fn node_unschedulable(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> Vec<String> {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    object(node.facts.unschedulable && !tolerated(spec, &cordon), "node(s) were unschedulable")
}

fn node_name(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> Vec<String> {
    let wanted = spec.node_name.as_deref().filter(|name| !name.is_empty());
    let other = wanted.is_some_and(|name| name != node.facts.name);
    object(other, "node(s) didn't match the requested node name")
}

fn taint_toleration(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> Vec<String> {
    let repels = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let taint = node.facts.taints.iter().filter(repels).find(|taint| !tolerated(spec, taint));
    taint
        .map(|taint| {
            let value = taint.value.as_deref().unwrap_or_default();
            format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)
        })
        .into_iter()
        .collect()
}

/// A node that has just registered is not Ready for an instant before it carries the taint that says so.
fn node_ready(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> Vec<String> {
    let not_ready =
        Taint { key: "node.kubernetes.io/not-ready".into(), effect: "NoSchedule".into(), ..Taint::default() };
    let objects = !node.facts.ready && !tolerated(spec, &not_ready);
    object(objects, "node(s) had untolerated taint {node.kubernetes.io/not-ready: }")
}

fn node_affinity(_: &PodInfo, spec: &PodSpec, node: &NodeState) -> Vec<String> {
    let labels = &node.facts.labels;
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let wanted = required.is_none_or(|required| {
        let mut terms = required.node_selector_terms.iter();
        terms.any(|term| selector::term_matches(term, &node.facts.name, labels))
    });
    object(!(selected && wanted), "node(s) didn't match Pod's node affinity/selector")
}

fn node_ports(info: &PodInfo, _: &PodSpec, node: &NodeState) -> Vec<String> {
    let mut taken = node.pods.values().flat_map(|other| &other.ports);
    let taken = taken.any(|taken| info.ports.iter().any(|port| port.conflicts(taken)));
    object(taken, "node(s) didn't have free ports for the requested pod ports")
}

fn node_resources_fit(info: &PodInfo, _: &PodSpec, node: &NodeState) -> Vec<String> {
    let mut objections = object(node.pods_free() < 1, "Too many pods");
    for (name, wanted) in info.request.iter().filter(|(name, wanted)| *wanted > 0 && *name != PODS) {
        let free = node.facts.allocatable.get(name).saturating_sub(node.requested.get(name));
        if wanted > free {
            objections.push(format!("Insufficient {name}"));
        }
    }
    objections
}
