//! What a store whose commits are deferred has after a crash: a state that was once the newest, and no revision again.
//!
//! A crash is a copy of the file as it lies there while the store is open: what a process that is killed leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_store::{
    Durability, EmbeddedConfig, EmbeddedStore, ListRequest, Revision, Store, StoreError, Watch,
};
use proptest::prelude::*;
use tempfile::TempDir;

const NEVER: Durability = Durability::Deferred { interval: Duration::from_secs(3_600) };
const AT_ONCE: Durability = Durability::Deferred { interval: Duration::ZERO };

fn open(dir: &TempDir, durability: Durability) -> EmbeddedStore {
    EmbeddedStore::open(&EmbeddedConfig { durability, ..EmbeddedConfig::new(dir.path()) }).unwrap()
}

/// What a kill of the process would leave, elsewhere.
fn crash(dir: &TempDir) -> TempDir {
    let left = TempDir::new().unwrap();
    let file = |dir: &Path| dir.join("store.redb");
    std::fs::copy(file(dir.path()), file(left.path())).unwrap();
    left
}

/// Key → value and the revision of the last change.
type State = BTreeMap<String, (Bytes, Revision)>;

async fn state(store: &EmbeddedStore) -> State {
    let entries = store.list(ListRequest::prefix("/")).await.unwrap().entries;
    entries.into_iter().map(|entry| (entry.key, (entry.value, entry.mod_revision))).collect()
}

async fn synced_up_to(store: &EmbeddedStore, revision: Revision) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.synced() < revision {
        assert!(Instant::now() < deadline, "{revision} is not synced");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn compacted(watch: &Result<Watch, StoreError>) -> bool {
    matches!(watch, Err(StoreError::Compacted { .. }))
}

#[tokio::test]
async fn what_is_written_is_synced_when_it_is_due_without_another_write() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, Durability::Deferred { interval: Duration::from_millis(20) });
    let revision = store.create("/a", Bytes::from_static(b"1")).await.unwrap();
    synced_up_to(&store, revision).await;
    let left = crash(&dir);
    assert_eq!(state(&open(&left, NEVER)).await, state(&store).await);
}

#[tokio::test]
async fn a_store_that_is_closed_loses_nothing_and_keeps_its_history() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, NEVER);
    let first = store.create("/a", Bytes::new()).await.unwrap();
    let last = store.create("/b", Bytes::new()).await.unwrap();
    assert_eq!(store.synced(), 0);
    drop(store);
    for durability in [NEVER, Durability::Synced] {
        let store = open(&dir, durability);
        assert_eq!(store.revision().await.unwrap(), last);
        assert_eq!(store.watch("/", first).await.unwrap().next().await.unwrap().revision, last);
    }
}

#[tokio::test]
async fn a_crash_takes_back_what_was_not_synced_and_no_revision_comes_again() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, NEVER);
    let lost = store.create("/lost", Bytes::new()).await.unwrap();
    for durability in [NEVER, Durability::Synced] {
        let left = crash(&dir);
        let store = open(&left, durability);
        assert!(state(&store).await.is_empty());
        assert!(store.revision().await.unwrap() > lost);
        assert!(compacted(&store.watch("/", lost).await), "whoever saw what is lost lists anew");
        assert!(store.list(ListRequest { at: Some(lost), ..ListRequest::prefix("/") }).await.is_err());
        let resumed = store.revision().await.unwrap();
        let mut watch = store.watch("/", resumed).await.unwrap();
        assert_eq!(store.create("/new", Bytes::new()).await.unwrap(), resumed + 1);
        assert_eq!(watch.next().await.unwrap().key, "/new");
    }
}

#[tokio::test]
async fn a_store_whose_commits_are_synced_goes_on_after_a_crash_as_if_it_had_been_closed() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, Durability::Synced);
    let first = store.create("/a", Bytes::new()).await.unwrap();
    let last = store.create("/b", Bytes::new()).await.unwrap();
    assert_eq!(store.synced(), last);
    let left = crash(&dir);
    let store = open(&left, Durability::Synced);
    assert_eq!(store.revision().await.unwrap(), last);
    assert_eq!(store.watch("/", first).await.unwrap().next().await.unwrap().revision, last);
}

