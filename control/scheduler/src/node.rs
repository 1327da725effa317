//! A node as the scheduler sees it, with the pods on it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use crate::{
    pod::PodInfo,
    request::{PODS, Resources},
};

/// What a node is, without its pods. Equal values mean that nothing changed that could matter to a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// What its pods may ask for together.
    pub allocatable: Resources,
    /// The Ready condition is True.
    pub ready: bool,
}

impl NodeFacts {
    /// From the API object.
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut conditions = conditions.filter(|condition| condition.type_ == "Ready");
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or_default(),
            allocatable: Resources::from_quantities(
                node.status.as_ref().and_then(|status| status.allocatable.as_ref()),
            ),
            ready: conditions.any(|condition| condition.status == "True"),
        }
    }
}

/// A node and what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// What it is.
    pub facts: NodeFacts,
    /// Pods on it by UID, bound or assumed.
    pub pods: BTreeMap<String, PodInfo>,
    /// What they ask for together.
    pub requested: Resources,
    /// What they count as when nodes are compared.
    pub weight: Resources,
}

impl NodeState {
    /// A node without pods.
    pub fn new(facts: NodeFacts) -> Self {
        Self { facts, ..Self::default() }
    }

    /// Puts a pod on the node.
    pub fn add(&mut self, info: PodInfo) {
        self.remove(info.uid());
        self.requested.add(&info.request);
        self.weight.add(&info.weight);
        self.pods.insert(info.uid().to_owned(), info);
    }

    /// Takes a pod off the node; says whether it was there.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(info) = self.pods.remove(uid) else { return false };
        self.requested.subtract(&info.request);
        self.weight.subtract(&info.weight);
        true
    }

    /// The pods on it.
    pub fn pods(&self) -> impl Iterator<Item = &PodInfo> {
        self.pods.values()
    }

    /// Pods that may still come; without a limit in its status a node takes none.
    pub fn pods_free(&self) -> i64 {
        self.facts.allocatable.get(PODS) - i64::try_from(self.pods.len()).unwrap_or(i64::MAX)
    }
}

/// Whether a toleration covers a taint (core/v1 `Toleration.ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = set(&toleration.effect);
    let key = set(&toleration.key);
    let exists = match set(&toleration.operator).as_str() {
        "" | "Equal" => false,
        "Exists" => true,
        _ => return false,
    };
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || set(&toleration.value) == set(&taint.value))
}
