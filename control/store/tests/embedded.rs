//! The contract of all stores, on the embedded one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite {
    pub(crate) mod contract;
    pub(crate) mod model;
}

use std::sync::Arc;

use fairlead_store::{EmbeddedConfig, EmbeddedStore, Store};
use proptest::prelude::*;
use suite::{contract, model};
use tempfile::TempDir;

fn open() -> (Arc<dyn Store>, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(&EmbeddedConfig::new(dir.path())).unwrap();
    (Arc::new(store), dir)
}

#[tokio::test]
async fn the_contract_holds() {
    contract::check(async || open()).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_history_agrees_with_the_model(steps in prop::collection::vec(model::step(), 1..40)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (store, _dir) = open();
        runtime.block_on(model::check(&*store, steps));
    }
}
