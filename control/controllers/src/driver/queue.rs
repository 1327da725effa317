//! Keys that wait for a controller: each at most once, failures with growing pauses.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::cache::Key;

/// Pause after the first failure (upstream's workqueue); doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(5);

/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A work queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    delayed: BTreeSet<(Instant, Key)>,
    /// When each delayed key is due: only the earliest time counts.
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl State {
    fn push(&mut self, key: Key) {
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some((due, _)) = self.delayed.first()
            && *due <= now
        {
            let (_, key) = self.delayed.pop_first().expect("seen above");
            self.due.remove(&key);
            self.push(key);
        }
    }

    fn delay(&mut self, key: Key, due: Instant) {
        if let Some(known) = self.due.get(&key) {
            if *known <= due {
                return;
            }
            self.delayed.remove(&(*known, key.clone()));
        }
        self.due.insert(key.clone(), due);
        self.delayed.insert((due, key));
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a key, unless it waits already.
    pub fn push(&self, key: Key) {
        self.lock().push(key);
        self.arrived.notify_one();
    }

    /// Adds a key after a delay.
    pub fn push_after(&self, key: Key, delay: Duration) {
        self.lock().delay(key, Instant::now() + delay);
        self.arrived.notify_one();
    }

    /// Adds a key after a pause that doubles with each failure in a row; returns the pause.
    pub fn retry(&self, key: Key) -> Duration {
        let mut state = self.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let pause = BACKOFF_MIN.saturating_mul(1 << (*failures).min(16)).min(BACKOFF_MAX);
        *failures = failures.saturating_add(1);
        state.delay(key, Instant::now() + pause);
        drop(state);
        self.arrived.notify_one();
        pause
    }

    /// Forgets the failures of a key.
    pub fn succeeded(&self, key: &Key) {
        self.lock().failures.remove(key);
    }

    /// The next key, as soon as there is one. For a single worker.
    pub async fn next(&self) -> Key {
        loop {
            let due = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    return key;
                }
                state.delayed.first().map(|(due, _)| *due)
            };
            let arrived = self.arrived.notified();
            match due {
                // Either way the queue is looked at again.
                Some(due) => drop(timeout_at(due, arrived).await),
                None => arrived.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("demo", name)
    }

    #[tokio::test]
    async fn a_key_waits_once_and_in_order() {
        let queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.push(key(name));
        }
        assert_eq!(queue.next().await, key("a"));
        queue.push(key("a"));
        assert_eq!(queue.next().await, key("b"));
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test]
    async fn a_failure_comes_back_after_a_growing_pause() {
        let queue = Queue::default();
        assert_eq!(queue.retry(key("a")), BACKOFF_MIN);
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.retry(key("a")), BACKOFF_MIN * 2);
        assert_eq!(queue.next().await, key("a"));
        queue.succeeded(&key("a"));
        assert_eq!(queue.retry(key("a")), BACKOFF_MIN);
    }
}
