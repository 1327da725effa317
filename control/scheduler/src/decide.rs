//! The decision: filter, score, choose. Pure.

use std::{collections::BTreeMap, fmt};

use crate::{cluster::Cluster, filter::FILTERS, interpod, node::NodeState, pod::PodInfo, score};

/// Where a pod goes, or why nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To this node.
    Bind(String),
    /// Nowhere for now.
    Unschedulable(Diagnosis),
}

/// Why no node can take a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    nodes: usize,
    objections: BTreeMap<String, usize>,
}

impl fmt::Display for Diagnosis {
    /// Upstream's sentence: `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut parts: Vec<String> =
            self.objections.iter().map(|(objection, nodes)| format!("{nodes} {objection}")).collect();
        parts.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, parts.join(", "))
    }
}

/// Decides about one pod. Among equals the node with the fewest pods wins, then the first by name.
pub fn decide(info: &PodInfo, cluster: &Cluster) -> Decision {
    let none = k8s_openapi::api::core::v1::PodSpec::default();
    let spec = info.spec().unwrap_or(&none);
    let mut diagnosis = Diagnosis::default();
    let mut feasible: Vec<&NodeState> = Vec::new();
    let sociable = interpod::matters(spec, cluster);
    for node in cluster.nodes() {
        diagnosis.nodes += 1;
        let objections = FILTERS.iter().map(|filter| (filter.objections)(info, spec, node));
        let found = objections.into_iter().find(|objections| !objections.is_empty());
        let others = || sociable.then(|| interpod::objection(info, spec, node, cluster)).flatten();
        match found.or_else(|| others().map(|one| vec![one.to_owned()])) {
            None => feasible.push(node),
            Some(objections) => {
                for objection in objections {
                    *diagnosis.objections.entry(objection).or_default() += 1;
                }
            }
        }
    }
    let totals = score::totals(info, spec, &feasible);
    let best = feasible.iter().zip(totals).max_by(|(a, score_a), (b, score_b)| {
        let fewer_pods = b.pods.len().cmp(&a.pods.len());
        score_a.cmp(score_b).then(fewer_pods).then_with(|| b.facts.name.cmp(&a.facts.name))
    });
    match best {
        Some((node, _)) => Decision::Bind(node.facts.name.clone()),
        None => Decision::Unschedulable(diagnosis),
    }
}

#[cfg(test)]
mod tests;
