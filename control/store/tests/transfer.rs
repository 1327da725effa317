//! Copies are whole, or they are refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fairlead_store::transfer::{self, PAGES_MAX, Snapshot, SnapshotError, Summary};
use fairlead_store::{EmbeddedConfig, EmbeddedStore, ListRequest, Store, StoreError};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

const ENTRIES: usize = 1_203;

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(&EmbeddedConfig::new(dir)).unwrap())
}

async fn filled(dir: &Path) -> Arc<dyn Store> {
    let store = open(dir);
    for n in 0..ENTRIES {
        store.create(&format!("/{n:05}"), Bytes::from(vec![n as u8; n % 97])).await.unwrap();
    }
    let entry = store.get("/00007").await.unwrap().unwrap();
    store.update("/00007", Bytes::from_static(b"updated"), entry.mod_revision).await.unwrap();
    store.delete("/00008", None).await.unwrap();
    store
}

async fn snapshot(store: &Arc<dyn Store>, path: &Path) -> Summary {
    let revision = store.revision().await.unwrap();
    let (pages, mut received) = mpsc::channel(PAGES_MAX);
    let path = path.to_owned();
    let writing = spawn_blocking(move || Snapshot::write(&path, revision, &mut received, |_| true));
    let summary = transfer::export(&**store, revision, pages).await.unwrap();
    writing.await.unwrap().unwrap();
    summary
}

async fn import(path: &Path, dir: &Path, complete: bool) -> Result<(), StoreError> {
    let snapshot = Snapshot::open(path).unwrap();
    let (revision, config) = (snapshot.revision, EmbeddedConfig::new(dir));
    let (pages, mut received) = mpsc::channel(PAGES_MAX);
    let sending = spawn_blocking(move || snapshot.send(&pages));
    let outcome =
        spawn_blocking(move || EmbeddedStore::open(&config)?.import(revision, &mut received, |_| complete))
            .await;
    sending.await.unwrap().unwrap();
    outcome.unwrap()
}

#[tokio::test]
async fn a_snapshot_brings_back_every_entry_with_its_revisions() {
    let dir = TempDir::new().unwrap();
    let (file, restored) = (dir.path().join("snapshot"), dir.path().join("restored"));
    let store = filled(&dir.path().join("store")).await;
    let summary = snapshot(&store, &file).await;
    assert_eq!(summary.entries, ENTRIES as u64 - 1);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    import(&file, &restored, true).await.unwrap();
    let copy = open(&restored);
    let everything = ListRequest::default();
    assert_eq!(copy.list(everything.clone()).await.unwrap(), store.list(everything).await.unwrap());
    assert_eq!(transfer::summarize(&*copy).await.unwrap(), summary);
    // Its history is not part of it, and it goes on counting.
    let error = copy.watch("/", 5).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    let next = copy.create("/new", Bytes::new()).await.unwrap();
    assert_eq!(next, store.revision().await.unwrap() + 1);
    drop(copy);
    assert!(matches!(import(&file, &restored, true).await, Err(StoreError::Used { .. })));
}

#[tokio::test]
async fn what_is_incomplete_is_not_kept() {
    let dir = TempDir::new().unwrap();
    let (file, target) = (dir.path().join("snapshot"), dir.path().join("target"));
    let store = filled(&dir.path().join("store")).await;
    snapshot(&store, &file).await;
    assert!(matches!(import(&file, &target, false).await, Err(StoreError::Incomplete)));
    assert_eq!(open(&target).revision().await.unwrap(), 0);

    let (_, mut none) = mpsc::channel(1);
    let unwritten = dir.path().join("unwritten");
    let outcome = spawn_blocking({
        let path = unwritten.clone();
        move || Snapshot::write(&path, 1, &mut none, |_| false)
    });
    assert!(matches!(outcome.await.unwrap(), Err(SnapshotError::Incomplete { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "no file was left behind");
}

#[tokio::test]
async fn a_damaged_snapshot_is_recognised_wherever_the_damage_is() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("snapshot");
    let store = open(&dir.path().join("store"));
    for key in ["/a", "/b"] {
        store.create(key, Bytes::from_static(b"value")).await.unwrap();
    }
    snapshot(&store, &file).await;
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        assert!(Snapshot::open(&file).is_err(), "byte {at} was changed");
        std::fs::write(&file, &whole[..at]).unwrap();
        assert!(Snapshot::open(&file).is_err(), "cut off at {at}");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(Snapshot::open(&file).unwrap().summary.entries, 2);
}

#[tokio::test]
async fn a_store_with_contents_is_not_filled() {
    let dir = TempDir::new().unwrap();
    let store = filled(dir.path()).await;
    let (pages, mut received) = mpsc::channel(1);
    drop(pages);
    let error = transfer::fill(&store, &mut received).await.unwrap_err();
    assert!(
        matches!(error, StoreError::NotEmpty { entries, .. } if entries == ENTRIES as u64 - 1),
        "{error}"
    );
}
