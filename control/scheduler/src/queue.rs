//! The pods that wait: in order when they can be tried, parked when they cannot.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use tokio::time::Instant;

/// Pause after the first failure; doubles with each one up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(25);

/// Longest pause of a pod.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Higher priority first, then older, then by UID.
type Order = (Reverse<i32>, Option<Time>, String);

/// A pod that could not be placed.
#[derive(Debug)]
struct Parked {
    pod: Arc<Pod>,
    /// Not tried again before.
    not_before: Instant,
    /// Something happened that may help it.
    awake: bool,
}

/// Pods without a node.
#[derive(Debug, Default)]
pub struct Queue {
    active: BTreeMap<Order, Arc<Pod>>,
    orders: HashMap<String, Order>,
    parked: HashMap<String, Parked>,
    /// The parked pods that are awake, by when they may be tried.
    due: BTreeSet<(Instant, String)>,
    attempts: HashMap<String, u32>,
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl Queue {
    /// Takes in a new or changed pod. A parked one stays parked unless its spec or labels have changed.
    pub fn put(&mut self, pod: Arc<Pod>) {
        let uid = uid(&pod);
        if let Some(parked) = self.parked.get_mut(&uid) {
            let same = parked.pod.spec == pod.spec && parked.pod.metadata.labels == pod.metadata.labels;
            parked.pod = pod;
            if !same && !parked.awake {
                parked.awake = true;
                self.due.insert((parked.not_before, uid));
            }
            return;
        }
        self.activate(pod);
    }

    /// Forgets a pod: it has a node, or is gone.
    pub fn remove(&mut self, uid: &str) {
        if let Some(parked) = self.parked.remove(uid) {
            self.due.remove(&(parked.not_before, uid.to_owned()));
        }
        self.attempts.remove(uid);
        if let Some(order) = self.orders.remove(uid) {
            self.active.remove(&order);
        }
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        while self.due.first().is_some_and(|(not_before, _)| *not_before <= now)
            && let Some((_, uid)) = self.due.pop_first()
        {
            if let Some(parked) = self.parked.remove(&uid) {
                self.activate(parked.pod);
            }
        }
        let (_, pod) = self.active.pop_first()?;
        self.orders.remove(&uid(&pod));
        Some(pod)
    }

    /// Puts a pod aside after a failure. `awake`: it is tried again after its pause without any event.
    pub fn park(&mut self, pod: Arc<Pod>, awake: bool, now: Instant) {
        let uid = uid(&pod);
        let attempts = self.attempts.entry(uid.clone()).or_default();
        let pause = BACKOFF_MIN.saturating_mul(1 << (*attempts).min(16)).min(BACKOFF_MAX);
        *attempts = attempts.saturating_add(1);
        let not_before = now + pause;
        if let Some(before) = self.parked.insert(uid.clone(), Parked { pod, not_before, awake }) {
            self.due.remove(&(before.not_before, uid.clone()));
        }
        if awake {
            self.due.insert((not_before, uid));
        }
    }

    /// Something changed that may help: parked pods are tried again once their pause is over.
    pub fn wake(&mut self) {
        for (uid, parked) in self.parked.iter_mut().filter(|(_, parked)| !parked.awake) {
            parked.awake = true;
            self.due.insert((parked.not_before, uid.clone()));
        }
    }

    /// When the next parked pod can be tried.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(not_before, _)| *not_before)
    }

    /// UIDs of everything that waits, to compare with a new listing.
    pub fn uids(&self) -> Vec<String> {
        self.orders.keys().chain(self.parked.keys()).cloned().collect()
    }

    fn activate(&mut self, pod: Arc<Pod>) {
        let uid = uid(&pod);
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let order = (Reverse(priority), pod.metadata.creation_timestamp.clone(), uid.clone());
        if let Some(old) = self.orders.insert(uid, order.clone()) {
            self.active.remove(&old);
        }
        self.active.insert(order, pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<Pod> {
        let pod =
            serde_json::json!({"metadata": {"uid": uid}, "spec": {"priority": priority, "containers": []}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn popped(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|pod| uid(&pod)).collect()
    }

    #[test]
    fn a_higher_priority_goes_first() {
        let mut queue = Queue::default();
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            queue.put(pod(uid, priority));
        }
        assert_eq!(popped(&mut queue, Instant::now()), ["b", "a", "c"]);
    }

    #[test]
    fn a_parked_pod_waits_for_an_event_and_for_its_pause() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.park(pod("a", 0), false, now);
        let later = now + BACKOFF_MAX;
        assert_eq!(popped(&mut queue, later).len(), 0, "nothing has happened");
        assert_eq!(queue.next_due(), None);
        queue.wake();
        assert_eq!(popped(&mut queue, now).len(), 0, "its pause is not over");
        assert_eq!(queue.next_due(), Some(now + BACKOFF_MIN));
        assert_eq!(popped(&mut queue, later), ["a"]);
        queue.park(pod("a", 0), true, later);
        assert_eq!(queue.next_due(), Some(later + BACKOFF_MIN * 2), "the pause doubles");
    }

    #[test]
    fn only_a_change_of_its_spec_wakes_a_parked_pod() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.park(pod("a", 0), false, now);
        queue.put(pod("a", 0));
        assert_eq!(queue.next_due(), None);
        queue.put(pod("a", 5));
        assert!(queue.next_due().is_some());
        queue.remove("a");
        assert!(queue.uids().is_empty());
        assert_eq!(queue.next_due(), None);
    }
}
