//! Random histories, on a store and on a naive model of one.

use std::collections::BTreeMap;

use bytes::Bytes;
use fairlead_store::{Event, EventKind, ListRequest, Revision, Store};
use proptest::prelude::*;

/// A write; a stale one has a precondition that does not hold.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create { key: u8, value: u8 },
    Update { key: u8, value: u8, stale: bool },
    Delete { key: u8, stale: bool },
}

/// What all keys begin with.
const PREFIX: &str = "/registry/";

/// Keys of kinds whose history a store may keep apart, in turn.
fn key_of(key: u8) -> String {
    format!("{PREFIX}{}/k{key}", ["leases", "pods"][usize::from(key % 2)])
}

/// Any write, on few keys.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let key = 0..4_u8;
    prop_oneof![
        (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Create { key, value }),
        (key.clone(), any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(key, value, stale)| Step::Update {
            key,
            value,
            stale
        }),
        (key, prop::bool::weighted(0.2)).prop_map(|(key, stale)| Step::Delete { key, stale }),
    ]
}

/// The whole history of a store, kept naively.
struct Model {
    /// The revision of the empty store.
    empty: Revision,
    /// `states[r]` is the state at revision `empty + r`: key → (value, mod revision).
    states: Vec<BTreeMap<String, (u8, Revision)>>,
    events: Vec<(Revision, EventKind, String, Option<u8>)>,
}

impl Model {
    /// Whether the step succeeds, and what it leaves.
    fn apply(&mut self, kind: EventKind, key: String, value: Option<u8>, stale: bool) -> bool {
        let mut state = self.states.last().cloned().unwrap_or_default();
        let exists = state.contains_key(&key);
        if stale || exists == (kind == EventKind::Created) {
            return false;
        }
        let revision = self.empty + self.states.len() as Revision;
        match value {
            Some(value) => state.insert(key.clone(), (value, revision)),
            None => state.remove(&key),
        };
        self.states.push(state);
        self.events.push((revision, kind, key, value));
        true
    }
}

/// Runs the steps on an empty store and on the model, and compares every state and every watch.
pub(crate) async fn check(store: &dyn Store, steps: Vec<Step>) {
    let empty = store.revision().await.unwrap();
    let mut model = Model { empty, states: vec![BTreeMap::new()], events: Vec::new() };
    let mut live = store.watch(PREFIX, empty).await.unwrap();
    for step in steps {
        let current = |key: &str| model.states.last().unwrap().get(key).map_or(7, |entry| entry.1);
        let (kind, key, value, stale, result) = match step {
            Step::Create { key, value } => {
                let key = key_of(key);
                let result = store.create(&key, Bytes::from(vec![value])).await;
                (EventKind::Created, key, Some(value), false, result)
            }
            Step::Update { key, value, stale } => {
                let key = key_of(key);
                let expected = current(&key) + u64::from(stale) * 1_000;
                let result = store.update(&key, Bytes::from(vec![value]), expected).await;
                (EventKind::Updated, key, Some(value), stale, result)
            }
            Step::Delete { key, stale } => {
                let key = key_of(key);
                let expected = current(&key) + u64::from(stale) * 1_000;
                let result = store.delete(&key, Some(expected)).await;
                (EventKind::Deleted, key, None, stale, result)
            }
        };
        assert_eq!(model.apply(kind, key, value, stale), result.is_ok(), "{kind:?} {result:?}");
    }
    assert_eq!(store.revision().await.unwrap(), empty + model.states.len() as Revision - 1);
    for (writes, state) in model.states.iter().enumerate() {
        let revision = empty + writes as Revision;
        for (limit, bytes_max) in [(None, None), (Some(1), None), (Some(3), None), (None, Some(2))] {
            let request = ListRequest { limit, bytes_max, at: Some(revision), ..ListRequest::prefix(PREFIX) };
            assert_eq!(&list_all(store, request).await, state, "at {revision}");
        }
        let mut watch = store.watch(PREFIX, revision).await.unwrap();
        for expected in &model.events[writes..] {
            assert_eq!(&seen(&watch.next().await.unwrap()), expected);
        }
        assert!(watch.try_next().unwrap().is_none());
    }
    for expected in &model.events {
        assert_eq!(&seen(&live.next().await.unwrap()), expected);
    }
}

fn seen(event: &Event) -> (Revision, EventKind, String, Option<u8>) {
    (event.revision, event.kind, event.key.clone(), event.value.as_ref().map(|value| value[0]))
}

async fn list_all(store: &dyn Store, mut request: ListRequest) -> BTreeMap<String, (u8, Revision)> {
    let mut all = BTreeMap::new();
    loop {
        let listing = store.list(request.clone()).await.unwrap();
        request.after = listing.entries.last().map(|entry| entry.key.clone());
        for entry in listing.entries {
            all.insert(entry.key, (entry.value[0], entry.mod_revision));
        }
        if listing.remaining == 0 {
            return all;
        }
    }
}
