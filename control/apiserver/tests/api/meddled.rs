//! A store in which a test has a hand.

use std::sync::Arc;

use async_trait::async_trait;
use fairlead_store::{
    EmbeddedConfig, EmbeddedStore, Entry, ListRequest, Listing, Revision, Store, StoreError, Watch, Write,
};
use tempfile::TempDir;

use crate::support::Server;

/// What is done instead of what the store does.
#[async_trait]
pub(crate) trait Meddler: std::fmt::Debug + Send + Sync + Sized + 'static {
    async fn transact(&self, store: &EmbeddedStore, writes: Vec<Write>) -> Result<Revision, StoreError> {
        store.transact(writes).await
    }

    async fn list(&self, store: &EmbeddedStore, request: ListRequest) -> Result<Listing, StoreError> {
        store.list(request).await
    }

    /// Starts a server on such a store.
    async fn serve(self) -> (Server, Arc<Meddled<Self>>) {
        let dir = TempDir::new().unwrap();
        let store = EmbeddedStore::open(&EmbeddedConfig::new(dir.path().join("store"))).unwrap();
        let meddled = Arc::new(Meddled { store, by: self });
        (Server::start_on(dir, meddled.clone()).await, meddled)
    }
}

#[derive(Debug)]
pub(crate) struct Meddled<M> {
    pub(crate) store: EmbeddedStore,
    pub(crate) by: M,
}

#[async_trait]
impl<M: Meddler> Store for Meddled<M> {
    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        self.by.transact(&self.store, writes).await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<Listing, StoreError> {
        self.by.list(&self.store, request).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        self.store.compact(upto).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }
}
