//! The embedded store on a disk that fills up: a small tmpfs of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_store::{Durability, EmbeddedConfig, EmbeddedStore, ListRequest, Revision, Store, StoreError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use tokio::task::JoinSet;

const DISK_BYTES: usize = 48 << 20;
const BALLAST_BYTES: usize = 16 << 20;
const VALUE_LEN: usize = 16 << 10;

/// A tmpfs with a file that can be removed to make space.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = TempDir::with_prefix("fairlead-store-disk-").unwrap();
        let options = format!("size={DISK_BYTES}");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some(options.as_str()))
            .expect("root can mount");
        let disk = Self { dir };
        std::fs::write(disk.ballast(), vec![0; BALLAST_BYTES]).unwrap();
        disk
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    fn make_space(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn open(&self, space_reserved_bytes: u64) -> Arc<EmbeddedStore> {
        self.open_with(space_reserved_bytes, Durability::Synced)
    }

    fn open_with(&self, space_reserved_bytes: u64, durability: Durability) -> Arc<EmbeddedStore> {
        let config = EmbeddedConfig {
            space_reserved_bytes,
            durability,
            watch_queue_len_max: 1 << 16,
            ..EmbeddedConfig::new(self.dir.path().join("store"))
        };
        Arc::new(EmbeddedStore::open(&config).unwrap())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

/// Four writers that create until each is refused; what was acknowledged, and a refusal.
async fn fill(store: &Arc<EmbeddedStore>, round: usize) -> (BTreeMap<String, Revision>, StoreError) {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let key = format!("/{round}/{writer}/{n}");
                match store.create(&key, value(&key)).await {
                    Ok(revision) => acknowledged.push((key, revision)),
                    Err(error) => return (acknowledged, error),
                }
            }
            unreachable!("a disk is finite")
        });
    }
    let mut all = BTreeMap::new();
    let mut refusal = StoreError::Closed;
    while let Some(result) = writers.join_next().await {
        let (acknowledged, error) = result.unwrap();
        all.extend(acknowledged);
        refusal = error;
    }
    (all, refusal)
}

/// A value that shows whether it is whole.
fn value(key: &str) -> Bytes {
    key.bytes().cycle().take(VALUE_LEN).collect()
}

/// Writes when that is possible again.
async fn create_again(store: &EmbeddedStore) -> Revision {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match store.create("/again", value("/again")).await {
            Ok(revision) => return revision,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything acknowledged is there, and everything that is there is whole.
async fn check(store: &EmbeddedStore, acknowledged: &BTreeMap<String, Revision>) -> Vec<(Revision, String)> {
    let listing = store.list(ListRequest::prefix("/")).await.unwrap();
    for entry in &listing.entries {
        assert_eq!(entry.value, value(&entry.key), "{} is not whole", entry.key);
    }
    let stored: BTreeMap<_, _> =
        listing.entries.iter().map(|entry| (&entry.key, entry.mod_revision)).collect();
    for (key, revision) in acknowledged {
        assert_eq!(stored.get(key), Some(revision), "{key} was acknowledged");
    }
    let mut order: Vec<_> = stored.into_iter().map(|(key, revision)| (revision, key.clone())).collect();
    order.sort();
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_stops_before_the_disk_is_full_and_goes_on_with_more_space() {
    let disk = Disk::new();
    let store = disk.open(8 << 20);
    let (mut acknowledged, refusal) = fill(&store, 0).await;
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let said = refusal.to_string();
    assert!(
        said.contains("accepts no writes: the file system of") && said.contains("free some space"),
        "{said}"
    );
    assert!(matches!(store.health().await, Err(StoreError::Full { .. })));
    // Reads and deletions are served.
    check(&store, &acknowledged).await;
    let (key, _) = acknowledged.pop_first().unwrap();
    store.delete(&key, None).await.unwrap();
    disk.make_space();
    store.health().await.unwrap();
    acknowledged.insert("/again".to_owned(), store.create("/again", value("/again")).await.unwrap());
    check(&store, &acknowledged).await;
    drop(store);
    check(&disk.open(0), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_in_the_middle_of_a_commit_loses_nothing_acknowledged() {
    let disk = Disk::new();
    // Nothing is kept free, so that the database itself meets the end of the disk.
    let store = disk.open(0);
    let mut watch = store.watch("/", 0).await.unwrap();
    let (mut acknowledged, refusal) = fill(&store, 0).await;
    assert!(matches!(refusal, StoreError::Full { .. }), "{refusal:?}");
    disk.make_space();
    acknowledged.insert("/again".to_owned(), create_again(&store).await);
    let order = check(&store, &acknowledged).await;
    for (revision, key) in order {
        let event = watch.next().await.unwrap();
        assert_eq!((event.revision, &event.key), (revision, &key));
    }
    assert!(watch.try_next().unwrap().is_none());
    let (more, _) = fill(&store, 1).await;
    acknowledged.extend(more);
    drop(store);
    check(&disk.open(0), &acknowledged).await;
}

/// The database is opened again as it was synced last, and clients have seen what came after that.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_where_commits_are_deferred_loses_an_end_and_everybody_is_told() {
    let disk = Disk::new();
    let store = disk.open_with(0, Durability::Deferred { interval: Duration::from_millis(50) });
    let mut watch = store.watch("/", 0).await.unwrap();
    let (mut acknowledged, refusal) = fill(&store, 0).await;
    assert!(matches!(refusal, StoreError::Full { .. }), "{refusal:?}");
    let (last, synced) = (acknowledged.values().copied().max().unwrap(), store.synced());
    assert!(synced > 0);
    disk.make_space();
    let again = create_again(&store).await;
    assert!(again > last);
    assert!(matches!(store.watch("/", last).await, Err(StoreError::Compacted { .. })));
    let mut seen = 0;
    let end = loop {
        match watch.next().await {
            Ok(event) => seen = event.revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(end, StoreError::WatchTooSlow) && seen == last, "{end:?} {seen} {last}");
    acknowledged.retain(|_, revision| *revision <= synced);
    acknowledged.insert("/again".to_owned(), again);
    check(&store, &acknowledged).await;
    // What the store says without reading is of the state that it went back to.
    let listing = store.list(ListRequest { limit: Some(1), ..ListRequest::prefix("/0/") }).await.unwrap();
    let all = store.list(ListRequest::prefix("/0/")).await.unwrap();
    assert_eq!(listing.remaining + 1, all.entries.len());
    drop(store);
    check(&disk.open(0), &acknowledged).await;
}
