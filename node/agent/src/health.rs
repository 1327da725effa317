//! `/healthz` and `/livez`, as load balancers and probes ask kube-proxy.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::watch;

use crate::{cluster::Cluster, stats::Stats};

/// How long an update may wait to be applied; twice kube-proxy's sync period.
const PENDING_MAX: Duration = Duration::from_secs(60);

/// What is known about the health of the node's proxy.
pub(crate) struct Health {
    node: String,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) stats: Arc<Stats>,
    /// A complete view of the cluster has been applied.
    ready: watch::Receiver<bool>,
    pub(crate) healthz: Answers,
    pub(crate) livez: Answers,
}

/// How often each HTTP status was the answer.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<BTreeMap<u16, u64>>);

impl Answers {
    pub(crate) fn read(&self) -> BTreeMap<u16, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, status: StatusCode) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(status.as_u16()).or_default() += 1;
    }
}

impl Health {
    pub(crate) fn new(
        node: String,
        cluster: Arc<Cluster>,
        stats: Arc<Stats>,
        ready: watch::Receiver<bool>,
    ) -> Self {
        let (healthz, livez) = (Answers::default(), Answers::default());
        Self { node, cluster, stats, ready, healthz, livez }
    }

    /// A complete view was applied, and nothing waits too long.
    pub(crate) fn is_alive(&self) -> bool {
        let pending = self.stats.peek(|stats| stats.pending_since);
        *self.ready.borrow() && pending.is_none_or(|since| since.elapsed() < PENDING_MAX)
    }

    /// Load balancers may send to the node: it exists and nobody is about to take it away.
    fn is_eligible(&self) -> bool {
        self.cluster.node(&self.node).is_some_and(|node| !node.leaving)
    }

    /// The fields are kube-proxy's (`pkg/proxy/healthcheck/proxy_health.go`); what is healthy is as good as updated now.
    fn answer(&self, healthy: bool, node_eligible: bool) -> (StatusCode, serde_json::Value) {
        let now = Timestamp::now();
        let last = self.stats.peek(|stats| stats.last_success);
        let last = last.and_then(|last| now.checked_sub(SignedDuration::try_from(last.elapsed()).ok()?).ok());
        let updated = if healthy { now } else { last.unwrap_or_default() };
        let body = json!({
            "lastUpdated": updated.to_string(),
            "currentTime": now.to_string(),
            "nodeEligible": node_eligible,
        });
        (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
    }
}

/// Routes of the health endpoint.
pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(health)
}

/// Whether load balancers should send to this node.
async fn healthz(State(health): State<Arc<Health>>) -> Response {
    let eligible = health.is_eligible();
    let answer = health.answer(health.is_alive() && eligible, eligible);
    health.healthz.count(answer.0);
    respond(answer)
}

/// Whether the proxy works; a node that is about to go need not be restarted.
async fn livez(State(health): State<Arc<Health>>) -> Response {
    let answer = health.answer(health.is_alive(), health.is_eligible());
    health.livez.count(answer.0);
    respond(answer)
}

fn respond((status, body): (StatusCode, serde_json::Value)) -> Response {
    (status, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fairlead_model::{Change, Node, Revision, Update};

    use super::*;

    /// Status of `/healthz` and `/livez` of a node in a state.
    async fn ask(ready: bool, node: Option<bool>, pending: Option<Duration>) -> (u16, u16) {
        let cluster = Arc::new(Cluster::default());
        let changes =
            node.map(|leaving| Change::PutNode(Node { name: "n".into(), leaving, ..Node::default() }));
        let revision = Revision { epoch: 1, sequence: 1 };
        cluster.apply(Update { revision, snapshot: true, changes: changes.into_iter().collect() }, "n");
        let stats = Arc::new(Stats::default());
        stats.update(|stats| stats.pending_since = pending.map(|ago| Instant::now() - ago));
        let (_sender, ready) = watch::channel(ready);
        let health = Arc::new(Health::new("n".into(), cluster, stats, ready));
        let healthz = healthz(State(Arc::clone(&health))).await.status().as_u16();
        let livez = livez(State(Arc::clone(&health))).await.status().as_u16();
        assert_eq!(health.healthz.read(), BTreeMap::from([(healthz, 1)]));
        assert_eq!(health.livez.read(), BTreeMap::from([(livez, 1)]));
        (healthz, livez)
    }

    #[tokio::test]
    async fn a_node_that_leaves_is_alive_but_not_for_load_balancers() {
        let (soon, late) = (Some(Duration::from_secs(1)), Some(PENDING_MAX));
        for (what, ready, node, pending, wanted) in [
            ("all is well", true, Some(false), None, (200, 200)),
            ("an update waits", true, Some(false), soon, (200, 200)),
            ("an update waits too long", true, Some(false), late, (503, 503)),
            ("the node is leaving", true, Some(true), None, (503, 200)),
            ("the node is deleted", true, None, None, (503, 200)),
            ("nothing was applied yet", false, Some(false), None, (503, 503)),
        ] {
            assert_eq!(ask(ready, node, pending).await, wanted, "{what}");
        }
    }
}
