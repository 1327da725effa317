//! The contract of all stores, on the embedded one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite {
    pub(crate) mod contract;
    pub(crate) mod model;
}

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_store::{Durability, EmbeddedConfig, EmbeddedStore, ListRequest, Store};
use proptest::prelude::*;
use suite::{contract, model};
use tempfile::TempDir;

/// Every commit is synced, none is, and as many as come.
const LEVELS: [Durability; 3] = [
    Durability::Synced,
    Durability::Deferred { interval: Duration::from_secs(3_600) },
    Durability::Deferred { interval: Duration::ZERO },
];

fn open(durability: Durability) -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().unwrap();
    let config = EmbeddedConfig { durability, ..EmbeddedConfig::new(dir.path()) };
    (Arc::new(EmbeddedStore::open(&config).unwrap()), dir)
}

#[tokio::test]
async fn the_contract_holds() {
    for durability in LEVELS {
        contract::check(async || open(durability)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_model(
        steps in prop::collection::vec(model::step(), 1..40),
        level in 0..LEVELS.len(),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (store, _dir) = open(LEVELS[level]);
        runtime.block_on(model::check(&*store, steps));
    }
}

#[tokio::test]
async fn what_follows_a_page_is_counted_in_its_own_state() {
    let dir = tempfile::TempDir::new().unwrap();
    let store = EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).unwrap();
    for key in ["/a/1", "/a/2", "/a/3", "/a/4", "/b/1"] {
        store.create(key, Bytes::from_static(b"v")).await.unwrap();
    }
    let remaining = async |at| {
        let request = ListRequest { limit: Some(1), at, ..ListRequest::prefix("/a/") };
        store.list(request).await.unwrap().remaining
    };
    assert_eq!(remaining(None).await, 3);
    store.delete("/a/3", None).await.unwrap();
    store.create("/a/5", Bytes::from_static(b"v")).await.unwrap();
    store.delete("/a/4", None).await.unwrap();
    assert_eq!([remaining(Some(5)).await, remaining(Some(6)).await, remaining(None).await], [3, 2, 2]);
    let nothing = store.list(ListRequest::prefix("/c/")).await.unwrap();
    assert_eq!((nothing.entries.len(), nothing.revision), (0, 8));
    drop(store);
    // The keys are known again after a restart.
    let store = EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).unwrap();
    let request = ListRequest { limit: Some(1), ..ListRequest::prefix("/a/") };
    assert_eq!(store.list(request).await.unwrap().remaining, 2);
    store.delete("/b/1", None).await.unwrap();
    assert_eq!(store.list(ListRequest::prefix("/b/")).await.unwrap().revision, 9);
}
