//! All nodes with their pods, as watched and as assumed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{
    node::{NodeFacts, NodeState},
    pod::PodInfo,
};

/// What an observed pod means to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNews {
    /// Waits for a node.
    Pending,
    /// Is, or is assumed to be, on a node.
    Placed,
    /// Has left its node: its resources are free.
    Released,
    /// Does not matter.
    Irrelevant,
}

/// Nodes by name and where every pod is.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    /// Node by pod UID; the node may not be known (yet).
    places: HashMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    node: String,
    info: PodInfo,
    /// Decided here and not yet seen in the API.
    assumed: bool,
}

impl Cluster {
    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values()
    }

    /// Whether any pod keeps others away.
    pub fn repels(&self) -> bool {
        self.places.values().any(|place| place.info.repels())
    }

    /// Takes in a node; says whether anything changed that could matter to a pod.
    pub fn put_node(&mut self, node: &Node) -> bool {
        let facts = NodeFacts::new(node);
        if let Some(state) = self.nodes.get_mut(&facts.name) {
            let changed = state.facts != facts;
            state.facts = facts;
            return changed;
        }
        let name = facts.name.clone();
        let mut state = NodeState::new(facts);
        for place in self.places.values().filter(|place| place.node == name) {
            state.add(place.info.clone());
        }
        self.nodes.insert(name, state);
        true
    }

    /// Forgets a node.
    pub fn delete_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Names of all nodes, to compare with a new listing.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Takes in a pod.
    pub fn put_pod(&mut self, pod: &Arc<Pod>) -> PodNews {
        let info = PodInfo::new(Arc::clone(pod));
        if info.finished() {
            return self.delete_pod(info.uid());
        }
        let Some(node) = info.node().map(str::to_owned) else {
            let placed = self.places.get(info.uid()).is_some_and(|place| place.assumed);
            return match (placed, pod.metadata.deletion_timestamp.is_some()) {
                (true, _) => PodNews::Placed,
                (false, true) => PodNews::Irrelevant,
                (false, false) => PodNews::Pending,
            };
        };
        self.place(&node, info, false);
        PodNews::Placed
    }

    /// Forgets a pod.
    pub fn delete_pod(&mut self, uid: &str) -> PodNews {
        let Some(place) = self.places.remove(uid) else { return PodNews::Irrelevant };
        if let Some(node) = self.nodes.get_mut(&place.node) {
            node.remove(uid);
        }
        PodNews::Released
    }

    /// Counts a pod on a node before the API says so.
    pub fn assume(&mut self, info: PodInfo, node: &str) {
        self.place(node, info, true);
    }

    /// Takes an assumption back, unless the API has confirmed it.
    pub fn forget(&mut self, uid: &str) {
        if self.places.get(uid).is_some_and(|place| place.assumed) {
            self.delete_pod(uid);
        }
    }

    /// UIDs of all pods that are somewhere, to compare with a new listing.
    pub fn pod_uids(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn place(&mut self, node: &str, info: PodInfo, assumed: bool) {
        let uid = info.uid().to_owned();
        let info = info.settled();
        if self.places.get(&uid).is_some_and(|place| place.node != node) {
            self.delete_pod(&uid);
        }
        if let Some(state) = self.nodes.get_mut(node) {
            state.add(info.clone());
        }
        self.places.insert(uid, Place { node: node.to_owned(), info, assumed });
    }
}
