//! What lists cost in memory that are much longer than it: many clients ask for many large objects at once, and all of
//! them stop in the middle. This is a process of its own, because the most that a process has held is a number of the
//! process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "api/support.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod support;

#[path = "memory/peak.rs"]
mod peak;

use bytes::Bytes;
use fairlead_apiserver::Limits;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLIENTS: usize = 16;
const OBJECTS: usize = 24;
const OBJECT_BYTES: usize = 512 << 10;
/// What the lists of a row may cost together: half of what they are long. When they are read in one piece
/// they cost more than they are long.
const BOUND_MIB: u64 = ((CLIENTS * OBJECTS * OBJECT_BYTES) >> 20) as u64 / 2;

/// How a list is asked for, in headers and query.
const ROWS: &[(&str, &str, &str)] = &[
    ("application/json", "identity", ""),
    ("application/json", "identity", "limit=20"),
    ("application/json", "gzip", ""),
    ("application/vnd.kubernetes.protobuf", "identity", ""),
    ("application/json", "identity", "watch=1&timeoutSeconds=1"),
];

/// An object that no compression makes short: what repeats in it is farther apart than gzip looks.
fn object(n: usize) -> Bytes {
    let mut state = n as u64 + 1;
    let mut block = String::new();
    while block.len() < 64 << 10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        block.push_str(&format!("{:016x}", state.rotate_left(29).wrapping_mul(state)));
    }
    let text = block.repeat(OBJECT_BYTES / block.len());
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": format!("large-{n:03}"), "namespace": "default", "labels": { "size": "large" } },
        "data": { "text": text },
    });
    // Metadata first, as the server writes it.
    let (metadata, rest) = (&object["metadata"], &object["data"]);
    Bytes::from(format!(r#"{{"metadata":{metadata},"apiVersion":"v1","data":{rest},"kind":"ConfigMap"}}"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_for_many_clients_cost_little_memory() {
    let server = Server::start_with(TempDir::new().unwrap(), Limits::default()).await;
    for n in 0..OBJECTS {
        server.store.create(&format!("/registry/configmaps/default/large-{n:03}"), object(n)).await.unwrap();
    }
    for (accept, encoding, query) in ROWS {
        let before = peak::resident_mib();
        peak::forget();
        let (go_on, may_go_on) = watch::channel(false);
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (service, begun, mut may_go_on) =
                (server.in_process.clone(), begun.clone(), may_go_on.clone());
            let request = Request::get(format!("{MAPS}?{query}")).header("accept", *accept);
            let request = request.header("accept-encoding", *encoding).body(Full::new(Bytes::new())).unwrap();
            clients.spawn(async move {
                let response = service.oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                let mut body = response.into_body();
                let mut len = 0;
                while let Some(frame) = body.frame().await {
                    len += frame.unwrap().into_data().unwrap().len();
                    let _ = begun.send(());
                    may_go_on.wait_for(|go_on| *go_on).await.unwrap();
                }
                len
            });
        }
        for _ in 0..CLIENTS {
            beginnings.recv().await.unwrap();
        }
        go_on.send_replace(true);
        for len in clients.join_all().await {
            assert!(len > OBJECTS * OBJECT_BYTES / 2, "{accept} {encoding} {query}: only {len} bytes came");
        }
        let cost_mib = peak::peak_mib().saturating_sub(before);
        println!("{accept} {encoding} {query}: {cost_mib} MiB");
        assert!(cost_mib < BOUND_MIB, "{accept} {encoding} {query}: {cost_mib} MiB");
    }
    server.stop().await;
}
