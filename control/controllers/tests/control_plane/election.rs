//! Of several candidates one acts at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fairlead_controllers::{ControllersConfig, Election, Times};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::support::{ControlPlane, eventually};

const LEASE: &str = "some-component";

/// Candidates say when they begin to act, and count how many do.
#[derive(Clone)]
struct Stage {
    acting: Arc<AtomicUsize>,
    begins: mpsc::UnboundedSender<&'static str>,
}

struct Candidate {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Stage {
    fn enter(&self, plane: &ControlPlane, name: &'static str) -> Candidate {
        self.enter_as(plane.client.clone(), name)
    }

    fn enter_as(&self, client: Client, name: &'static str) -> Candidate {
        let millis = Duration::from_millis;
        let times = Times { lease: millis(1_000), renew_within: millis(600), every: millis(50) };
        let election = Election::new(client, LEASE, name.to_owned(), times);
        let (stop, stage) = (CancellationToken::new(), self.clone());
        let act = move |stop: CancellationToken| {
            let stage = stage.clone();
            async move {
                assert_eq!(stage.acting.fetch_add(1, Ordering::SeqCst), 0, "two act at a time");
                let leaves = Leaves(stage.acting.clone());
                stage.begins.send(name).expect("the test listens");
                stop.cancelled().await;
                drop(leaves);
            }
        };
        let running = tokio::spawn(election.run(stop.clone(), act));
        Candidate { stop, running }
    }
}

/// Whoever is killed acts no longer, too.
struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_candidate_acts_and_the_next_one_when_it_stops_dies_or_loses_the_lease() {
    let plane = ControlPlane::start(0, ControllersConfig::default()).await;
    let (begins, mut begun) = mpsc::unbounded_channel();
    let stage = Stage { acting: Arc::default(), begins };
    let first = stage.enter(&plane, "first");
    assert_eq!(begun.recv().await, Some("first"));
    let second = stage.enter(&plane, "second");
    let leases = plane.api::<Lease>("kube-system");
    let renewal = async |since: Option<String>| {
        eventually("a renewal", async || {
            let version = leases.get(LEASE).await.expect("there").metadata.resource_version;
            (version != since).then_some(version)
        })
        .await
    };
    // It is renewed, and nobody else acts.
    let once = renewal(None).await;
    renewal(once).await;
    assert!(begun.try_recv().is_err());

    // An orderly end lets the next one begin.
    first.stop.cancel();
    first.running.await.expect("it ends");
    assert_eq!(begun.recv().await, Some("second"));

    // One that is killed is followed when its lease is over.
    let third = stage.enter(&plane, "third");
    second.running.abort();
    assert!(second.running.await.expect_err("killed").is_cancelled());
    assert_eq!(begun.recv().await, Some("third"));

    // Whoever finds the lease in other hands stops.
    let stolen = json!({ "spec": { "holderIdentity": "thief" } });
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(stolen)).await.expect("patched");
    eventually("nobody acts", async || (stage.acting.load(Ordering::SeqCst) == 0).then_some(())).await;
    // The thief does not renew it.
    assert_eq!(begun.recv().await, Some("third"));
    let transitions = leases.get(LEASE).await.expect("there").spec.expect("a spec").lease_transitions;
    assert_eq!(transitions, Some(3));
    third.stop.cancel();
    third.running.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_cannot_act_does_not_keep_the_lease_for_nothing() {
    let plane = ControlPlane::start(0, ControllersConfig::default()).await;
    let election = Election::new(plane.client.clone(), LEASE, "only".to_owned(), Times::default());
    election.run(CancellationToken::new(), |_| async { panic!("a bug") }).await;
}

/// A client whose way to the server can be cut: its requests are then neither answered nor refused.
fn cuttable(client: &Client) -> (Client, watch::Sender<bool>) {
    let (cut, is_cut) = watch::channel(false);
    let client = client.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, mut is_cut) = (client.clone(), is_cut.clone());
        async move {
            is_cut.wait_for(|is_cut| !is_cut).await.expect("the test goes on");
            client.send(request).await
        }
    });
    (Client::new(service, "default"), cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_renew_stops_before_the_next_one_begins() {
    let plane = ControlPlane::start(0, ControllersConfig::default()).await;
    let (begins, mut begun) = mpsc::unbounded_channel();
    let stage = Stage { acting: Arc::default(), begins };
    let (client, cut) = cuttable(&plane.client);
    let first = stage.enter_as(client, "first");
    assert_eq!(begun.recv().await, Some("first"));
    let second = stage.enter(&plane, "second");
    cut.send_replace(true);
    // That two never act at a time, the stage checks.
    assert_eq!(begun.recv().await, Some("second"));
    // Back again, the first one waits for its turn.
    cut.send_replace(false);
    second.stop.cancel();
    second.running.await.expect("it ends");
    assert_eq!(begun.recv().await, Some("first"));
    first.stop.cancel();
    first.running.await.expect("it ends");
}
