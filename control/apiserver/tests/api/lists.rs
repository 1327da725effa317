//! Lists in pages, of the state that the client asks for.

use http::StatusCode;
use serde_json::{Value, json};

use crate::http::{SECRETS, get, post, secret, value};
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
