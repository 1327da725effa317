//! Lists in pages, of the state that the client asks for; and long ones, which are sent while they are read.

use std::io::Read;

use flate2::read::GzDecoder;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::http::{PROTOBUF, SECRETS, get, over_tls, post, secret, send, value};
use crate::support::Server;

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn revision(list: &Value) -> u64 {
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn page(client: &kube::Client, query: &str) -> Value {
    value(get(client, &format!("{SECRETS}?{query}"), "application/json").await).await
}

#[tokio::test]
async fn pages_are_of_one_state_and_say_what_is_left() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["a", "b", "c", "d", "e"] {
        post(&client, SECRETS, secret(name)).await;
    }
    let first = page(&client, "limit=2").await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into()], &json!(3))
    );
    post(&client, SECRETS, secret("bb")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = page(&client, &format!("limit=2&continue={token}")).await;
    assert_eq!((names(&second), revision(&second)), (vec!["c".into(), "d".into()], revision(&first)));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = page(&client, &format!("limit=2&continue={token}")).await;
    assert_eq!(names(&third), ["e"]);
    assert_eq!(
        (third["metadata"].get("continue"), third["metadata"].get("remainingItemCount")),
        (None, None)
    );
    // What a selector leaves out is not counted.
    let selected = page(&client, "limit=1&labelSelector=!x").await;
    assert_eq!(selected["metadata"].get("remainingItemCount"), None);
    assert!(selected["metadata"]["continue"].is_string());
}

#[tokio::test]
async fn a_list_that_expired_can_go_on_in_another_state() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["a", "b", "c"] {
        post(&client, SECRETS, secret(name)).await;
    }
    let first = page(&client, "limit=1").await;
    post(&client, SECRETS, secret("bb")).await;
    server.store.compact(server.store.revision().await.unwrap()).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let path = format!("{SECRETS}?limit=1&continue={token}");
    let response = get(&client, &path, "application/json").await;
    assert_eq!(response.status(), StatusCode::GONE);
    let status = value(response).await;
    assert_eq!(status["reason"], "Expired");
    let token = status["metadata"]["continue"].as_str().unwrap();
    let rest = page(&client, &format!("limit=5&continue={token}")).await;
    assert_eq!(names(&rest), ["b", "bb", "c"]);
}

#[tokio::test]
async fn a_version_with_a_limit_is_that_version() {
    let server = Server::start().await;
    let client = server.client();
    post(&client, SECRETS, secret("a")).await;
    let before = revision(&page(&client, "").await);
    post(&client, SECRETS, secret("b")).await;
    for query in ["limit=5&resourceVersion=", "resourceVersionMatch=Exact&resourceVersion="] {
        let list = page(&client, &format!("{query}{before}")).await;
        assert_eq!((names(&list), revision(&list)), (vec!["a".to_owned()], before), "{query}");
    }
    for query in ["resourceVersion=", "resourceVersionMatch=NotOlderThan&resourceVersion="] {
        let list = page(&client, &format!("{query}{before}")).await;
        assert_eq!(names(&list), ["a", "b"], "{query}");
    }
    let future =
        get(&client, &format!("{SECRETS}?resourceVersionMatch=Exact&resourceVersion=99999"), "*/*").await;
    assert_eq!(future.status(), StatusCode::GATEWAY_TIMEOUT);
}

/// How long each secret of a long list is; a few are more than a piece.
const LONG: usize = 100_000;

async fn post_long(client: &kube::Client, names: &[&str]) {
    for name in names {
        let mut long = secret(name);
        long["metadata"]["labels"] = json!({ "name": name });
        // What cannot be compressed to nothing.
        let text: String = (0..LONG / 16)
            .map(|n| format!("{:016x}", u64::wrapping_mul(n as u64 + 1, 0x9e37_79b9_7f4a_7c15)))
            .collect();
        long["stringData"] = json!({ "a": text });
        assert_eq!(post(client, SECRETS, long).await.status(), StatusCode::CREATED);
    }
}

