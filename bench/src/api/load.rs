//! Latency and throughput of each operation, with many clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

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
}

/// Creates `pods` pods, and then reads and changes them.
pub(super) async fn run(client: &Client, pods: usize) -> Result<Vec<Operation>> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let name = move |n: usize| format!("pod-{}", n % pods);
    let manager = PatchParams::apply("bench").force();
    Ok(vec![
        measure("create", pods, &api, move |api, n| async move {
            api.create(&PostParams::default(), &pod(&name(n))).await.map(drop)
        })
        .await?,
        measure("get", GETS, &api, move |api, n| async move { api.get(&name(n)).await.map(drop) }).await?,
        measure("list(500)", LISTS, &api, move |api, _| async move {
            api.list(&ListParams::default().limit(LIST_LEN)).await.map(drop)
        })
        .await?,
        measure("patch", CHANGES, &api, move |api, n| async move {
            let patch = Patch::Merge(json!({ "metadata": { "annotations": { "n": n.to_string() } } }));
            api.patch(&name(n), &PatchParams::default(), &patch).await.map(drop)
        })
        .await?,
        measure("apply", CHANGES, &api, move |api, n| {
            let manager = manager.clone();
            async move {
                let patch = Patch::Apply(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": { "name": name(n), "labels": { "applied": n.to_string() } },
                }));
                api.patch(&name(n), &manager, &patch).await.map(drop)
            }
        })
        .await?,
    ])
}

async fn measure<F>(
    name: &'static str,
    count: usize,
    api: &Api<Pod>,
    operation: impl Fn(Api<Pod>, usize) -> F + Clone + Send + 'static,
) -> Result<Operation>
where
    F: Future<Output = kube::Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let clock = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (next, api, operation) = (next.clone(), api.clone(), operation.clone());
        clients.spawn(async move {
            let mut taken: Vec<Duration> = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<_, kube::Error>(taken);
                }
                let start = Instant::now();
                operation(api.clone(), n).await?;
                taken.push(start.elapsed());
            }
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(taken) = clients.join_next().await {
        all.extend(taken??);
    }
    let seconds = clock.elapsed().as_secs_f64();
    all.sort_unstable();
    let ms = |share| quantile(&all, share).as_secs_f64() * 1e3;
    Ok(Operation { name, count, p50_ms: ms(0.5), p99_ms: ms(0.99), per_second: count as f64 / seconds })
}

/// A pod as workloads make them: labels, variables, probes, requests, a volume.
fn pod(name: &str) -> Pod {
    let object = json!({
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
    });
    let pod: Pod = serde_json::from_value(object).expect("the pod is one");
    debug_assert_eq!(pod.name_any(), name);
    pod
}
