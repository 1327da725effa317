//! Whatever a client sends, the answer says what is wrong with it: never a fault of the server.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use bytes::Bytes;
use fairlead_apiserver::resource::RESOURCES;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::Server;

/// Names of fields that mean something somewhere.
const FIELDS: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "uid",
    "resourceVersion",
    "spec",
    "status",
    "replicas",
    "selector",
    "template",
    "matchLabels",
    "containers",
    "image",
    "ports",
    "port",
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "type",
    "conditions",
    "target",
    "data",
    "stringData",
    "nodeName",
    "$patch",
    "$setElementOrder/containers",
    "apiVersion",
    "kind",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(FIELDS).prop_map(str::to_owned),
        1 => "[a-z]{1,6}",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        word().prop_map(Value::from),
        Just(json!("10.96.0.77")),
        Just(json!("IPv6")),
        Just(json!("PreferDualStack")),
        Just(json!("")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Lays `noise` over an object that is valid, so that it gets past the first checks.
fn overlay(object: &mut Value, noise: &Value) {
    match (object, noise) {
        (Value::Object(object), Value::Object(noise)) => {
            for (key, value) in noise {
                overlay(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, noise) => *object = noise.clone(),
    }
}

fn valid(kind: &str, name: &str) -> Value {
    let template = json!({
        "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let mut object = json!({ "metadata": { "name": name } });
    match kind {
        "Pod" => object["spec"] = template["spec"].clone(),
        "Deployment" | "ReplicaSet" => {
            object["spec"] = json!({ "selector": { "matchLabels": { "a": "b" } }, "template": template });
        }
        "Service" => object["spec"] = json!({ "ports": [{ "port": 80 }] }),
        "EndpointSlice" => {
            object["addressType"] = json!("IPv4");
            object["endpoints"] = json!([]);
        }
        "Event" => {
            object["involvedObject"] = json!({ "namespace": "default" });
        }
        _ => {}
    }
    object
}

async fn send(server: &Server, method: Method, path: &str, media: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = server.in_process.clone().oneshot(request).await.unwrap();
    let code = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Sends noise to every verb that takes a body; returns what was a fault of the server.
async fn faults(server: &Server, case: u64, noise: &Value, codes: &mut BTreeSet<u16>) -> Vec<String> {
    let mut faults = Vec::new();
    for resource in RESOURCES {
        let group = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        let namespace = if resource.namespaced { "/namespaces/default" } else { "" };
        let collection = format!("{group}{namespace}/{}", resource.plural);
        let name = format!("x{case}");
        let object_path = format!("{collection}/{name}");
        let object = valid(resource.kind, &name);
        let mut noisy = object.clone();
        overlay(&mut noisy, noise);
        let json_patch = json!([{ "op": "add", "path": "/spec", "value": noise }]);
        let apply_path = format!("{object_path}?fieldManager=noise&force=true");
        let mut calls = vec![
            (Method::POST, collection.clone(), "application/json", noise),
            (Method::POST, collection.clone(), "application/json", &noisy),
            (Method::POST, collection.clone(), "application/json", &object),
            (Method::PUT, object_path.clone(), "application/json", &noisy),
            (Method::PATCH, object_path.clone(), "application/merge-patch+json", noise),
            (Method::PATCH, object_path.clone(), "application/strategic-merge-patch+json", noise),
            (Method::PATCH, object_path.clone(), "application/json-patch+json", &json_patch),
            (Method::PATCH, apply_path, "application/apply-patch+yaml", &noisy),
        ];
        for subresource in resource.subresources {
            let path = format!("{object_path}/{subresource}");
            calls.push((Method::PUT, path.clone(), "application/json", &noisy));
            calls.push((Method::POST, path.clone(), "application/json", &noisy));
            calls.push((Method::PATCH, path, "application/strategic-merge-patch+json", noise));
        }
        calls.push((Method::DELETE, object_path, "application/json", noise));
        for (method, path, media, body) in calls {
            let (code, answer) = send(server, method.clone(), &path, media, body).await;
            codes.insert(code.as_u16());
            if code == StatusCode::INTERNAL_SERVER_ERROR {
                faults.push(format!("{method} {path} {body} → {answer}"));
            }
        }
    }
    faults
}

#[test]
fn no_body_is_the_servers_fault() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let case = Cell::new(0);
    let codes = RefCell::new(BTreeSet::new());
    let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&any_json(), |noise| {
        case.set(case.get() + 1);
        let faults = runtime.block_on(faults(&server, case.get(), &noise, &mut codes.borrow_mut()));
        prop_assert!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    });
    outcome.unwrap();
    let codes = codes.into_inner();
    // The noise reached all stages: some was stored, the rest was refused for one reason or another.
    assert!([200, 201, 400, 404, 405, 409, 422].iter().all(|code| codes.contains(code)), "{codes:?}");
    runtime.block_on(server.stop());
}
