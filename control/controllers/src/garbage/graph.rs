//! Who owns whom, and what follows from it. Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// On an object whose dependents have to go before it.
pub const FOREGROUND: &str = "foregroundDeletion";

/// On an object whose dependents are to stay without it.
pub const ORPHAN: &str = "orphan";

/// An object, as far as ownership goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// UID.
    pub uid: String,
    /// Index of its kind.
    pub kind: usize,
    /// Namespace, unless it is cluster-wide.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    owners: Vec<OwnerReference>,
    deleting: bool,
    finalizers: Vec<String>,
}

impl Item {
    /// From an object's metadata.
    pub fn new(kind: usize, meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        }
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|one| one == FOREGROUND)
    }

    fn orphans_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|one| one == ORPHAN)
    }
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Delete an object, if the absent owners really do not exist.
    Delete {
        /// Which.
        item: Item,
        /// Owners that the graph does not have.
        absent: Vec<OwnerReference>,
        /// Its own dependents go before it.
        foreground: bool,
    },
    /// Remove references to owners.
    RemoveOwners {
        /// From which object.
        item: Item,
        /// UIDs of the owners.
        uids: Vec<String>,
    },
    /// Remove a finalizer: what it waited for is done.
    RemoveFinalizer {
        /// From which object.
        item: Item,
        /// Which.
        finalizer: &'static str,
    },
}

