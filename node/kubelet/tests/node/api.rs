//! An API server in memory: just enough of the verbs for a kubelet, with none of the validation.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server; clones share it.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
}

struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    changes: broadcast::Sender<(String, String)>,
}

impl Api {
    pub(crate) fn new() -> Self {
        let (changes, _) = broadcast::channel(10_000);
        let state = State { revision: 1, objects: BTreeMap::new(), changes };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Puts an object at a path such as `/api/v1/namespaces/demo/pods/echo`.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        // Unlike any other of this machine: runc keeps all containers in one place.
        let uid =
            format!("{:x}-{}-{}", jiff::Timestamp::now().as_nanosecond(), std::process::id(), state.revision);
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.entry("uid").or_insert(json!(uid));
        metadata.entry("creationTimestamp").or_insert(json!(jiff::Timestamp::now()));
        state.store("ADDED", path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// As `kubectl delete` does it.
    pub(crate) fn delete(&self, path: &str, grace: i64) {
        let mut state = self.state.lock().unwrap();
        let Some(mut object) = state.objects.get(path).cloned() else { return };
        if grace == 0 {
            state.objects.remove(path);
            state.store("DELETED", path, object);
        } else {
            object["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            state.store("MODIFIED", path, object);
        }
    }

    /// Waits until `wanted` of the pod holds.
    pub(crate) async fn pod_where(&self, path: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let pod = self.value_where(path, what, |value| {
            value.is_some_and(|value| wanted(&serde_json::from_value(value.clone()).unwrap()))
        });
        serde_json::from_value(pod.await.unwrap()).unwrap()
    }

    /// Waits until `wanted` holds of what is at the path.
    pub(crate) async fn value_where(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut changes = self.state.lock().unwrap().changes.subscribe();
        let wait = async {
            loop {
                let now = self.get(path);
                if wanted(now.as_ref()) {
                    return now;
                }
                let _ = changes.recv().await;
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(30), wait).await {
            Ok(value) => value,
            Err(_) => panic!(
                "{what} did not happen; {path} is {:#}; events: {:#?}",
                self.get(path).unwrap_or_default(),
                self.list("/api/v1/namespaces/demo/events/")
                    .iter()
                    .map(|e| e["message"].clone())
                    .collect::<Vec<_>>()
            ),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().trim_end_matches('/').to_owned();
        let object = path.strip_suffix("/status").unwrap_or(&path).to_owned();
        match parts.method {
            Method::GET if parts.uri.query().unwrap_or("").contains("watch=true") => self.watch(&path),
            Method::GET => match self.get(&object) {
                Some(value) => json_answer(StatusCode::OK, &value),
                None if is_collection(&object) => self.collection(&object),
                None => not_found(&object),
            },
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or("unnamed").to_owned();
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return status(StatusCode::CONFLICT, "AlreadyExists", &path);
                }
                self.put(&path, body);
                json_answer(StatusCode::CREATED, &self.get(&path).unwrap())
            }
            Method::PATCH => {
                let mut state = self.state.lock().unwrap();
                let Some(mut value) = state.objects.get(&object).cloned() else { return not_found(&object) };
                merge(&mut value, &body);
                state.store("MODIFIED", &object, value.clone());
                json_answer(StatusCode::OK, &value)
            }
            Method::DELETE => {
                let Some(value) = self.get(&object) else { return not_found(&object) };
                if body["preconditions"]["uid"].as_str().is_some_and(|uid| value["metadata"]["uid"] != uid) {
                    return status(StatusCode::CONFLICT, "Conflict", &object);
                }
                self.delete(&object, body["gracePeriodSeconds"].as_i64().unwrap_or(30));
                json_answer(StatusCode::OK, &value)
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &path),
        }
    }

    fn collection(&self, path: &str) -> Answer {
        let state = self.state.lock().unwrap();
        let items: Vec<_> =
            state.objects.iter().filter(|(p, _)| is_in(p, path)).map(|(_, object)| object.clone()).collect();
        let list = json!({ "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": { "resourceVersion": state.revision.to_string() } });
        json_answer(StatusCode::OK, &list)
    }

    fn watch(&self, path: &str) -> Answer {
        let path = path.to_owned();
        let changes = self.state.lock().unwrap().changes.subscribe();
        let lines = stream::unfold(changes, move |mut changes| {
            let path = path.clone();
            async move {
                loop {
                    let (changed, line) = changes.recv().await.ok()?;
                    if is_in(&changed, &path) {
                        return Some((Ok(Frame::data(Bytes::from(line))), changes));
                    }
                }
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(lines.boxed())))
    }
}

impl State {
    fn store(&mut self, kind: &str, path: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        if kind != "DELETED" {
            self.objects.insert(path.to_owned(), object);
        }
        let _ = self.changes.send((path.to_owned(), line));
    }
}

/// Whether the object is in the collection, of one namespace or of all.
fn is_in(object: &str, collection: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    let all = |path: &str| match path.split_once("/namespaces/") {
        Some((before, after)) => format!("{before}/{}", after.split('/').nth(1).unwrap_or("")),
        None => path.to_owned(),
    };
    parent == collection || all(parent) == collection
}

fn is_collection(path: &str) -> bool {
    let after = path.split("/v1/").nth(1).unwrap_or("");
    let words = after.split('/').count();
    if after.starts_with("namespaces/") { words == 3 } else { words == 1 }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn json_answer(code: StatusCode, value: &Value) -> Answer {
    let body = stream::iter([Ok(Frame::data(Bytes::from(value.to_string())))]);
    let mut answer = Response::new(BodyExt::boxed_unsync(StreamBody::new(body)));
    *answer.status_mut() = code;
    answer
}

fn status(code: StatusCode, reason: &str, path: &str) -> Answer {
    let value = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": path, "reason": reason, "code": code.as_u16() });
    json_answer(code, &value)
}

fn not_found(path: &str) -> Answer {
    status(StatusCode::NOT_FOUND, "NotFound", path)
}
