//! `/healthz` and `/livez`, as load balancers and probes ask kube-proxy.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::report::Reporter;

/// How long an update may wait to be applied; twice kube-proxy's sync period.
const PENDING_MAX: Duration = Duration::from_secs(60);

/// Routes of the health endpoint.
pub(crate) fn router(reporter: Arc<Reporter>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(reporter)
}

/// Healthy: a complete view was applied, nothing waits too long, and the node exists.
pub(crate) async fn healthz(State(reporter): State<Arc<Reporter>>) -> Response {
    let eligible = reporter.cluster.node(&reporter.node).is_some();
    answer(is_alive(&reporter) && eligible, eligible)
}

/// The same without regard to the node.
async fn livez(State(reporter): State<Arc<Reporter>>) -> Response {
    answer(is_alive(&reporter), true)
}

fn is_alive(reporter: &Reporter) -> bool {
    let pending = reporter.stats.read().pending_since;
    *reporter.ready.borrow() && pending.is_none_or(|since| since.elapsed() < PENDING_MAX)
}

fn answer(healthy: bool, node_eligible: bool) -> Response {
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "healthy": healthy, "nodeEligible": node_eligible }))).into_response()
}
