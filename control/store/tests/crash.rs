//! What was acknowledged survives `kill -9`.
//!
//! The child is this test binary, run again with a variable that names the directory; it writes for ever and prints
//! each acknowledged write. The parent kills it in the middle, opens the store and compares.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use fairlead_store::{EmbeddedConfig, EmbeddedStore, ListRequest, Store};

const DIR_VARIABLE: &str = "FAIRLEAD_STORE_CRASH_DIR";
const WRITERS: usize = 4;
const ROUNDS: usize = 5;
const ACKNOWLEDGED_PER_ROUND: usize = 120;

/// Does nothing unless it is the child.
#[tokio::test]
async fn crash_child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let config = EmbeddedConfig::new(PathBuf::from(dir));
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&config).unwrap());
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
                let line = format!("ack {revision} {key} {state}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result.unwrap();
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut acknowledged: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_child", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines {
            let line = line.unwrap();
            // The test harness prints the test's name before the first line.
            let Some(at) = line.find("ack ") else { continue };
            let words: Vec<&str> = line[at..].split(' ').collect();
            let [_, revision, key, state] = words[..] else { continue };
            acknowledged.insert(key.to_owned(), (revision.parse().unwrap(), state.to_owned()));
            count += 1;
            if count == ACKNOWLEDGED_PER_ROUND + round * 17 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= ACKNOWLEDGED_PER_ROUND, "the child wrote only {count} times");
        compare(dir.path().to_owned(), &acknowledged).await;
    }
}

async fn compare(dir: PathBuf, acknowledged: &BTreeMap<String, (u64, String)>) {
    let store = EmbeddedStore::open(&EmbeddedConfig::new(dir)).unwrap();
    let listing = store.list(ListRequest::prefix("/")).await.unwrap();
    let stored: BTreeMap<_, _> = listing.entries.iter().map(|entry| (entry.key.as_str(), entry)).collect();
    for (key, (revision, state)) in acknowledged {
        assert!(listing.revision >= *revision);
        let found = stored.get(key.as_str()).map(|entry| (entry.mod_revision, &entry.value[..]));
        match found {
            // The last write of each writer may have been committed without its answer getting out.
            Some((found, _)) if found > *revision => {}
            Some((found, value)) => {
                assert_eq!((found, value), (*revision, state.as_bytes()), "{key}");
            }
            None => {
                let mut watch = store.watch(key, *revision).await.unwrap();
                let gone_later = watch.try_next().unwrap().is_some();
                assert!(state == "-" || gone_later, "{key} at {revision} is lost");
            }
        }
    }
}
