//! What the server refuses to take on, and what large answers and a renewed certificate are like on the wire.

use std::io::Read;

use fairlead_apiserver::{Limits, Pki};
use flate2::read::GzDecoder;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceBuilder;

use crate::http::{MAPS, SECRETS, config_map, get, over_tls, post, send, value};
use crate::lists::post_much;
use crate::support::Server;

/// A client of a user that is no administrator.
async fn as_user(server: &Server, user: &str) -> kube::Client {
    let pki = Pki::open_or_create(&server.dir.path().join("pki")).unwrap();
    let issued = pki.issue(user, &[], &[]).unwrap();
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let url = kubeconfig.clusters[0].cluster.clone().unwrap().server.unwrap();
    let text = fairlead_apiserver::pki::kubeconfig(&url, pki.ca_pem(), &issued.cert_pem, &issued.key_pem);
    let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // Without the layers of a usual client, which would wait and try again.
    let connector = config.rustls_https_connector().unwrap();
    let service = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new().layer(config.base_uri_layer()).service(service);
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn a_user_that_asks_too_much_is_told_when_to_come_back() {
    let limits = Limits { user_requests_per_sec: 0.001, user_burst: 3.0, ..Limits::default() };
    let server = Server::start_with(TempDir::new().unwrap(), limits).await;
    let user = as_user(&server, "somebody").await;
    for _ in 0..3 {
        assert_eq!(get(&user, MAPS, "*/*").await.status(), StatusCode::OK);
    }
    let refused = get(&user, MAPS, "*/*").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1000");
    let status = value(refused).await;
    assert_eq!(
        (&status["reason"], &status["details"]["retryAfterSeconds"]),
        (&json!("TooManyRequests"), &json!(1000))
    );
    // Others, and those who may repair the cluster, are not held up.
    assert_eq!(get(&as_user(&server, "other").await, MAPS, "*/*").await.status(), StatusCode::OK);
    let admin = over_tls(&server, true).await;
    for _ in 0..9 {
        assert_eq!(get(&admin, MAPS, "*/*").await.status(), StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_list_is_in_flight_until_its_client_has_read_it() {
    let limits = Limits { reads_in_flight: 1, ..Limits::default() };
    let server = Server::start_with(TempDir::new().unwrap(), limits).await;
    post_much(&server.client()).await;
    let user = as_user(&server, "somebody").await;
    let list = get(&user, SECRETS, "*/*").await;
    assert_eq!(list.status(), StatusCode::OK);
    assert_eq!(get(&user, MAPS, "*/*").await.status(), StatusCode::TOO_MANY_REQUESTS);
    list.into_body().collect().await.unwrap();
    // The client may have the end before the server is done with it.
    let mut left = 500;
    while get(&user, MAPS, "*/*").await.status() != StatusCode::OK {
        left -= 1;
        assert!(left > 0, "the list is still in flight");
    }
    server.stop().await;
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let server = Server::start().await;
    let client = server.client();
    let mut map = config_map("large");
    map["data"] = json!({ "a": "text ".repeat(60_000) });
    post(&client, MAPS, map).await;
    let plain = get(&client, MAPS, "*/*").await;
    assert_eq!(plain.headers().get("content-encoding"), None);
    let plain = value(plain).await;
    let request = Request::get(MAPS).header("accept-encoding", "gzip, deflate");
    let response = send(&client, request, "").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(bytes.len() < 20_000, "{}", bytes.len());
    let mut text = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), plain);
    let small = Request::get("/api/v1/namespaces").header("accept-encoding", "gzip");
    assert_eq!(send(&client, small, "").await.headers().get("content-encoding"), None);
}

#[tokio::test]
async fn headers_and_nesting_are_bounded() {
    let server = Server::start().await;
    let client = over_tls(&server, true).await;
    let long = Request::get(MAPS).header("x-long", "x".repeat(200_000));
    let outcome = client.send(long.body(kube::client::Body::empty()).unwrap()).await;
    // Refused with a code, or with the connection when it was not even read.
    assert!(outcome.is_err() || outcome.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let nested = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let response = send(&client, Request::post(MAPS), &nested).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    // Nine lines that would be a billion elements.
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    let request = Request::post(MAPS).header("content-type", "application/yaml");
    assert_eq!(send(&client, request, &laughs).await.status(), StatusCode::BAD_REQUEST);
    server.stop().await;
}

#[tokio::test]
async fn duplicate_fields_of_patches_are_named() {
    let server = Server::start().await;
    let client = server.client();
    post(&client, MAPS, config_map("m")).await;
    let twice = r#"{"data":{"a":"b","a":"c"}}"#;
    for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let patch = |validation: &str| {
            Request::patch(format!("{MAPS}/m?fieldValidation={validation}")).header("content-type", media)
        };
        let refused = send(&client, patch("Strict"), twice).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert!(value(refused).await["message"].as_str().unwrap().contains("duplicate field \"data.a\""));
        let warned = send(&client, patch("Warn"), twice).await;
        assert_eq!(warned.headers()["warning"], "299 - \"duplicate field \\\"data.a\\\"\"");
        assert_eq!(send(&client, patch("Ignore"), twice).await.headers().get("warning"), None);
        assert_eq!(send(&client, patch("Whatever"), twice).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}
