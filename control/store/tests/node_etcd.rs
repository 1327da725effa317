//! The contract of all stores, on etcd; and what only a cluster can do: lose members.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite {
    pub(crate) mod contract;
    pub(crate) mod members;
    pub(crate) mod model;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_store::{EtcdConfig, EtcdStore, EtcdTls, ListRequest, Revision, Store, StoreError, Watch};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use suite::members::{Members, Tls};
use suite::{contract, model};
use tokio::task::JoinSet;

/// More than an election takes, and an answer that etcd gives up on.
const PATIENCE: Duration = Duration::from_secs(30);

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    let members = Members::start(1);
    let count = AtomicUsize::new(0);
    contract::check(async || {
        let name = format!("contract-{}", count.fetch_add(1, Ordering::Relaxed));
        (Arc::new(members.store(&name).await) as Arc<dyn Store>, ())
    })
    .await;
}

#[test]
fn every_history_agrees_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let members = Members::start(1);
    let count = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(model::step(), 1..25);
    let outcome = runner.run(&steps, |steps| {
        let name = format!("model-{}", count.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(async {
            let store = members.store(&name).await;
            model::check(&store, steps).await;
        });
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_connected_later_serves_watches_from_before() {
    let members = Members::start(1);
    let first = members.store("late").await;
    let empty = first.revision().await.unwrap();
    let created = first.create("/a", Bytes::from_static(b"1")).await.unwrap();
    let deleted = first.delete("/a", None).await.unwrap();
    let second = members.store("late").await;
    let mut watch = second.watch("/", empty).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, created);
    assert_eq!(watch.next().await.unwrap().revision, deleted);
    // Its history ends where etcd's does.
    first.compact(created).await.unwrap();
    let third = members.store("late").await;
    let error = third.watch("/", empty).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { compacted, .. } if compacted == created), "{error}");
    assert_eq!(third.watch("/", created).await.unwrap().next().await.unwrap().revision, deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_with_one_etcd_agree() {
    const WRITES: usize = 40;
    let members = Members::start(1);
    let stores = [Arc::new(members.store("shared").await), Arc::new(members.store("shared").await)];
    let start = stores[0].create("/counter", Bytes::from("0")).await.unwrap();
    let mut watches = Vec::new();
    for store in &stores {
        watches.push(store.watch("/", start).await.unwrap());
    }
    let mut writers = JoinSet::new();
    for store in stores.iter().cycle().take(4) {
        let store = store.clone();
        writers.spawn(async move {
            let mut done = 0;
            while done < WRITES {
                let entry = store.get("/counter").await.unwrap().unwrap();
                let count: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                match store.update("/counter", (count + 1).to_string().into(), entry.mod_revision).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result.unwrap();
    }
    for watch in &mut watches {
        for count in 1..=4 * WRITES {
            assert_eq!(watch.next().await.unwrap().value, Some(count.to_string().into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_whether_etcd_is_there_and_watches_wait_for_it() {
    let mut members = Members::start(1);
    let store = members.store("health").await;
    let start = store.create("/a", Bytes::new()).await.unwrap();
    let mut watch = store.watch("/", start).await.unwrap();
    assert!(store.health().await.is_ok());
    members.kill(0);
    let error = store.health().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
    let error = store.create("/b", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    members.restart(0);
    eventually("health", || async { store.health().await.is_ok() }).await;
    let created = store.create("/c", Bytes::new()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, created);
}

/// Writers that note what was acknowledged; and watches, one per store, that must never end.
struct Load {
    running: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<String, Revision>>>,
    writers: JoinSet<()>,
    watches: Vec<Watch>,
}

impl Load {
    async fn start(stores: &[Arc<EtcdStore>], start: Revision) -> Self {
        let (running, acknowledged) =
            (Arc::new(AtomicBool::new(true)), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let (mut writers, mut watches) = (JoinSet::new(), Vec::new());
        for (writer, store) in stores.iter().cycle().take(4).cloned().enumerate() {
            let (running, acknowledged) = (running.clone(), acknowledged.clone());
            writers.spawn(async move {
                for n in 0.. {
                    if !running.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("/load/{writer}/{n}");
                    match store.create(&key, Bytes::from(key.clone())).await {
                        Ok(revision) => drop(acknowledged.lock().unwrap().insert(key, revision)),
                        Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    }
                }
            });
        }
        for store in stores {
            watches.push(store.watch("/load/", start).await.unwrap());
        }
        Self { running, acknowledged, writers, watches }
    }

    /// Waits for so many more acknowledged writes.
    async fn goes_on(&self, writes: usize) {
        let count = || self.acknowledged.lock().unwrap().len();
        let target = count() + writes;
        eventually("writes go on", || async { count() >= target }).await;
    }

    async fn stop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        while let Some(result) = self.writers.join_next().await {
            result.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_members_die() {
    let mut members = Members::start(3);
    let stores =
        [Arc::new(members.connect_roomy("load").await), Arc::new(members.connect_roomy("load").await)];
    let start = stores[0].revision().await.unwrap();
    let mut load = Load::start(&stores, start).await;
    load.goes_on(100).await;

    let follower = (members.leader().await + 1) % 3;
    members.kill(follower);
    load.goes_on(100).await;
    members.restart(follower);
    load.goes_on(100).await;
    let leader = members.leader().await;
    members.kill(leader);
    load.goes_on(100).await;
    members.restart(leader);
    load.goes_on(100).await;
    load.stop().await;

    let listing = stores[0].list(ListRequest::prefix("/load/")).await.unwrap();
    let stored: BTreeMap<_, _> =
        listing.entries.iter().map(|entry| (entry.key.clone(), entry.mod_revision)).collect();
    for (key, revision) in load.acknowledged.lock().unwrap().iter() {
        assert_eq!(stored.get(key), Some(revision), "{key} was acknowledged");
    }
    let mut expected: Vec<_> = stored.into_iter().map(|(key, revision)| (revision, key)).collect();
    expected.sort();
    for watch in &mut load.watches {
        for (revision, key) in &expected {
            let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
            assert_eq!((event.revision, &event.key), (*revision, key));
        }
        assert!(watch.try_next().unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_healthy_and_with_one_again_it_is() {
    let mut members = Members::start(3);
    let store = members.store("majority").await;
    let leader = members.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|n| members.kill(*n));
    eventually("unhealthy", || async { store.health().await.is_err() }).await;
    others.iter().for_each(|n| members.restart(*n));
    eventually("healthy", || async { store.health().await.is_ok() }).await;
    eventually("writes", || async { store.create("/a", Bytes::new()).await.is_ok() }).await;
}

fn make_certificates(dir: &Path) -> Tls {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let [ca, cert, key] = ["ca.crt", "etcd.crt", "etcd.key"].map(|name| dir.join(name));
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(&ca, params.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&cert, leaf.signed_by(&leaf_key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&key, leaf_key.serialize_pem()).unwrap();
    Tls { ca, cert, key }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_go_both_ways() {
    let members = Members::start_with(1, |dir| Some(make_certificates(dir)));
    let path = |name: &str| Some(members.dir.path().join(name));
    let tls = EtcdTls { ca_file: path("ca.crt"), cert_file: path("etcd.crt"), key_file: path("etcd.key") };
    let config = EtcdConfig { tls, ..members.config("tls") };
    let store = EtcdStore::connect(&config).await.unwrap();
    store.create("/a", Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(store.list(ListRequest::prefix("/")).await.unwrap().entries.len(), 1);

    let tls = EtcdTls { ca_file: path("ca.crt"), ..EtcdTls::default() };
    let strange = EtcdConfig { tls, connect_patience: Duration::ZERO, ..members.config("tls") };
    let error = EtcdStore::connect(&strange).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot connect"), "{error}");
    let half = EtcdTls { cert_file: path("etcd.crt"), ..EtcdTls::default() };
    let error = EtcdStore::connect(&EtcdConfig { tls: half, ..members.config("tls") }).await.unwrap_err();
    assert!(error.to_string().contains("only of use together"), "{error}");
}
