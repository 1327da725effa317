//! What was acknowledged survives `kill -9`, or what was acknowledged and synced, where commits are deferred.
//!
//! The child is this test binary, run again with a variable that names the directory; it writes for ever and prints
//! each acknowledged write. The parent kills it in the middle, opens the store and compares.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_store::{Durability, EmbeddedConfig, EmbeddedStore, ListRequest, Revision, Store, StoreError};

const DIR_VARIABLE: &str = "FAIRLEAD_STORE_CRASH_DIR";
/// Set where commits are deferred.
const DEFERRED_VARIABLE: &str = "FAIRLEAD_STORE_CRASH_DEFERRED";
const WRITERS: usize = 4;
const ROUNDS: usize = 5;
const ACKNOWLEDGED_PER_ROUND: usize = 120;

fn open(dir: PathBuf, is_deferred: bool) -> EmbeddedStore {
    let deferred = Durability::Deferred { interval: Duration::from_millis(10) };
    let durability = if is_deferred { deferred } else { Durability::Synced };
    EmbeddedStore::open(&EmbeddedConfig { durability, ..EmbeddedConfig::new(dir) }).unwrap()
}

/// Does nothing unless it is the child.
#[tokio::test]
async fn crash_child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let store = Arc::new(open(PathBuf::from(dir), std::env::var_os(DEFERRED_VARIABLE).is_some()));
    let start = store.revision().await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0.. {
                let key = format!("/{start}/{writer}/{}", n / 3);
                let value = Bytes::from(format!("{n}"));
                let current = store.get(&key).await.unwrap();
                let (state, revision) = match (n % 3, current) {
                    (0, _) => (n.to_string(), store.create(&key, value).await.unwrap()),
                    (1, Some(entry)) => {
                        (n.to_string(), store.update(&key, value, entry.mod_revision).await.unwrap())
                    }
                    (_, Some(entry)) if writer == 0 => {
                        let revision = store.delete(&key, Some(entry.mod_revision)).await.unwrap();
                        ("-".to_owned(), revision)
                    }
                    _ => continue,
                };
                let line = format!("ack {revision} {key} {state} {}\n", store.synced());
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result.unwrap();
    }
}

/// What the child said.
#[derive(Default)]
struct Said {
    /// Key → revision and state of the newest write that was acknowledged.
    acknowledged: BTreeMap<String, (Revision, String)>,
    /// All revisions, of all children.
    revisions: BTreeSet<Revision>,
    /// The newest revision that was synced.
    synced: Revision,
}

impl Said {
    /// Runs a child until it has said enough, and kills it.
    fn listen(&mut self, dir: &Path, is_deferred: bool, enough: usize) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crash_child", "--nocapture", "--test-threads=1"]).env(DIR_VARIABLE, dir);
        if is_deferred {
            command.env(DEFERRED_VARIABLE, "1");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut count, start) = (0, self.synced);
        let mut killed = false;
        for line in lines {
            let line = line.unwrap();
            // The test harness prints the test's name before the first line.
            let Some(at) = line.find("ack ") else { continue };
            let words: Vec<&str> = line[at..].split(' ').collect();
            let [_, revision, key, state, synced] = words[..] else { continue };
            let (revision, synced): (Revision, Revision) =
                (revision.parse().unwrap(), synced.parse().unwrap());
            assert!(self.revisions.insert(revision), "{revision} was given out before");
            self.acknowledged.insert(key.to_owned(), (revision, state.to_owned()));
            self.synced = self.synced.max(synced);
            count += 1;
            if count >= enough && self.synced > start && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child wrote only {count} times");
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut said = Said::default();
    for round in 0..ROUNDS {
        said.listen(dir.path(), false, ACKNOWLEDGED_PER_ROUND + round * 17);
        let last = said.revisions.last().copied().unwrap();
        compare(&open(dir.path().to_owned(), false), &said.acknowledged, last).await;
    }
}

/// Of what was not synced nothing is asked but that it is whole, and that its revisions do not come again.
#[tokio::test]
async fn synced_writes_survive_a_kill_where_commits_are_deferred() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut said = Said::default();
    for round in 0..ROUNDS {
        said.listen(dir.path(), true, ACKNOWLEDGED_PER_ROUND + round * 170);
        let store = open(dir.path().to_owned(), true);
        let last = said.revisions.last().copied().unwrap();
        assert!(store.revision().await.unwrap() > last);
        for seen in [last, said.synced] {
            assert!(matches!(store.watch("/", seen).await, Err(StoreError::Compacted { .. })), "{seen}");
        }
        said.acknowledged.retain(|_, (revision, _)| *revision <= said.synced);
        compare(&store, &said.acknowledged, said.synced).await;
    }
}

/// Holds what is stored against what was acknowledged up to a revision.
async fn compare(store: &EmbeddedStore, acknowledged: &BTreeMap<String, (Revision, String)>, upto: Revision) {
    let listing = store.list(ListRequest::prefix("/")).await.unwrap();
    let stored: BTreeMap<_, _> = listing.entries.iter().map(|entry| (entry.key.as_str(), entry)).collect();
    for (key, (revision, state)) in acknowledged.iter().filter(|(_, (revision, _))| *revision <= upto) {
        assert!(listing.revision >= *revision);
        let found = stored.get(key.as_str()).map(|entry| (entry.mod_revision, &entry.value[..]));
        match found {
            // The last write of each writer may have been committed without its answer getting out.
            Some((found, _)) if found > *revision => {}
            Some((found, value)) => {
                assert_eq!((found, value), (*revision, state.as_bytes()), "{key}");
            }
            None => {
                let gone_later = match store.watch(key, *revision).await {
                    Ok(mut watch) => watch.try_next().unwrap().is_some(),
                    // Of what is forgotten only the last write of a key can be gone: the one that removes it follows.
                    Err(_) => {
                        let is_last = state.parse().is_ok_and(|n: usize| n % 3 == 1);
                        is_last && key.split('/').nth(2) == Some("0")
                    }
                };
                assert!(state == "-" || gone_later, "{key} at {revision} is lost");
            }
        }
    }
}
