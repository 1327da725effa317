//! Many watchers, slow watchers, and how a watch begins.

use std::collections::HashSet;
use std::pin::pin;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::http::{SECRETS, get, lines, post, secret};
use crate::support::Server;

const WATCHERS: usize = 1_000;
const WRITES: usize = 1_000;

/// Opens a watch and gives back its body.
async fn open(server: &Server, path: &str) -> axum::body::Body {
    let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
    let response = server.in_process.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

/// The resource versions of the first events.
async fn versions(body: axum::body::Body, count: usize) -> Vec<u64> {
    let mut versions = Vec::with_capacity(count);
    let mut rest = Vec::new();
    let mut chunks = body.into_data_stream();
    while versions.len() < count {
        rest.extend_from_slice(&chunks.next().await.expect("the watch goes on").unwrap());
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = std::str::from_utf8(line).unwrap();
            let version = text.split("\"resourceVersion\":\"").nth(1).unwrap();
            versions.push(version[..version.find('"').unwrap()].parse().unwrap());
        }
        rest.drain(..whole);
    }
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_see_a_thousand_writes_in_one_order() {
    let server = Server::start().await;
    let from = server.store.revision().await.unwrap();
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let body = open(&server, &format!("{SECRETS}?watch=1&resourceVersion={from}")).await;
        watchers.spawn(versions(body, WRITES));
    }
    let client = server.client();
    let writes = (0..WRITES).map(|n| {
        let client = client.clone();
        async move {
            let response = post(&client, SECRETS, secret(&format!("m{n}"))).await;
            assert_eq!(response.status(), StatusCode::CREATED);
            Ok::<_, std::convert::Infallible>(())
        }
    });
    futures::stream::iter(writes).map(Ok).try_for_each_concurrent(32, |write| write).await.unwrap();
    let mut orders = HashSet::new();
    while let Some(seen) = watchers.join_next().await {
        orders.insert(seen.unwrap());
    }
    assert_eq!(orders.len(), 1, "all saw the same order");
    let order = orders.into_iter().next().unwrap();
    assert_eq!(order.len(), WRITES);
    assert!(order.is_sorted_by(|a, b| a < b), "in the order of the writes");
    server.stop().await;
}

/// It waits for a whole minute, as clients do.
#[tokio::test]
async fn an_idle_watch_is_told_the_revision_each_minute() {
    let server = Server::start().await;
    let from = server.store.revision().await.unwrap();
    let path = format!("{SECRETS}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
    let mut chunks = open(&server, &path).await.into_data_stream();
    // Something else changes, of which the watch says nothing.
    server.store.create("/registry/configmaps/default/other", Bytes::from_static(b"{}")).await.unwrap();
    let line: Value = serde_json::from_slice(&chunks.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(line["type"], "BOOKMARK", "{line}");
    let told: u64 = line["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(told > from, "{told} is not after {from}");
    server.stop().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_nobody_else_notices() {
    let server = Server::start().await;
    let client = server.client();
    let from = server.store.revision().await.unwrap();
    let path = format!("{SECRETS}?watch=1&resourceVersion={from}");
    let slow = open(&server, &path).await;
    let quick = tokio::spawn(versions(open(&server, &path).await, 1_100));
    let writes = (0..1_100).map(|n| {
        let client = client.clone();
        async move { post(&client, SECRETS, secret(&format!("m{n}"))).await }
    });
    futures::stream::iter(writes).buffer_unordered(32).for_each(|_| async {}).await;
    assert_eq!(quick.await.unwrap().len(), 1_100);
    // It gets what was kept for it, whole lines, and then the end: it watches again from there.
    let bytes = slow.collect().await.unwrap().to_bytes();
    let lines: Vec<Value> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert!((1..1_100).contains(&lines.len()), "{}", lines.len());
    let last = lines.last().unwrap()["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let again = open(&server, &format!("{SECRETS}?watch=1&resourceVersion={last}")).await;
    assert_eq!(versions(again, 1_100 - lines.len()).await.len(), 1_100 - lines.len());
}

#[tokio::test]
async fn a_watch_begins_as_it_is_asked_to() {
    let server = Server::start().await;
    let client = server.client();
    post(&client, SECRETS, secret("old")).await;
    let rows = [
        ("", "ADDED old"),
        ("&resourceVersion=0", "ADDED old"),
        ("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "ADDED old"),
        ("&sendInitialEvents=false&resourceVersionMatch=NotOlderThan", "ADDED new"),
        ("&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=1", "ADDED old"),
    ];
    let mut streams = Vec::new();
    for (query, expected) in rows {
        let path = format!("{SECRETS}?watch=1{query}");
        streams.push((query, expected, Box::pin(lines(&client, &path, "application/json").await)));
    }
    post(&client, SECRETS, secret("new")).await;
    for (query, expected, mut stream) in streams {
        let event = stream.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"]));
        assert_eq!(found, expected, "{query}");
    }
    let refused = get(&client, &format!("{SECRETS}?watch=1&sendInitialEvents=true"), "*/*").await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    // Without bookmarks there is none to mark the end.
    let path = format!(
        "{SECRETS}?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let events: Vec<Value> = pin!(lines(&client, &path, "application/json").await).collect().await;
    assert!(events.iter().all(|event| event["type"] == json!("ADDED")), "{events:?}");
}
