//! What becomes of a request that is under way when the server stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fairlead_store::{EmbeddedStore, Revision, Store, StoreError, Write};
use http::StatusCode;
use kube::config::Kubeconfig;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::http::{config_map, over_tls, post};
use crate::meddled::Meddler;

/// The next write waits until it is let through.
#[derive(Debug, Default)]
struct Gate {
    is_shut: AtomicBool,
    reached: Notify,
    opened: Notify,
}

#[async_trait]
impl Meddler for Gate {
    async fn transact(&self, store: &EmbeddedStore, writes: Vec<Write>) -> Result<Revision, StoreError> {
        if self.is_shut.swap(false, Ordering::SeqCst) {
            self.reached.notify_one();
            self.opened.notified().await;
        }
        store.transact(writes).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_under_way_is_finished_and_answered() {
    let (server, gate) = Gate::default().serve().await;
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let url = kubeconfig.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
    let address = url.strip_prefix("https://").unwrap().to_owned();
    let client = over_tls(&server, true).await;
    gate.by.is_shut.store(true, Ordering::SeqCst);
    let creating = tokio::spawn(async move {
        post(&client, "/api/v1/namespaces/default/configmaps", config_map("slow")).await.status()
    });
    gate.by.reached.notified().await;
    let stopping = tokio::spawn(server.stop());
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(&address).await.is_ok() {
        assert!(Instant::now() < deadline, "the server takes connections when it stops");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gate.by.opened.notify_one();
    assert_eq!(creating.await.unwrap(), StatusCode::CREATED);
    stopping.await.unwrap();
    assert!(gate.get("/registry/configmaps/default/slow").await.unwrap().is_some());
}
