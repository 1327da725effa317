//! What is still to be said about pods without a node. It can wait: thousands of pods that no node takes must not hold up
//! those that one does, nor the writes of users.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;

/// The newest word on each pod, in the order in which the pods were first without a node.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Also of pods on which there is no word any longer.
    order: VecDeque<String>,
    words: HashMap<String, (Arc<Pod>, String)>,
}

impl Reports {
    /// Says of a pod why it has no node, when it is its turn.
    pub(crate) fn put(&mut self, pod: Arc<Pod>, message: String) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.words.insert(uid.clone(), (pod, message)).is_none() {
            self.order.push_back(uid);
        }
    }

    /// A pod has changed: what is said must be said of it as it is.
    pub(crate) fn refresh(&mut self, pod: &Arc<Pod>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some((stale, _)) = self.words.get_mut(uid) {
            stale.clone_from(pod);
        }
    }

    /// There is nothing to say of a pod any longer.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.words.remove(uid);
    }

    /// The next one to be said.
    pub(crate) fn pop(&mut self) -> Option<(Arc<Pod>, String)> {
        while let Some(uid) = self.order.pop_front() {
            if let Some(word) = self.words.remove(&uid) {
                return Some(word);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, version: &str) -> Arc<Pod> {
        let pod = serde_json::json!({"metadata": {"uid": uid, "resourceVersion": version}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn the_newest_word_is_said_once_and_only_of_pods_that_wait() {
        let mut reports = Reports::default();
        for (uid, word) in [("a", "old"), ("b", "b"), ("c", "c"), ("a", "new")] {
            reports.put(pod(uid, "1"), word.to_owned());
        }
        reports.remove("b");
        reports.refresh(&pod("a", "2"));
        reports.refresh(&pod("unknown", "1"));
        let said: Vec<_> = std::iter::from_fn(|| reports.pop())
            .map(|(pod, word)| (pod.metadata.resource_version.clone().expect("a version"), word))
            .collect();
        assert_eq!(said, [("2".to_owned(), "new".to_owned()), ("1".to_owned(), "c".to_owned())]);
        assert!(reports.order.is_empty() && reports.words.is_empty());
    }
}
