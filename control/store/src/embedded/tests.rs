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
    assert!(matches!(error, StoreError::NewerLayout { found: 4, supported: 3, .. }), "{error}");
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

/// However often leases are renewed, a watch of anything else is resumed, and one of leases lists anew.
#[tokio::test]
async fn leases_push_nothing_else_out_of_the_history() {
    let dir = TempDir::new().unwrap();
    let few = Retention { revisions_min: 10, revisions_max: 50, age: Duration::MAX };
    let config = EmbeddedConfig { retention: few, brief_retention: few, ..EmbeddedConfig::new(dir.path()) };
    let store = Arc::new(EmbeddedStore::open(&config).unwrap());
    let first = store.create("/registry/pods/a/b", Bytes::new()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1_100 {
        let store = store.clone();
        tasks.spawn(async move { store.create(&format!("/registry/leases/a/{n}"), Bytes::new()).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    let last = store.update("/registry/pods/a/b", Bytes::from_static(b"x"), first).await.unwrap();
    let mut pods = store.watch("/registry/pods/", 0).await.unwrap();
    assert_eq!(pods.next().await.unwrap().revision, first);
    assert_eq!(pods.next().await.unwrap().revision, last);
    assert!(matches!(store.watch("/registry/leases/", first).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.watch("/registry/", first).await, Err(StoreError::Compacted { .. })));
    let mut both = store.watch("/registry/", last - 3).await.unwrap();
    for revision in last - 2..=last {
        assert_eq!(both.next().await.unwrap().revision, revision);
    }
}

/// The first layout had one partition, and neither it nor the second a ceiling.
#[tokio::test]
async fn the_former_layout_is_read_and_brief_history_begins_anew() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let first = store.create("/registry/leases/a/b", Bytes::new()).await.unwrap();
    let second = store.create("/registry/pods/a/b", Bytes::new()).await.unwrap();
    drop(store);
    let database = Database::create(dir.path().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(schema::LOG_BRIEF).unwrap();
    let mut meta = transaction.open_table(schema::META).unwrap();
    meta.insert(schema::META_LAYOUT, 1).unwrap();
    meta.remove(schema::META_COMPACTED_BRIEF).unwrap();
    meta.remove(schema::META_CEILING).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let store = open(&dir);
    assert!(store.get("/registry/leases/a/b").await.unwrap().is_some());
    assert!(matches!(store.watch("/registry/leases/", first).await, Err(StoreError::Compacted { .. })));
    assert!(store.watch("/registry/leases/", second).await.is_ok());
    assert_eq!(store.watch("/registry/pods/", first).await.unwrap().next().await.unwrap().revision, second);
}
