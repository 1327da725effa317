//! What is particular to the embedded store: its directory, its limits.

use bytes::Bytes;
use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir) -> EmbeddedStore {
    EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).expect("the store opens")
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