#[derive(Clone, Debug)]
enum Step {
    Write { key: u8, value: u8 },
    Delete { key: u8 },
    Close(usize),
    Crash(usize),
}

const LEVELS: [Durability; 3] = [Durability::Synced, NEVER, AT_ONCE];

fn step() -> impl Strategy<Value = Step> {
    let level = 0..LEVELS.len();
    prop_oneof![
        8 => (0..4_u8, any::<u8>()).prop_map(|(key, value)| Step::Write { key, value }),
        3 => (0..4_u8).prop_map(|key| Step::Delete { key }),
        1 => level.clone().prop_map(Step::Close),
        2 => level.prop_map(Step::Crash),
    ]
}

/// What is known of a store without looking into it.
struct Known {
    /// The state after each write since the last crash, and before the first of them.
    states: Vec<(Revision, State)>,
    /// The revisions that anybody has seen, over all crashes.
    seen: BTreeSet<Revision>,
}

impl Known {
    async fn write(&mut self, store: &EmbeddedStore, watch: &mut Watch, key: u8, value: Option<u8>) {
        let key = format!("/{key}");
        let (_, mut state) = self.states.last().unwrap().clone();
        let before = state.get(&key).map(|entry| entry.1);
        let value = value.map(|value| Bytes::from(vec![value]));
        let revision = match (&value, before) {
            (Some(value), Some(before)) => store.update(&key, value.clone(), before).await.unwrap(),
            (Some(value), None) => store.create(&key, value.clone()).await.unwrap(),
            (None, Some(before)) => store.delete(&key, Some(before)).await.unwrap(),
            (None, None) => return,
        };
        match value {
            Some(value) => drop(state.insert(key, (value, revision))),
            None => drop(state.remove(&key)),
        }
        self.states.push((revision, state));
        let event = watch.next().await.unwrap();
        assert_eq!(event.revision, revision);
        assert!(self.seen.last().is_none_or(|last| *last < revision), "{revision} came before");
        self.seen.insert(revision);
    }

    /// The store has crashed; it had synced up to a revision.
    async fn after_crash(&mut self, store: &EmbeddedStore, synced: Revision) {
        let (found, resumed) = (state(store).await, store.revision().await.unwrap());
        let last = self.states.last().unwrap();
        if resumed == last.0 {
            assert_eq!(found, last.1);
        } else {
            assert!(resumed > last.0);
            let is_possible = |(revision, state): &&(Revision, State)| *revision >= synced && *state == found;
            assert!(
                self.states.iter().any(|state| is_possible(&state)),
                "{found:?} was never the state from {synced} on"
            );
            for revision in &self.seen {
                assert!(compacted(&store.watch("/", *revision).await), "{revision} may be of what is lost");
            }
        }
        self.states = vec![(resumed, found)];
    }
}

async fn check(steps: Vec<Step>) {
    let mut dir = TempDir::new().unwrap();
    let mut store = open(&dir, NEVER);
    let mut watch = store.watch("/", 0).await.unwrap();
    let mut known = Known { states: vec![(0, State::new())], seen: BTreeSet::new() };
    for step in steps {
        match step {
            Step::Write { key, value } => known.write(&store, &mut watch, key, Some(value)).await,
            Step::Delete { key } => known.write(&store, &mut watch, key, None).await,
            Step::Close(level) => {
                drop(store);
                store = open(&dir, LEVELS[level]);
                let last = known.states.last().unwrap().clone();
                assert_eq!((store.revision().await.unwrap(), state(&store).await), last);
                watch = store.watch("/", last.0).await.unwrap();
            }
            Step::Crash(level) => {
                let synced = store.synced();
                let left = crash(&dir);
                drop(store);
                dir = left;
                store = open(&dir, LEVELS[level]);
                known.after_crash(&store, synced).await;
                watch = store.watch("/", known.states[0].0).await.unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn crashes_take_back_an_end_and_never_give_a_revision_twice(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(check(steps));
    }
}
