//! What becomes of a request that is under way when the server stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fairlead_store::{
    EmbeddedConfig, EmbeddedStore, Entry, ListRequest, Listing, Revision, Store, StoreError, Watch, Write,
};
use http::StatusCode;
use kube::config::Kubeconfig;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::http::{config_map, over_tls, post};
use crate::support::Server;

/// A store whose next write waits until it is let through.
#[derive(Debug)]
struct Gate {
    store: EmbeddedStore,
    is_shut: AtomicBool,
    reached: Notify,
    opened: Notify,
}

#[async_trait]
impl Store for Gate {
    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        if self.is_shut.swap(false, Ordering::SeqCst) {
            self.reached.notify_one();
            self.opened.notified().await;
        }
        self.store.transact(writes).await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<Listing, StoreError> {
        self.store.list(request).await
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

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_under_way_is_finished_and_answered() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(&EmbeddedConfig::new(dir.path().join("store"))).unwrap();
    let (reached, opened) = (Notify::new(), Notify::new());
    let gate = Arc::new(Gate { store, is_shut: AtomicBool::new(false), reached, opened });
    let server = Server::start_on(dir, gate.clone()).await;
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let url = kubeconfig.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
    let address = url.strip_prefix("https://").unwrap().to_owned();
    let client = over_tls(&server, true).await;
    gate.is_shut.store(true, Ordering::SeqCst);
    let creating = tokio::spawn(async move {
        post(&client, "/api/v1/namespaces/default/configmaps", config_map("slow")).await.status()
    });
    gate.reached.notified().await;
    let stopping = tokio::spawn(server.stop());
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(&address).await.is_ok() {
        assert!(Instant::now() < deadline, "the server takes connections when it stops");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gate.opened.notify_one();
    assert_eq!(creating.await.unwrap(), StatusCode::CREATED);
    stopping.await.unwrap();
    assert!(gate.get("/registry/configmaps/default/slow").await.unwrap().is_some());
}
