//! What hostile requests cost in memory. Every row is sent to a server with its usual limits, which must refuse it and stay
//! below a bound, and, where that can be survived, to one without the limit that the row is about, which must not stay
//! below. So a limit that no longer limits fails the test, and so does a row that would not notice.
//!
//! This is a process of its own, because the most that a process has held is a number of the process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "api/support.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod support;

#[path = "memory/peak.rs"]
mod peak;

use std::convert::Infallible;
use std::env;
use std::process::Command;

use bytes::Bytes;
use fairlead_apiserver::Limits;
use futures::stream::{self, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What the requests of a row may cost together.
const BOUND_MIB: u64 = 210;
const PIECE: usize = 64 << 10;
const THIS_TEST: &str = "hostile_requests_cost_no_more_memory_than_the_limits_say";
/// Set to the name of a row for a process that measures it without its limit.
const WITHOUT_LIMIT: &str = "FAIRLEAD_WITHOUT_LIMIT";

/// Some requests at a time that nobody sends in good faith.
struct Row {
    name: &'static str,
    clients: usize,
    media: &'static str,
    opening: &'static str,
    /// How much each sends between the opening and the end, and what.
    body_bytes: usize,
    piece: fn(usize) -> Bytes,
    end: &'static str,
    /// Whether all of them stop before the end and wait for each other.
    stalls: bool,
    lift: Lift,
    codes: &'static [u16],
}

/// What shows that the limit of a row limits.
enum Lift {
    /// The server without it.
    Limit(fn(&mut Limits)),
    /// No limit can be set. A reader that has none is looked at instead.
    Reader(fn(&str)),
    /// Nothing: without the limit there would be no memory left, or no stack.
    Nothing,
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

const ROWS: &[Row] = &[
    Row {
        name: "bodies that are too long",
        clients: 8,
        body_bytes: 48 << 20,
        piece: spaces,
        stalls: false,
        lift: Lift::Limit(|limits| limits.body_bytes = u64::MAX),
        codes: &[413, 429],
        ..ONE
    },
    Row {
        name: "bodies that do not end",
        clients: 240,
        body_bytes: 2 << 20,
        piece: spaces,
        stalls: true,
        lift: Lift::Limit(|_| {}),
        codes: &[400, 429],
        ..ONE
    },
    Row {
        name: "bodies of many small objects",
        clients: 1,
        body_bytes: 2_800 << 10,
        piece: objects,
        stalls: false,
        lift: Lift::Reader(|body| drop(serde_json::from_str::<Value>(body).unwrap())),
        codes: &[400],
        ..ONE
    },
    Row {
        name: "YAML of many small values",
        media: YAML,
        opening: "data: [",
        piece: |_| repeated("0,"),
        end: "0]",
        lift: Lift::Reader(|body| drop(serde_yaml_ng::from_str::<Value>(body).unwrap())),
        ..ONE
    },
    Row {
        name: "YAML of one text in many places",
        media: YAML,
        opening: "a: &a \"",
        // Half of it is the text.
        piece: |index| match index {
            0..8 => repeated("x"),
            8 => Bytes::from_static(b"\"\nb: ["),
            _ => repeated(&format!("{:96}", "*a,")),
        },
        body_bytes: 10 * PIECE,
        end: "*a]",
        lift: Lift::Reader(|body| drop(serde_yaml_ng::from_str::<Value>(body).unwrap())),
        ..ONE
    },
    Row { name: "JSON that is deep", piece: |_| repeated("["), ..ONE },
    Row { name: "JSON that is deep in objects", opening: "", piece: |_| repeated("{\"a\":"), ..ONE },
    Row { name: "JSON that is no text", piece: |_| Bytes::from_static(&[0xff; PIECE]), ..ONE },
    Row { name: "YAML that is deep", media: YAML, opening: "data: [", piece: |_| repeated("["), ..ONE },
    Row { name: "YAML that is deep in lines", media: YAML, opening: "", piece: |_| repeated("- "), ..ONE },
    Row { name: "YAML that is deep in keys", media: YAML, opening: "", piece: |_| repeated("? "), ..ONE },
    Row { name: "YAML with a text that does not end", media: YAML, opening: "a: \"", end: "", ..ONE },
    Row {
        name: "YAML of aliases of aliases",
        media: YAML,
        opening: "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                  d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,",
        body_bytes: 0,
        end: "*e]",
        ..ONE
    },
    Row {
        name: "protobuf without an end",
        media: PROTOBUF,
        opening: "k8s\0",
        piece: |_| repeated("\u{a}~"),
        ..ONE
    },
    Row {
        name: "protobuf that is none",
        media: PROTOBUF,
        opening: "k8s\0",
        piece: |_| repeated("\u{7f}"),
        ..ONE
    },
];

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// One request of nearly the longest body.
const ONE: Row = Row {
    name: "",
    clients: 1,
    media: JSON,
    opening: "{\"data\":[",
    body_bytes: 2_800 << 10,
    piece: spaces,
    end: "0]",
    stalls: false,
    lift: Lift::Nothing,
    codes: &[400],
};

fn spaces(_: usize) -> Bytes {
    Bytes::from_static(&[b' '; PIECE])
}

fn objects(_: usize) -> Bytes {
    repeated(r#"{"a":0},"#)
}

fn repeated(text: &str) -> Bytes {
    Bytes::from(text.repeat(PIECE / text.len()))
}

/// The most that the process held without the row's limit, and without that of all bodies together.
async fn peak_without(row: &'static Row) -> Option<u64> {
    match row.lift {
        Lift::Limit(lift) => {
            let mut limits = Limits { bodies_bytes: u64::MAX, ..Limits::default() };
            lift(&mut limits);
            Some(peak(row, limits).await.0)
        }
        Lift::Reader(read) => {
            let pieces: Vec<Bytes> = (0..row.body_bytes / PIECE).map(row.piece).collect();
            let closing = if row.opening.starts_with('{') { "}" } else { "" };
            let body =
                [row.opening.as_bytes(), &pieces.concat(), row.end.as_bytes(), closing.as_bytes()].concat();
            peak::forget();
            read(std::str::from_utf8(&body).unwrap());
            Some(peak::peak_mib())
        }
        Lift::Nothing => None,
    }
}

/// Sends a row's requests to a server; returns the most that the process held, in MiB, and the codes of the answers.
async fn peak(row: &'static Row, limits: Limits) -> (u64, Vec<StatusCode>) {
    let server = Server::start_with(TempDir::new().unwrap(), limits).await;
    peak::forget();
    let (go_on, may_go_on) = watch::channel(!row.stalls);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    for _ in 0..row.clients {
        let (service, may_go_on, arrived) = (server.in_process.clone(), may_go_on.clone(), arrived.clone());
        clients.spawn(async move {
            let request = Request::post(MAPS).header("content-type", row.media);
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
    let peak = peak::peak_mib();
    server.stop().await;
    (peak, codes)
}

fn body(
    row: &'static Row,
    mut may_go_on: watch::Receiver<bool>,
    arrived: mpsc::UnboundedSender<()>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send {
    let opening = stream::once(async { Bytes::from_static(row.opening.as_bytes()) });
    let pieces = stream::iter(0..row.body_bytes / PIECE).then(move |index| async move {
        tokio::task::yield_now().await;
        (row.piece)(index)
    });
    let end = stream::once(async move {
        let _ = arrived.send(());
        let _ = may_go_on.wait_for(|go_on| *go_on).await;
        Bytes::from_static(row.end.as_bytes())
    });
    let frames = opening.chain(pieces).chain(end).map(|bytes| Ok(Frame::data(bytes)));
    StreamBody::new(Box::pin(frames))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_cost_no_more_memory_than_the_limits_say() {
    let start = peak::resident_mib();
    if let Ok(name) = env::var(WITHOUT_LIMIT) {
        let row = ROWS.iter().find(|row| row.name == name).unwrap();
        let peak = peak_without(row).await.expect("the row has a limit to lift");
        let lifted_mib = peak.saturating_sub(start);
        assert!(lifted_mib > BOUND_MIB, "{} cost only {lifted_mib} MiB without their limit", row.name);
        return;
    }
    // What an earlier row took and the allocator kept counts for the later ones, and hides nothing.
    for row in ROWS {
        let (peak_mib, codes) = peak(row, Limits::default()).await;
        let cost_mib = peak_mib.saturating_sub(start);
        assert!(cost_mib < BOUND_MIB, "{} cost {cost_mib} MiB", row.name);
        assert!(codes.iter().all(|code| row.codes.contains(&code.as_u16())), "{}: {codes:?}", row.name);
    }
    for row in ROWS.iter().filter(|row| !matches!(row.lift, Lift::Nothing)) {
        // In a process of its own: what the allocator keeps of earlier rows here would hide what this one takes.
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", THIS_TEST, "--nocapture"]).env(WITHOUT_LIMIT, row.name);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
