//! `/healthz` and `/livez`, as load balancers and probes ask kube-proxy.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
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
    answer(&reporter, is_alive(&reporter) && eligible, eligible)
}

/// The same without regard to the node.
async fn livez(State(reporter): State<Arc<Reporter>>) -> Response {
    answer(&reporter, is_alive(&reporter), true)
}

fn is_alive(reporter: &Reporter) -> bool {
    let pending = reporter.stats.read().pending_since;
    *reporter.ready.borrow() && pending.is_none_or(|since| since.elapsed() < PENDING_MAX)
}

/// The fields are kube-proxy's (`pkg/proxy/healthcheck/proxy_health.go`).
fn answer(reporter: &Reporter, healthy: bool, node_eligible: bool) -> Response {
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let now = Timestamp::now();
    let last = reporter.stats.read().last_success;
    let last = last.and_then(|last| now.checked_sub(SignedDuration::try_from(last.elapsed()).ok()?).ok());
    let body = json!({
        "lastUpdated": last.unwrap_or_default().to_string(),
        "currentTime": now.to_string(),
        "nodeEligible": node_eligible,
    });
    (status, Json(body)).into_response()
}
