//! What is particular to the embedded store: the contract on it, the directory, histories against a model.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{EventKind, contract};

fn open(dir: &TempDir) -> EmbeddedStore {
    EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).expect("the store opens")
}

#[tokio::test]
async fn the_contract_holds() {
    contract::check(|| {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        (Box::new(store) as Box<dyn Store>, dir)
    })
    .await;
}

#[tokio::test]
async fn a_reopened_store_has_what_was_written() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let first = store.create("/a", Bytes::from_static(b"1")).await.unwrap();
    let second = store.update("/a", Bytes::from_static(b"2"), first).await.unwrap();
    drop(store);
    let store = open(&dir);
    assert_eq!(store.revision().await.unwrap(), second);
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.mod_revision), (&b"2"[..], second));
    let mut watch = store.watch("/", 0).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, first);
}

#[tokio::test]
async fn a_second_instance_is_refused_with_the_holders_pid() {
    let dir = TempDir::new().unwrap();
    let _store = open(&dir);
    let error = EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn a_newer_layout_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    let set_layout = |layout: u64| {
        let database = Database::create(dir.path().join("store.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(schema::META).unwrap();
        meta.insert(schema::META_LAYOUT, layout).unwrap();
        drop(meta);
        transaction.commit().unwrap();
    };
    set_layout(schema::LAYOUT + 1);
    let error = EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).unwrap_err();
    assert!(matches!(error, StoreError::NewerLayout { found: 2, supported: 1, .. }), "{error}");
    set_layout(schema::LAYOUT);
    open(&dir);
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_others_are_not() {
    let dir = TempDir::new().unwrap();
    let config = EmbeddedConfig { watch_queue_len_max: 4, ..EmbeddedConfig::new(dir.path()) };
    let store = EmbeddedStore::open(&config).unwrap();
    let mut slow = store.watch("/", 0).await.unwrap();
    let mut quick = store.watch("/", 0).await.unwrap();
    for n in 0..6 {
        store.create(&format!("/{n}"), Bytes::new()).await.unwrap();
        assert_eq!(quick.next().await.unwrap().key, format!("/{n}"));
    }
    for n in 0..4 {
        assert_eq!(slow.next().await.unwrap().key, format!("/{n}"));
    }
    assert!(matches!(slow.next().await, Err(StoreError::WatchTooSlow)));
}

#[tokio::test]
async fn history_beyond_the_retention_is_forgotten() {
    let dir = TempDir::new().unwrap();
    let retention = Retention { revisions_min: 10, revisions_max: 50, age: Duration::MAX };
    let config = EmbeddedConfig { retention, ..EmbeddedConfig::new(dir.path()) };
    let store = Arc::new(EmbeddedStore::open(&config).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1_100 {
        let store = store.clone();
        tasks.spawn(async move { store.create(&format!("/{n}"), Bytes::new()).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(matches!(store.watch("/", 1).await, Err(StoreError::Compacted { .. })));
    assert!(store.watch("/", 1_099).await.is_ok());
    assert_eq!(store.list(ListRequest::prefix("/")).await.unwrap().entries.len(), 1_100);
}

#[derive(Clone, Debug)]
enum Step {
    Create { key: u8, value: u8 },
    Update { key: u8, value: u8, stale: bool },
    Delete { key: u8, stale: bool },
}

fn step() -> impl Strategy<Value = Step> {
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
#[derive(Default)]
struct Model {
    /// `states[r]` is the state at revision r: key → (value, mod revision).
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
        let revision = self.states.len() as Revision;
        match value {
            Some(value) => state.insert(key.clone(), (value, revision)),
            None => state.remove(&key),
        };
        self.states.push(state);
        self.events.push((revision, kind, key, value));
        true
    }
}

async fn run_history(steps: Vec<Step>) {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let mut model = Model { states: vec![BTreeMap::new()], events: Vec::new() };
    let mut live = store.watch("/k", 0).await.unwrap();
    for step in steps {
        let current = |key: &str| model.states.last().unwrap().get(key).map_or(7, |entry| entry.1);
        let (kind, key, value, stale, result) = match step {
            Step::Create { key, value } => {
                let key = format!("/k{key}");
                let result = store.create(&key, Bytes::from(vec![value])).await;
                (EventKind::Created, key, Some(value), false, result)
            }
            Step::Update { key, value, stale } => {
                let key = format!("/k{key}");
                let expected = current(&key) + u64::from(stale) * 1_000;
                let result = store.update(&key, Bytes::from(vec![value]), expected).await;
                (EventKind::Updated, key, Some(value), stale, result)
            }
            Step::Delete { key, stale } => {
                let key = format!("/k{key}");
                let expected = current(&key) + u64::from(stale) * 1_000;
                let result = store.delete(&key, Some(expected)).await;
                (EventKind::Deleted, key, None, stale, result)
            }
        };
        assert_eq!(model.apply(kind, key, value, stale), result.is_ok(), "{kind:?} {result:?}");
    }
    assert_eq!(store.revision().await.unwrap() as usize, model.states.len() - 1);
    for (revision, state) in model.states.iter().enumerate() {
        let revision = revision as Revision;
        for limit in [None, Some(1), Some(3)] {
            assert_eq!(&list_all(&store, revision, limit).await, state, "at {revision}");
        }
        let mut watch = store.watch("/k", revision).await.unwrap();
        for expected in &model.events[revision as usize..] {
            assert_eq!(&seen(&watch.next().await.unwrap()), expected);
        }
        assert!(watch.try_next().unwrap().is_none());
    }
    for expected in &model.events {
        assert_eq!(&seen(&live.next().await.unwrap()), expected);
    }
}

fn seen(event: &crate::Event) -> (Revision, EventKind, String, Option<u8>) {
    (event.revision, event.kind, event.key.clone(), event.value.as_ref().map(|value| value[0]))
}

async fn list_all(
    store: &EmbeddedStore,
    at: Revision,
    limit: Option<usize>,
) -> BTreeMap<String, (u8, Revision)> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let request = ListRequest { prefix: "/k".into(), after, limit, at: Some(at) };
        let listing = store.list(request).await.unwrap();
        after = listing.entries.last().map(|entry| entry.key.clone());
        for entry in listing.entries {
            all.insert(entry.key, (entry.value[0], entry.mod_revision));
        }
        if listing.remaining == 0 {
            return all;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(run_history(steps));
    }
}