/// So much that it does not fit into what a connection holds.
pub(crate) async fn post_much(client: &kube::Client) {
    let names: Vec<String> = (0..120).map(|n| format!("s{n:03}")).collect();
    post_long(client, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// The items of a list of secrets in protobuf.
fn read_protobuf(body: &[u8]) -> Vec<Value> {
    fn varint(bytes: &mut &[u8]) -> usize {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        unreachable!("a number ends")
    }
    fn field<'b>(bytes: &mut &'b [u8], number: usize) -> &'b [u8] {
        assert_eq!(varint(bytes), number << 3 | 2);
        let len = varint(bytes);
        let (field, rest) = bytes.split_at(len);
        *bytes = rest;
        field
    }
    let mut envelope = body.strip_prefix(b"k8s\0").unwrap();
    field(&mut envelope, 1);
    let mut list = field(&mut envelope, 2);
    assert!(envelope.is_empty());
    field(&mut list, 1);
    let mut items = Vec::new();
    while !list.is_empty() {
        let item = field(&mut list, 2);
        let length =
            |len: usize| [len as u8 & 0x7f | 0x80, (len >> 7) as u8 & 0x7f | 0x80, (len >> 14) as u8];
        let body = [b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Secret\x12", &length(item.len())[..], item].concat();
        items.push(fairlead_apiserver::protobuf::decode(&body).unwrap());
    }
    items
}

#[tokio::test]
async fn a_long_list_is_sent_in_pieces_and_says_the_same_in_every_form() {
    let server = Server::start().await;
    let client = server.client();
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    post_long(&client, &all).await;
    let mut objects = Vec::new();
    for name in all {
        objects.push(value(get(&client, &format!("{SECRETS}/{name}"), "application/json").await).await);
    }
    let meta = "g=meta.k8s.io;v=v1";
    let (partial, table) = (
        format!("application/json;as=PartialObjectMetadataList;{meta}"),
        format!("application/json;as=Table;{meta}"),
    );
    let rows = [
        ("", &all[..], None),
        ("limit=7", &all[..7], Some(json!(1))),
        ("limit=7&labelSelector=name!=b", &["a", "c", "d", "e", "f", "g", "h"], None),
        ("limit=6&labelSelector=name!=b", &["a", "c", "d", "e", "f", "g"], Some(Value::Null)),
        ("fieldSelector=metadata.name!=a", &all[1..], None),
    ];
    for (query, expected, remaining) in rows {
        let path = format!("{SECRETS}?includeObject=Object&{query}");
        let selected: Vec<&Value> = objects
            .iter()
            .filter(|object| expected.contains(&object["metadata"]["name"].as_str().unwrap()))
            .collect();
        for accept in ["application/json", &partial, &table, "application/yaml"] {
            let response = get(&client, &path, accept).await;
            assert_eq!(response.headers().get("content-length"), None, "{query} {accept}");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let list: Value = match accept {
                "application/yaml" => serde_yaml_ng::from_slice(&bytes).unwrap(),
                _ => serde_json::from_slice(&bytes).unwrap(),
            };
            let items = list[if accept == table { "rows" } else { "items" }].as_array().unwrap();
            assert_eq!(items.len(), selected.len(), "{query} {accept}");
            for (item, object) in items.iter().zip(&selected) {
                let item = if accept == table { &item["object"] } else { item };
                assert_eq!(item["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
                assert!(accept == partial || item["data"] == object["data"], "{query} {accept}");
            }
            let metadata = &list["metadata"];
            assert_eq!(metadata["continue"].is_string(), remaining.is_some(), "{query} {accept}");
            assert_eq!(
                metadata["remainingItemCount"],
                remaining.clone().unwrap_or_default(),
                "{query} {accept}"
            );
            assert!(revision(&list) > 0);
        }
        let response = get(&client, &path, PROTOBUF).await;
        assert_eq!(response.headers().get("content-length"), None, "{query}");
        let items = read_protobuf(&response.into_body().collect().await.unwrap().to_bytes());
        assert!(
            items.iter().map(|item| &item["data"]).eq(selected.iter().map(|object| &object["data"])),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_long_list_is_of_one_state_whatever_is_written_while_it_is_sent() {
    let server = Server::start().await;
    let client = server.client();
    post_long(&client, &["a", "c", "e", "g", "i", "k", "m"]).await;
    for accept in ["application/json", PROTOBUF] {
        let before = get(&client, SECRETS, accept).await.into_body().collect().await.unwrap().to_bytes();
        let mut during = get(&client, SECRETS, accept).await.into_body();
        let mut read = during.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
        assert!(read.len() < before.len(), "it was sent at once");
        send(&client, Request::delete(format!("{SECRETS}/k")), "").await;
        let patch =
            Request::patch(format!("{SECRETS}/m")).header("content-type", "application/merge-patch+json");
        assert_eq!(send(&client, patch, r#"{"data":null}"#).await.status(), StatusCode::OK);
        post_long(&client, &["j"]).await;
        read.extend(during.collect().await.unwrap().to_bytes());
        assert!(read == before, "{accept}");
        send(&client, Request::delete(format!("{SECRETS}/j")), "").await;
        send(&client, Request::delete(format!("{SECRETS}/m")), "").await;
        post_long(&client, &["k", "m"]).await;
    }
}

#[tokio::test]
async fn a_long_list_in_gzip_is_the_same() {
    let server = Server::start().await;
    let client = server.client();
    post_long(&client, &["a", "b", "c", "d", "e"]).await;
    let plain =
        get(&client, SECRETS, "application/json").await.into_body().collect().await.unwrap().to_bytes();
    let response = send(&client, Request::get(SECRETS).header("accept-encoding", "gzip"), "").await;
    let headers = response.headers();
    assert_eq!([&headers["content-encoding"], &headers["vary"]], ["gzip", "Accept-Encoding"]);
    let mut body = response.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(frame.unwrap().into_data().unwrap());
    }
    assert!(frames.len() > 1, "it was compressed as a whole");
    let compressed = frames.concat();
    assert!(compressed.len() < plain.len());
    let mut read = Vec::new();
    GzDecoder::new(&compressed[..]).read_to_end(&mut read).unwrap();
    assert!(read == plain);
}

#[tokio::test]
async fn a_long_list_that_cannot_go_on_is_cut_off_and_never_looks_whole() {
    let server = Server::start().await;
    post_much(&server.client()).await;
    for encoding in ["identity", "gzip"] {
        let client = over_tls(&server, true).await;
        let request = Request::get(SECRETS).header("accept-encoding", encoding).body(Body::empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        // Its state is forgotten.
        post_long(&server.client(), &[&format!("late-{encoding}")]).await;
        server.store.compact(server.store.revision().await.unwrap()).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "{encoding}");
    }
    server.stop().await;
}
