//! What only shows on the wire: codes, headers, media types, streams.

use std::collections::BTreeMap;
use std::pin::pin;

use bytes::Bytes;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tower::Service as _;

use crate::support::Server;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A client over TLS.
pub(crate) async fn over_tls(server: &Server, with_certificate: bool) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    if !with_certificate {
        config.auth_info.client_certificate_data = None;
        config.auth_info.client_key_data = None;
    }
    kube::Client::try_from(config).unwrap()
}

pub(crate) async fn send(
    client: &kube::Client,
    request: http::request::Builder,
    body: &str,
) -> Response<Body> {
    client.send(request.body(Body::from(body.as_bytes().to_vec())).unwrap()).await.unwrap()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) async fn value(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

pub(crate) async fn get(client: &kube::Client, path: &str, accept: &str) -> Response<Body> {
    send(client, Request::get(path).header("accept", accept), "").await
}

pub(crate) async fn post(client: &kube::Client, path: &str, object: Value) -> Response<Body> {
    send(client, Request::post(path), &object.to_string()).await
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

/// A kind of which the cluster itself makes none.
pub(crate) const SECRETS: &str = "/api/v1/namespaces/default/secrets";

pub(crate) fn secret(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name } })
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn nobody_gets_more_than_health_and_version() {
    let server = Server::start().await;
    let nobody = over_tls(&server, false).await;
    for path in ["/healthz", "/livez", "/readyz?verbose", "/version", "/version/"] {
        assert_eq!(get(&nobody, path, "*/*").await.status(), StatusCode::OK, "{path}");
    }
    for path in ["/api", "/apis", "/api/v1/pods", "/healthzz", "/nothing"] {
        let response = get(&nobody, path, "*/*").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        let status = value(response).await;
        assert_eq!((&status["reason"], &status["code"]), (&json!("Unauthorized"), &json!(401)));
    }
    let somebody = over_tls(&server, true).await;
    assert_eq!(get(&somebody, "/api/v1/pods", "*/*").await.status(), StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn discovery_is_plain_or_aggregated_as_the_client_asks() {
    let server = Server::start().await;
    let client = server.client();
    let plain = value(get(&client, "/api/v1", "application/json").await).await;
    let names: Vec<&str> =
        plain["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    for name in ["pods", "pods/log", "pods/binding", "services", "namespaces/finalize"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let response = get(&client, "/apis", AGGREGATED).await;
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(media, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let groups = value(response).await;
    let apps = groups["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "apps").unwrap();
    let deployments = &apps["versions"][0]["resources"][0];
    assert_eq!(
        (&deployments["resource"], &deployments["scope"]),
        (&json!("deployments"), &json!("Namespaced"))
    );
    let version = value(get(&client, "/version/", "*/*").await).await;
    assert_eq!(version.as_object().unwrap().len(), 9);
    assert_eq!(get(&client, "/apis/apps/v9", "*/*").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&client, "/openapi/v3/apis/apps/v9", "*/*").await.status(), StatusCode::NOT_FOUND);
}

/// Whatever refers to a definition that is not there.
fn dangling<'d>(document: &'d Value, value: &'d Value, out: &mut Vec<&'d str>) {
    match value {
        Value::Object(entries) => {
            let reference = entries.get("$ref").and_then(Value::as_str);
            let name = reference.map(|reference| reference.trim_start_matches("#/definitions/"));
            out.extend(name.filter(|name| !document["definitions"][name].is_object()));
            entries.values().for_each(|value| dangling(document, value, out));
        }
        Value::Array(items) => items.iter().for_each(|item| dangling(document, item, out)),
        _ => {}
    }
}

#[tokio::test]
async fn openapi_version_2_is_one_whole_document_in_json() {
    let server = Server::start().await;
    let client = server.client();
    let document = value(get(&client, "/openapi/v2", "application/json").await).await;
    assert_eq!(document["swagger"], "2.0");
    let mut missing = Vec::new();
    dangling(&document, &document, &mut missing);
    assert_eq!(missing, [""; 0]);
    let create = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    let body = create["parameters"].as_array().unwrap().iter().find(|parameter| parameter["in"] == "body");
    assert_eq!(body.unwrap()["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    let ports = &document["definitions"]["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(get(&client, "/openapi/v2", "application/cbor").await.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn bodies_are_json_or_yaml_and_not_too_long() {
    let server = Server::start().await;
    let client = server.client();
    assert_eq!(post(&client, MAPS, config_map("no-type")).await.status(), StatusCode::CREATED);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\n";
    let request = Request::post(MAPS).header("content-type", "application/yaml; charset=utf-8");
    assert_eq!(send(&client, request, yaml).await.status(), StatusCode::CREATED);
    let request = Request::post(MAPS).header("content-type", "application/vnd.kubernetes.protobuf");
    let response = send(&client, request, "{}").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let status = value(response).await;
    assert!(status["message"].as_str().unwrap().contains("is not valid protobuf"), "{status}");
    let request = Request::post(MAPS).header("content-type", "text/html");
    let response = send(&client, request, "<p>").await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut large = config_map("large");
    large["data"] = json!({ "k": "x".repeat(3 << 20) });
    let response = post(&client, MAPS, large).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(value(response).await["reason"], "RequestEntityTooLarge");
    let response = send(&client, Request::post(MAPS), "{").await;
    assert_eq!(value(response).await["reason"], "BadRequest");
}

#[tokio::test]
async fn unknown_fields_are_warned_of_refused_or_ignored() {
    let server = Server::start().await;
    let client = server.client();
    let mut object = config_map("a");
    object["foo"] = json!(1);
    let response = post(&client, &format!("{MAPS}?fieldValidation=Strict"), object.clone()).await;
    let status = value(response).await;
    let message = status["message"].as_str().unwrap();
    assert!(message.ends_with("strict decoding error: unknown field \"foo\""), "{message}");
    let response = post(&client, MAPS, object.clone()).await;
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"foo\\\"\"");
    assert_eq!(value(response).await["foo"], Value::Null);
    object["metadata"]["name"] = json!("b");
    let twice = r#"{"metadata":{"name":"twice"},"data":{"a":"1","a":"2"}}"#;
    let response = send(&client, Request::post(format!("{MAPS}?fieldValidation=Strict")), twice).await;
    let status = value(response).await;
    let message = status["message"].as_str().unwrap();
    assert!(message.ends_with("strict decoding error: duplicate field \"data.a\""), "{message}");
    let response = send(&client, Request::post(MAPS), twice).await;
    assert_eq!(response.headers()["warning"], "299 - \"duplicate field \\\"data.a\\\"\"");
    assert_eq!(value(response).await["data"]["a"], "2");
    let response = post(&client, &format!("{MAPS}?fieldValidation=Ignore"), object).await;
    assert!(response.headers().get("warning").is_none());
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::start().await;
    let client = server.client();
    let response = post(&client, &format!("{MAPS}?dryRun=All"), config_map("a")).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(get(&client, &format!("{MAPS}/a"), "*/*").await.status(), StatusCode::NOT_FOUND);
    post(&client, MAPS, config_map("a")).await;
    let delete = Request::delete(format!("{MAPS}/a?dryRun=All"));
    assert_eq!(send(&client, delete, "").await.status(), StatusCode::OK);
    assert_eq!(get(&client, &format!("{MAPS}/a"), "*/*").await.status(), StatusCode::OK);
    let delete = Request::delete(format!("{MAPS}/a"));
    let body = json!({ "preconditions": { "uid": "other" } }).to_string();
    assert_eq!(send(&client, delete, &body).await.status(), StatusCode::CONFLICT);
    let delete = Request::delete(MAPS);
    let deleted = value(send(&client, delete, "").await).await;
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 1));
}

#[tokio::test]
async fn wrong_parameters_are_refused_and_change_nothing() {
    let server = Server::start().await;
    let client = server.client();
    post(&client, MAPS, config_map("a")).await;
    post(&client, MAPS, config_map("b")).await;
    let dry = |kind| {
        format!(
            "{kind}.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\""
        )
    };
    let policies = r#"supported values: "Background", "Foreground", "Orphan", "nil""#;
    let both = "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set";
    let options = "DeleteOptions.meta.k8s.io \"\" is invalid";
    let rows = [
        ("POST", "?dryRun=Foo", config_map("c"), 422, dry("CreateOptions")),
        ("PUT", "/a?dryRun=Foo", config_map("a"), 422, dry("UpdateOptions")),
        ("DELETE", "/a?dryRun=Foo", Value::Null, 422, dry("DeleteOptions")),
        ("DELETE", "?dryRun=Foo", Value::Null, 422, dry("DeleteOptions")),
        ("DELETE", "/a", json!({ "dryRun": ["Foo"] }), 422, dry("DeleteOptions")),
        (
            "DELETE",
            "/a?propagationPolicy=Foo",
            Value::Null,
            422,
            format!("{options}: propagationPolicy: Unsupported value: \"Foo\": {policies}"),
        ),
        (
            "DELETE",
            "/a",
            json!({ "propagationPolicy": "Orphan", "orphanDependents": true }),
            422,
            format!("{options}: {both}"),
        ),
        ("GET", "?limit=x", Value::Null, 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
    ];
    for (method, rest, body, code, message) in rows {
        let request = Request::builder().method(method).uri(format!("{MAPS}{rest}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = send(&client, request, &body).await;
        let found = response.status().as_u16();
        let status = value(response).await;
        assert_eq!((found, &status["message"]), (code, &json!(message)), "{method} {rest} {body}");
    }
    // A limit that is none, as upstream takes it.
    let list = value(get(&client, &format!("{MAPS}?limit=-1"), "*/*").await).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let gone = send(&client, Request::delete(format!("{MAPS}/a?gracePeriodSeconds=-1")), "").await;
    assert_eq!(gone.status(), StatusCode::OK);
}

#[tokio::test]
async fn objects_come_as_tables_and_as_metadata() {
    let server = Server::start().await;
    let client = server.client();
    let table = value(get(&client, "/api/v1/services", TABLE).await).await;
    assert_eq!((&table["kind"], table["rows"].as_array().unwrap().len()), (&json!("Table"), 2));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["rows"][0]["cells"][0], "kubernetes");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = value(get(&client, "/api/v1/services", accept).await).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["spec"], Value::Null);
    let response = get(&client, "/api/v1/services", "application/cbor").await;
    assert_eq!(response.status(), StatusCode::NOT_ACCEPTABLE);
    let request = Request::post(MAPS).header("accept", "application/cbor");
    let response = send(&client, request, &config_map("unseen").to_string()).await;
    assert_eq!(response.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(get(&client, &format!("{MAPS}/unseen"), "*/*").await.status(), StatusCode::NOT_FOUND);
    let response = get(&client, "/api/v1/namespaces/default/services/kubernetes", "application/yaml").await;
    assert!(text(response).await.contains("clusterIP: 10.96.0.1"));
}

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The object in a protobuf body.
async fn decoded(response: Response<Body>) -> Value {
    assert_eq!(response.headers()["content-type"], PROTOBUF);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    fairlead_apiserver::protobuf::decode(&bytes).unwrap()
}

#[tokio::test]
async fn objects_and_statuses_come_as_protobuf() {
    let server = Server::start().await;
    let client = server.client();
    let accept = format!("{PROTOBUF},application/json");
    let path = "/api/v1/namespaces/default/services/kubernetes";
    let json = value(get(&client, path, "application/json").await).await;
    assert_eq!(decoded(get(&client, path, &accept).await).await, json);
    let request = Request::post(MAPS).header("accept", &accept);
    let made = decoded(send(&client, request, &config_map("a").to_string()).await).await;
    assert_eq!(made["metadata"]["name"], "a");
    let scale = "/apis/apps/v1/namespaces/default/deployments/none/scale";
    assert_eq!(get(&client, scale, &accept).await.status(), StatusCode::NOT_FOUND);
    let delete = Request::delete(format!("{MAPS}/a")).header("accept", &accept);
    assert_eq!(decoded(send(&client, delete, "").await).await["status"], "Success");
    let list = get(&client, "/api/v1/services", &accept).await;
    let bytes = list.into_body().collect().await.unwrap().to_bytes();
    assert!(bytes.starts_with(b"k8s\0") && bytes.windows(11).any(|text| text == b"ServiceList"));
}

#[tokio::test]
async fn a_watch_in_protobuf_comes_in_frames() {
    let server = Server::start().await;
    let client = server.client();
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true");
    let request = Request::get(&path).header("accept", PROTOBUF).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    post(&client, MAPS, config_map("a")).await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (event, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        // The type's field, and then the object's.
        let kind = std::str::from_utf8(&event[2..2 + usize::from(event[1])]).unwrap();
        let start = event.windows(4).position(|bytes| bytes == b"k8s\0").unwrap();
        let object = fairlead_apiserver::protobuf::decode(&event[start..]).unwrap();
        events.push(format!("{kind} {}", object["metadata"]["name"]));
        rest = tail;
    }
    assert_eq!(events, ["ADDED \"a\"", "BOOKMARK null"]);
}

/// The lines of a watch as they come.
pub(crate) async fn lines(
    client: &kube::Client,
    path: &str,
    accept: &str,
) -> impl futures::Stream<Item = Value> + use<> {
    let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
    let lines = client.request_stream(request).await.unwrap().lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

#[tokio::test]
async fn a_watch_over_tls_streams_and_ends_with_a_bookmark() {
    let server = Server::start().await;
    let client = over_tls(&server, true).await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut events = pin!(lines(&client, &path, "application/json").await);
    post(&client, MAPS, config_map("a")).await;
    let added = events.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let version =
        |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(version(&bookmark["object"]) >= version(&added["object"]));
    assert!(events.next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_table_watch_describes_its_columns_once() {
    let server = Server::start().await;
    let client = server.client();
    let mut events = pin!(lines(&client, "/api/v1/services?watch=1", TABLE).await);
    let first = events.next().await.unwrap();
    assert!(first["object"]["columnDefinitions"].is_array());
    assert_eq!(first["object"]["rows"][0]["cells"][0], "kubernetes");
    let second = events.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
}

#[tokio::test]
async fn a_watch_list_marks_the_end_of_what_was_there() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/api/v1/services?watch=1&sendInitialEvents=true&allowWatchBookmarks=true";
    let refused = get(&client, path, "application/json").await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let path = format!("{path}&resourceVersionMatch=NotOlderThan");
    let mut events = pin!(lines(&client, &path, "application/json").await);
    for _ in 0..2 {
        assert_eq!(events.next().await.unwrap()["type"], "ADDED");
    }
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_told_to_list_again() {
    let server = Server::start().await;
    let client = server.client();
    let revision = server.store.revision().await.unwrap();
    server.store.compact(revision).await.unwrap();
    let mut events = pin!(lines(&client, "/api/v1/services?watch=1&resourceVersion=1", "*/*").await);
    let error = events.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(error["object"]["reason"], "Expired");
    let list = get(&client, "/api/v1/services?resourceVersion=1&resourceVersionMatch=Exact", "*/*").await;
    assert_eq!(list.status(), StatusCode::GONE);
    let future = get(&client, "/api/v1/services?resourceVersion=99999", "*/*").await;
    assert_eq!(future.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(value(future).await["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn open_watches_do_not_hold_up_a_stop() {
    let server = Server::start().await;
    let client = over_tls(&server, true).await;
    let mut events = pin!(lines(&client, &format!("{MAPS}?watch=1"), "*/*").await);
    server.stop().await;
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn services_created_at_once_get_different_addresses() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/services";
    let creates = (0..40).map(|n| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("s{n}") },
            "spec": { "ipFamilyPolicy": "PreferDualStack", "ports": [{ "port": 80 }] },
        });
        let client = client.clone();
        async move { Ok::<_, kube::Error>(value(post(&client, path, service).await).await) }
    });
    let services: Vec<Value> =
        futures::stream::iter(creates).map(Ok).try_buffer_unordered(16).try_collect().await.unwrap();
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for service in &services {
        for address in service["spec"]["clusterIPs"].as_array().unwrap() {
            *owners.entry(address.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(owners.len(), 80);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_half_made_write() {
    let server = Server::start().await;
    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "clusterIP": "10.96.5.5", "ports": [{ "port": 80 }] },
        })
    };
    let path = "/api/v1/namespaces/default/services";
    let request = Request::post(path).body(Full::new(Bytes::from(service("a").to_string()))).unwrap();
    let mut answer = server.in_process.clone().call(request);
    // Into the middle of the write, and away.
    assert!(futures::poll!(&mut answer).is_pending());
    drop(answer);
    let client = server.client();
    while get(&client, &format!("{path}/a"), "*/*").await.status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    let response = post(&client, path, service("b")).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
}
