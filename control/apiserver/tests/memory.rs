//! What hostile requests cost in memory. Every row is sent twice: to a server with its usual limits, which must stay below
//! a bound, and to one without the limit that the row is about, which must not. So a limit that no longer limits fails
//! the test, and so does a row that would not notice.
//!
//! This is a process of its own, because the most that a process has held is a number of the process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "api/support.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod support;

use std::convert::Infallible;
use std::fs;

use bytes::Bytes;
use fairlead_apiserver::Limits;
use futures::stream::{self, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What the requests of a row may cost together.
const BOUND_MIB: u64 = 210;
const PIECE: usize = 64 << 10;

/// Some requests at a time that nobody sends in good faith.
struct Row {
    name: &'static str,
    clients: usize,
    /// How much each sends, and what.
    body_bytes: usize,
    piece: fn() -> Bytes,
    /// Whether all of them stop before the end and wait for each other.
    stalls: bool,
    /// Takes the limit away; absent where none can be set, and a reader without one is looked at instead.
    lift: Option<fn(&mut Limits)>,
    codes: &'static [u16],
}

const ROWS: &[Row] = &[
    Row {
        name: "bodies that are too long",
        clients: 8,
        body_bytes: 48 << 20,
        piece: spaces,
        stalls: false,
        lift: Some(|limits| limits.body_bytes = u64::MAX),
        codes: &[413, 429],
    },
    Row {
        name: "bodies that do not end",
        clients: 240,
        body_bytes: 2 << 20,
        piece: spaces,
        stalls: true,
        lift: Some(|_| {}),
        codes: &[400, 429],
    },
    Row {
        name: "bodies of many small objects",
        clients: 1,
        body_bytes: 2_800 << 10,
        piece: objects,
        stalls: false,
        lift: None,
        codes: &[400],
    },
];

fn spaces() -> Bytes {
    Bytes::from_static(&[b' '; PIECE])
}

fn objects() -> Bytes {
    Bytes::from(r#"{"a":0},"#.repeat(PIECE / 8))
}

/// The same without the row's limit, and without that of all bodies together.
async fn peak_without(row: &'static Row) -> u64 {
    if let Some(lift) = row.lift {
        let mut limits = Limits { bodies_bytes: u64::MAX, ..Limits::default() };
        lift(&mut limits);
        return peak(row, limits).await.0;
    }
    let body = format!("[{}0]", String::from_utf8_lossy(&(row.piece)()).repeat(row.body_bytes / PIECE));
    forget_peak();
    drop(serde_json::from_str::<serde_json::Value>(&body).unwrap());
    memory_mib("VmHWM:")
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("Linux forgets the peak on request");
}

/// Sends a row's requests to a server; returns the most that the process held, in MiB, and the codes of the answers.
async fn peak(row: &'static Row, limits: Limits) -> (u64, Vec<StatusCode>) {
    let server = Server::start_with(TempDir::new().unwrap(), limits).await;
    forget_peak();
    let (go_on, may_go_on) = watch::channel(!row.stalls);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    for _ in 0..row.clients {
        let (service, may_go_on, arrived) = (server.in_process.clone(), may_go_on.clone(), arrived.clone());
        clients.spawn(async move {
            let request = Request::post(MAPS).header("content-type", "application/json");
            let response =
                service.oneshot(request.body(body(row, may_go_on, arrived.clone())).unwrap()).await;
            let response = response.unwrap();
            let code = response.status();
            response.into_body().collect().await.unwrap();
            // Who was refused before it came to the end waits for nothing.
            let _ = arrived.send(());
            code
        });
    }
    drop(arrived);
    for _ in 0..row.clients {
        arrivals.recv().await;
    }
    go_on.send_replace(true);
    let codes = clients.join_all().await;
    let peak = memory_mib("VmHWM:");
    server.stop().await;
    (peak, codes)
}

fn body(
    row: &'static Row,
    mut may_go_on: watch::Receiver<bool>,
    arrived: mpsc::UnboundedSender<()>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send {
    let opening = stream::once(async { Bytes::from_static(b"{\"data\":[") });
    let pieces = stream::iter(0..row.body_bytes / PIECE).then(|_| async {
        tokio::task::yield_now().await;
        (row.piece)()
    });
    let end = stream::once(async move {
        let _ = arrived.send(());
        let _ = may_go_on.wait_for(|go_on| *go_on).await;
        Bytes::from_static(b"0]")
    });
    let frames = opening.chain(pieces).chain(end).map(|bytes| Ok(Frame::data(bytes)));
    StreamBody::new(Box::pin(frames))
}

fn memory_mib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("Linux says how much memory there is");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_cost_no_more_memory_than_the_limits_say() {
    // What an earlier row took and the allocator kept counts for the later ones, and hides nothing.
    let start = memory_mib("VmRSS:");
    for row in ROWS {
        let (peak_mib, codes) = peak(row, Limits::default()).await;
        let cost_mib = peak_mib.saturating_sub(start);
        assert!(cost_mib < BOUND_MIB, "{} cost {cost_mib} MiB", row.name);
        assert!(codes.iter().all(|code| row.codes.contains(&code.as_u16())), "{}: {codes:?}", row.name);
    }
    for row in ROWS {
        let before = memory_mib("VmRSS:");
        let lifted_mib = peak_without(row).await.saturating_sub(before);
        assert!(lifted_mib > BOUND_MIB, "{} cost only {lifted_mib} MiB without their limit", row.name);
    }
}
