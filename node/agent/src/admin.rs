//! The administration endpoint on a Unix socket: `/status`, `/applied`, `/pods`, `/flows`, `/maps/KIND`, `/explain`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use fairlead_flows::{FlowFilter, Record};
use fairlead_model::Flow;
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;

use crate::{
    inspect::{Kind, Question},
    report::Reporter,
};

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    reporter: Arc<Reporter>,
    shutdown: CancellationToken,
}

/// Query of `/flows`.
#[derive(Debug, Default, Deserialize)]
struct FlowQuery {
    /// Keep the connection open and send what comes.
    #[serde(default)]
    follow: bool,
    /// `NAME` or `NAMESPACE/NAME`.
    pod: Option<String>,
    /// `forwarded` or `denied`.
    verdict: Option<String>,
    /// Not older than this many seconds.
    since: Option<u64>,
}

/// Routes of the administration endpoint.
pub(crate) fn router(reporter: Arc<Reporter>, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/applied", get(applied))
        .route("/pods", get(pods))
        .route("/flows", get(flows))
        .route("/maps/{kind}", get(maps))
        .route("/explain", get(explain))
        .with_state(Admin { reporter, shutdown })
}

async fn status(State(admin): State<Admin>) -> Response {
    json(admin.reporter.status())
}

/// Query of `/applied`.
#[derive(Debug, Default, Deserialize)]
struct AppliedQuery {
    /// Answer when this update has been applied, or a later one; at once without it.
    #[serde(default)]
    sequence: u64,
}

/// What has been applied, without a look at the kernel.
async fn applied(State(admin): State<Admin>, Query(query): Query<AppliedQuery>) -> Response {
    let applied = admin.reporter.health.stats.applied_since(query.sequence);
    match admin.shutdown.run_until_cancelled(applied).await {
        Some(applied) => Json(applied).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent ends\n").into_response(),
    }
}

async fn pods(State(admin): State<Admin>) -> Response {
    json(admin.reporter.pods())
}

/// A map, decoded, with names of services.
async fn maps(State(admin): State<Admin>, Path(kind): Path<Kind>) -> Response {
    json(admin.reporter.inspect(kind))
}

/// Query of `/explain`.
#[derive(Debug, Deserialize)]
struct ExplainQuery {
    /// An address, or `NAMESPACE/NAME` of a pod.
    source: String,
    destination: SocketAddr,
    /// IP protocol number.
    protocol: u8,
}

/// What would happen to a new connection.
async fn explain(State(admin): State<Admin>, Query(query): Query<ExplainQuery>) -> Response {
    match admin.reporter.source(&query.source, query.destination) {
        Some(source) => {
            let ExplainQuery { destination, protocol, .. } = query;
            json(admin.reporter.explain(&Question { source, destination, protocol }))
        }
        None => {
            let message = format!(
                "{} is neither an address nor a pod with an address of the destination's family\n",
                query.source
            );
            (StatusCode::BAD_REQUEST, message).into_response()
        }
    }
}

/// One JSON object a line, oldest first.
async fn flows(State(admin): State<Admin>, Query(query): Query<FlowQuery>) -> Response {
    if let Some(verdict) = query.verdict.as_deref().filter(|v| !matches!(*v, "forwarded" | "denied")) {
        let message = format!("verdict {verdict:?} is unknown; use \"forwarded\" or \"denied\"\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    let filter = Arc::new(FlowFilter {
        since_unix_ns: query.since.map_or(0, ago_unix_ns),
        pod: query.pod,
        verdict: query.verdict,
    });
    let (known, new) = admin.reporter.recent.follow();
    let wanted = Arc::clone(&filter);
    let known = stream::iter(known).filter(move |flow| std::future::ready(wanted.admits(flow)));
    let known = known.map(|flow| line(&flow));
    let content_type = [(header::CONTENT_TYPE, "application/jsonlines")];
    if !query.follow {
        return (content_type, Body::from_stream(known.map(Ok::<_, Infallible>))).into_response();
    }
    let new = BroadcastStream::new(new).filter_map(move |flow| {
        std::future::ready(match flow {
            Ok(flow) => filter.admits(&flow).then(|| line(&flow)),
            // A reader that is told can ask again; one that is not believes it saw everything.
            Err(BroadcastStreamRecvError::Lagged(count)) => Some(format!("{{\"missed\":{count}}}\n")),
        })
    });
    let all = known.chain(new).take_until(admin.shutdown.cancelled_owned());
    (content_type, Body::from_stream(all.map(Ok::<_, Infallible>))).into_response()
}

fn line(flow: &Flow) -> String {
    let mut line = serde_json::to_string(&Record::from(flow)).expect("a record has only plain fields");
    line.push('\n');
    line
}

fn ago_unix_ns(secs: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(Duration::from_secs(secs)).as_nanos()).unwrap_or(u64::MAX)
}

fn json<T: serde::Serialize>(result: Result<T, fairlead_kernel::KernelError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
