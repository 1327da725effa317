//! Latency and throughput of each operation, with many clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::process::{self, Server};
use super::quantile;

/// How many clients work at once.
pub(super) const CLIENTS: usize = 64;
const LIST_LEN: u32 = 500;
const LISTS: usize = 128;
const GETS: usize = 6_000;
const CHANGES: usize = 3_000;

/// What was measured of one operation.
#[derive(Debug, Serialize)]
pub struct Operation {
    /// Such as `create`.
    pub name: &'static str,
    /// How often it was done.
    pub count: usize,
    /// Latency that half of them had at most.
    pub p50_ms: f64,
    /// Latency that 99 of a hundred had at most.
    pub p99_ms: f64,
    /// Throughput.
    pub per_second: f64,
    /// Processor time of the server for each, what it does on the side included.
    pub server_cpu_us: f64,
    /// And of this process, which has the same processors.
    pub client_cpu_us: f64,
}

const PATH: &str = "/api/v1/namespaces/default/pods";

/// Creates `pods` pods. Answers are read and not decoded: the client shares the processors with the server, and is not
/// what is measured.
pub(super) async fn creates(server: &Server, pods: usize) -> Result<Operation> {
    let create = |n| send("POST", PATH.to_owned(), "application/json", &pod(&format!("pod-{n}")));
    measure("create", pods, CLIENTS, server, create).await
}

fn send(method: &str, path: String, media: &'static str, body: &Value) -> http::Result<Request<Vec<u8>>> {
    Request::builder().method(method).uri(path).header(CONTENT_TYPE, media).body(body.to_string().into())
}

/// Reads and changes the `pods` pods that there are.
pub(super) async fn others(server: &Server, pods: usize) -> Result<Vec<Operation>> {
    let name = move |n: usize| format!("pod-{}", n % pods);
    let get = |path: String| Request::get(path).body(Vec::new());
    Ok(vec![
        measure("get", GETS, CLIENTS, server, move |n| get(format!("{PATH}/{}", name(n)))).await?,
        measure("list(500)", LISTS, CLIENTS, server, move |_| get(format!("{PATH}?limit={LIST_LEN}")))
            .await?,
        measure("list(500), 1 client", LISTS, 1, server, move |_| get(format!("{PATH}?limit={LIST_LEN}")))
            .await?,
        measure("patch", CHANGES, CLIENTS, server, move |n| {
            let patch = json!({ "metadata": { "annotations": { "n": n.to_string() } } });
            send("PATCH", format!("{PATH}/{}", name(n)), "application/merge-patch+json", &patch)
        })
        .await?,
        measure("apply", CHANGES, CLIENTS, server, move |n| {
            let object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name(n), "labels": { "applied": n.to_string() } },
            });
            let path = format!("{PATH}/{}?fieldManager=bench&force=true", name(n));
            send("PATCH", path, "application/apply-patch+yaml", &object)
        })
        .await?,
    ])
}

async fn measure(
    name: &'static str,
    count: usize,
    clients: usize,
    server: &Server,
    request: impl Fn(usize) -> http::Result<Request<Vec<u8>>> + Clone + Send + 'static,
) -> Result<Operation> {
    let next = Arc::new(AtomicUsize::new(0));
    let (clock, before) = (Instant::now(), (server.cpu()?, process::own_cpu()?));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (next, client, request) = (next.clone(), server.client.clone(), request.clone());
        tasks.spawn(async move {
            let mut taken: Vec<Duration> = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return anyhow::Ok(taken);
                }
                let request = request(n)?;
                let start = Instant::now();
                let answer = client.send(request.map(Body::from)).await?;
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                ensure!(status.is_success(), "{name}: {status}: {}", String::from_utf8_lossy(&body));
                taken.push(start.elapsed());
            }
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(taken) = tasks.join_next().await {
        all.extend(taken??);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let each = |now: Duration, before| now.saturating_sub(before).as_secs_f64() * 1e6 / count as f64;
    let server_cpu_us = each(server.cpu()?, before.0);
    let client_cpu_us = each(process::own_cpu()?, before.1);
    all.sort_unstable();
    let ms = |share| quantile(&all, share).as_secs_f64() * 1e3;
    let per_second = count as f64 / seconds;
    Ok(Operation { name, count, p50_ms: ms(0.5), p99_ms: ms(0.99), per_second, server_cpu_us, client_cpu_us })
}

/// A pod as workloads make them: labels, variables, probes, requests, a volume.
fn pod(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "labels": { "app": "web", "tier": "front", "pod-template-hash": "5d4f8c7b9" },
            "annotations": { "example.com/revision": "42" },
        },
        "spec": {
            // No node is here that could run it, and no scheduler looks at it.
            "schedulerName": "none",
            "containers": [{
                "name": "web",
                "image": "registry.example.com/team/web:1.27.3",
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "env": [
                    { "name": "LOG_LEVEL", "value": "info" },
                    { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                ],
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http" } },
                "livenessProbe": { "httpGet": { "path": "/healthz", "port": "http" }, "periodSeconds": 30 },
                "volumeMounts": [{ "name": "config", "mountPath": "/etc/web" }],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": "web" } }],
        },
    })
}
