//! Evictions that somebody comes in between of: a store that does something at a chosen moment.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use fairlead_store::{EmbeddedStore, ListRequest, Listing, Revision, Store, StoreError, Write};
use http::StatusCode;
use serde_json::{Value, json};

use crate::http::{get, post, value};
use crate::meddled::Meddler;

const PODS: &str = "/api/v1/namespaces/default/pods";
const POD_KEY: &str = "/registry/pods/default/a";
const BUDGETS_KEY: &str = "/registry/poddisruptionbudgets/default/";

/// When somebody comes in between.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The budgets are about to be read.
    BeforeTheBudgetIsRead,
    /// The pod is counted in its budget.
    AfterThePodIsCounted,
}

/// What becomes of the pod then.
type Change = fn(&mut Value);

/// The pod changes at a moment, once.
#[derive(Debug)]
struct Meddling {
    moment: Moment,
    armed: AtomicBool,
    change: Change,
}

impl Meddling {
    async fn at(&self, moment: Moment, store: &EmbeddedStore) {
        if moment == self.moment && self.armed.swap(false, Ordering::SeqCst) {
            let entry = store.get(POD_KEY).await.unwrap().unwrap();
            let mut pod: Value = serde_json::from_slice(&entry.value).unwrap();
            (self.change)(&mut pod);
            store.update(POD_KEY, Bytes::from(pod.to_string()), entry.mod_revision).await.unwrap();
        }
    }
}

#[async_trait]
impl Meddler for Meddling {
    async fn transact(&self, store: &EmbeddedStore, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let counts = writes.iter().any(|write| write.key().starts_with(BUDGETS_KEY));
        let outcome = store.transact(writes).await;
        if counts {
            self.at(Moment::AfterThePodIsCounted, store).await;
        }
        outcome
    }

    async fn list(&self, store: &EmbeddedStore, request: ListRequest) -> Result<Listing, StoreError> {
        if request.prefix == BUDGETS_KEY {
            self.at(Moment::BeforeTheBudgetIsRead, store).await;
        }
        store.list(request).await
    }
}

fn become_ready(pod: &mut Value) {
    pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
}

fn become_another(pod: &mut Value) {
    pod["metadata"]["uid"] = json!("another");
}

fn be_labelled(pod: &mut Value) {
    pod["metadata"]["labels"]["seen"] = json!("yes");
}

/// Evicts a running pod, Ready or not, with a budget that allows so many; returns the code and whether the pod is there.
async fn evict(ready: &str, allowed: i64, moment: Moment, change: Change) -> (StatusCode, bool) {
    let meddling = Meddling { moment, armed: AtomicBool::new(false), change };
    let (server, store) = meddling.serve().await;
    let client = server.client();
    let labels = json!({ "app": "a" });
    let containers = json!([{ "name": "c", "image": "i" }]);
    let metadata = json!({ "name": "a", "labels": labels });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": containers },
    });
    assert_eq!(post(&client, PODS, pod).await.status(), StatusCode::CREATED);
    let entry = store.get(POD_KEY).await.unwrap().unwrap();
    let mut pod: Value = serde_json::from_slice(&entry.value).unwrap();
    pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] });
    store.update(POD_KEY, Bytes::from(pod.to_string()), entry.mod_revision).await.unwrap();
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b", "generation": 1 },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": labels } },
        "status": { "observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 1,
                    "currentHealthy": 1, "expectedPods": 2 },
    });
    store.create(&format!("{BUDGETS_KEY}b"), Bytes::from(budget.to_string())).await.unwrap();
    store.by.armed.store(true, Ordering::SeqCst);
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "a" } });
    let response = post(&client, &format!("{PODS}/a/eviction"), eviction).await;
    let code = response.status();
    value(response).await;
    assert!(!store.by.armed.load(Ordering::SeqCst), "{moment:?} never came");
    let is_there = get(&client, &format!("{PODS}/a"), "*/*").await.status() == StatusCode::OK;
    server.stop().await;
    (code, is_there)
}

/// Whether it is Ready, how many may go, when and what happens, what is answered, and whether the pod stays.
type Row = (&'static str, i64, Moment, Change, StatusCode, bool);

#[tokio::test]
async fn what_is_evicted_is_what_the_budget_was_asked_about() {
    use Moment::{AfterThePodIsCounted, BeforeTheBudgetIsRead};
    let rows: [Row; 5] = [
        // Judged to be of no use, and then it is: it must be counted, and there is no room.
        ("False", 0, BeforeTheBudgetIsRead, become_ready, StatusCode::TOO_MANY_REQUESTS, true),
        ("False", 1, BeforeTheBudgetIsRead, become_ready, StatusCode::CREATED, false),
        ("False", 0, BeforeTheBudgetIsRead, be_labelled, StatusCode::CREATED, false),
        // Counted, and then there is another pod of its name, which nobody was asked about.
        ("True", 1, AfterThePodIsCounted, become_another, StatusCode::CONFLICT, true),
        ("True", 1, AfterThePodIsCounted, be_labelled, StatusCode::CREATED, false),
    ];
    for (index, (ready, allowed, moment, change, code, is_there)) in rows.into_iter().enumerate() {
        assert_eq!(evict(ready, allowed, moment, change).await, (code, is_there), "row {index}");
    }
}
