//! The newest changes, in memory, for watches that begin in the past.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Event, Revision, StoreError};

/// A bounded window of changes.
#[derive(Debug)]
pub(super) struct History {
    window: Mutex<Window>,
    len_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Window {
    /// In order of revision.
    events: VecDeque<Arc<Event>>,
    /// The window has every change later than this.
    after: Revision,
    bytes: usize,
}

impl History {
    pub(super) fn new(after: Revision, len_max: usize, bytes_max: usize) -> Self {
        let window = Window { events: VecDeque::new(), after, bytes: 0 };
        Self { window: Mutex::new(window), len_max, bytes_max }
    }

    /// Appends changes; forgets the oldest when they are too many.
    pub(super) fn push(&self, events: &[Arc<Event>]) {
        let mut window = self.lock();
        for event in events {
            window.bytes += size(event);
            window.events.push_back(event.clone());
        }
        while window.events.len() > self.len_max || window.bytes > self.bytes_max {
            window.pop();
        }
    }

    /// The changes under `prefix` with `after < revision <= until`.
    pub(super) fn since(
        &self,
        prefix: &str,
        after: Revision,
        until: Revision,
    ) -> Result<VecDeque<Arc<Event>>, StoreError> {
        let window = self.lock();
        if after < window.after {
            return Err(StoreError::Compacted { requested: after, compacted: window.after });
        }
        let start = window.events.partition_point(|event| event.revision <= after);
        let later = window.events.range(start..).take_while(|event| event.revision <= until);
        Ok(later.filter(|event| event.key.starts_with(prefix)).cloned().collect())
    }

    /// Forgets up to and including `upto`.
    pub(super) fn forget(&self, upto: Revision) {
        let mut window = self.lock();
        while window.events.front().is_some_and(|event| event.revision <= upto) {
            window.pop();
        }
        window.after = window.after.max(upto);
    }

    /// Begins anew after `after`: something before it was missed.
    pub(super) fn restart(&self, after: Revision) {
        *self.lock() = Window { events: VecDeque::new(), after, bytes: 0 };
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        // The window is valid after any panic: each step leaves it shorter or longer by whole events.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn pop(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= size(&event);
            self.after = self.after.max(event.revision);
        }
    }
}

fn size(event: &Event) -> usize {
    let values = [&event.value, &event.previous];
    event.key.len() + values.into_iter().flatten().map(bytes::Bytes::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::EventKind;

    fn event(revision: Revision, key: &str) -> Arc<Event> {
        let (value, previous) = (Some(Bytes::from_static(b"12345678")), None);
        Arc::new(Event { revision, kind: EventKind::Created, key: key.to_owned(), value, previous })
    }

    fn revisions(found: Result<VecDeque<Arc<Event>>, StoreError>) -> Vec<Revision> {
        found.unwrap().iter().map(|event| event.revision).collect()
    }

    #[test]
    fn a_window_answers_for_what_it_has_and_only_for_that() {
        let history = History::new(10, 3, 1_000);
        history.push(&[event(12, "/a"), event(13, "/b"), event(15, "/a")]);
        assert_eq!(revisions(history.since("/", 10, 14)), [12, 13]);
        assert_eq!(revisions(history.since("/a", 12, 99)), [15]);
        assert!(matches!(history.since("/", 9, 99), Err(StoreError::Compacted { compacted: 10, .. })));
        history.push(&[event(16, "/c")]);
        assert!(matches!(history.since("/", 11, 99), Err(StoreError::Compacted { compacted: 12, .. })));
        history.forget(15);
        assert_eq!(revisions(history.since("/", 15, 99)), [16]);
    }

    #[test]
    fn values_are_bounded_in_bytes() {
        let history = History::new(0, 1_000, 25);
        history.push(&[event(1, "/a"), event(2, "/b"), event(3, "/c")]);
        assert_eq!(revisions(history.since("/", 1, 99)), [2, 3]);
        assert!(history.since("/", 0, 99).is_err());
    }
}