/// All objects by UID.
#[derive(Debug, Default)]
pub struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// Takes in an object; returns the UIDs to evaluate.
    pub fn put(&mut self, item: Item) -> Vec<String> {
        let uid = item.uid.clone();
        if self.items.get(&uid) == Some(&item) {
            return Vec::new();
        }
        // Those that owned it may have waited for just this.
        let former = self.items.get(&uid).into_iter().flat_map(|old| &old.owners);
        let mut dirty: Vec<String> = former.map(|owner| owner.uid.clone()).collect();
        self.unlink(&uid);
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        dirty.extend(item.owners.iter().map(|owner| owner.uid.clone()));
        if item.deleting {
            dirty.extend(self.dependents_of(&uid));
        }
        self.items.insert(uid.clone(), item);
        dirty.push(uid);
        dirty
    }

    /// Forgets an object; returns the UIDs to evaluate.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut dirty = self.dependents_of(uid);
        self.unlink(uid);
        if let Some(item) = self.items.remove(uid) {
            dirty.extend(item.owners.into_iter().map(|owner| owner.uid));
        }
        dirty
    }

    /// UIDs of all objects of a kind.
    pub fn uids_of(&self, kind: usize) -> impl Iterator<Item = String> {
        self.items.values().filter(move |item| item.kind == kind).map(|item| item.uid.clone())
    }

    /// What has to be done about an object.
    pub fn evaluate(&self, uid: &str) -> Vec<Action> {
        let Some(item) = self.items.get(uid) else { return Vec::new() };
        if item.orphans_dependents() {
            return self.orphan(item);
        }
        if item.waits_for_dependents() {
            return self.delete_dependents(item);
        }
        if item.deleting || item.owners.is_empty() {
            return Vec::new();
        }
        self.judge(item)
    }

    /// An object stays while one owner exists that is not itself waiting for it to go.
    fn judge(&self, item: &Item) -> Vec<Action> {
        let owner = |owner: &&OwnerReference| self.items.get(&owner.uid);
        let absent: Vec<OwnerReference> =
            item.owners.iter().filter(|one| owner(one).is_none()).cloned().collect();
        let waiting: Vec<&OwnerReference> =
            item.owners.iter().filter(|one| owner(one).is_some_and(Item::waits_for_dependents)).collect();
        let solid = item.owners.len() - absent.len() - waiting.len();
        if solid == 0 {
            let foreground = !waiting.is_empty() && !self.dependents_of(&item.uid).is_empty();
            return vec![Action::Delete { item: item.clone(), absent, foreground }];
        }
        // Dangling references to owners that wait would keep those waiting for ever.
        let uids: Vec<String> = waiting.into_iter().map(|owner| owner.uid.clone()).collect();
        if uids.is_empty() { Vec::new() } else { vec![Action::RemoveOwners { item: item.clone(), uids }] }
    }

    fn orphan(&self, item: &Item) -> Vec<Action> {
        let dependents = self.dependents_of(&item.uid);
        if dependents.is_empty() {
            return vec![Action::RemoveFinalizer { item: item.clone(), finalizer: ORPHAN }];
        }
        let left = dependents.iter().filter_map(|uid| self.items.get(uid));
        left.map(|dependent| Action::RemoveOwners { item: dependent.clone(), uids: vec![item.uid.clone()] })
            .collect()
    }

    fn delete_dependents(&self, item: &Item) -> Vec<Action> {
        let dependents = self.dependents_of(&item.uid);
        let dependents: Vec<&Item> = dependents.iter().filter_map(|uid| self.items.get(uid)).collect();
        let blocks = |dependent: &&Item| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == item.uid && owner.block_owner_deletion == Some(true))
        };
        let alive = dependents.iter().filter(|dependent| !dependent.deleting);
        let mut actions: Vec<Action> = alive.flat_map(|dependent| self.judge(dependent)).collect();
        if !dependents.iter().any(blocks) {
            actions.push(Action::RemoveFinalizer { item: item.clone(), finalizer: FOREGROUND });
        }
        actions
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    fn unlink(&mut self, uid: &str) {
        let Some(item) = self.items.get(uid) else { return };
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn item(uid: &str, owners: &[&str], change: impl FnOnce(&mut Value)) -> Item {
        let owners: Vec<Value> = owners
            .iter()
            .map(|uid| json!({"apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"uid": uid, "name": uid, "ownerReferences": owners});
        change(&mut meta);
        Item::new(0, &serde_json::from_value(meta).expect("metadata"))
    }

    fn plain(uid: &str, owners: &[&str]) -> Item {
        item(uid, owners, |_| ())
    }

    fn ending(uid: &str, owners: &[&str], finalizer: &str) -> Item {
        item(uid, owners, |meta| {
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            meta["finalizers"] = json!([finalizer]);
        })
    }

    fn graph(items: impl IntoIterator<Item = Item>) -> Graph {
        let mut graph = Graph::default();
        for item in items {
            graph.put(item);
        }
        graph
    }

    fn deletes(actions: &[Action]) -> Vec<(&str, bool)> {
        let delete = |action: &'_ Action| match action {
            Action::Delete { item, foreground, .. } => Some((item.uid.clone(), *foreground)),
            _ => None,
        };
        let found: Vec<_> = actions.iter().filter_map(delete).collect();
        found.into_iter().map(|(uid, foreground)| (&*uid.leak(), foreground)).collect()
    }

    #[test]
    fn a_dependent_goes_when_its_last_owner_is_gone() {
        let mut graph = graph([plain("a", &[]), plain("b", &[]), plain("child", &["a", "b"])]);
        assert_eq!(graph.remove("a"), ["child"]);
        assert_eq!(graph.evaluate("child"), [], "b still owns it");
        assert_eq!(graph.remove("b"), ["child"]);
        assert_eq!(deletes(&graph.evaluate("child")), [("child", false)]);
    }

    #[test]
    fn an_object_without_owners_stays() {
        assert_eq!(graph([plain("a", &[])]).evaluate("a"), []);
    }

    #[test]
    fn in_the_foreground_the_owner_waits_for_its_dependents() {
        let mut graph =
            graph([ending("a", &[], FOREGROUND), plain("child", &["a"]), plain("grandchild", &["child"])]);
        assert_eq!(deletes(&graph.evaluate("a")), [("child", true)]);
        graph.put(ending("child", &["a"], FOREGROUND));
        assert_eq!(graph.evaluate("a"), [], "the child is still going");
        assert_eq!(deletes(&graph.evaluate("child")), [("grandchild", false)]);
        graph.remove("grandchild");
        let free = |actions: Vec<Action>| {
            matches!(&actions[..], [Action::RemoveFinalizer { finalizer: FOREGROUND, .. }])
        };
        assert!(free(graph.evaluate("child")));
        assert_eq!(graph.remove("child"), ["a"]);
        assert!(free(graph.evaluate("a")));
    }

    #[test]
    fn orphans_lose_their_owner_before_it_goes() {
        let mut graph = graph([ending("a", &[], ORPHAN), plain("child", &["a"])]);
        assert!(matches!(&graph.evaluate("a")[..], [Action::RemoveOwners { uids, .. }] if uids == &["a"]));
        assert!(graph.put(plain("child", &[])).contains(&"a".to_owned()), "the owner is looked at again");
        let actions = graph.evaluate("a");
        assert!(matches!(&actions[..], [Action::RemoveFinalizer { finalizer: ORPHAN, .. }]));
    }
}
