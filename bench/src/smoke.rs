//! `bench smoke`: memory when idle, time to Ready, time of a pod to Ready.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    cluster::Cluster,
    scenario::replace::is_ready,
    screen::{human, human_bytes},
};

/// Pods that are started one after the other.
const PODS: u32 = 20;

/// How long one pod may take before the measurement gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The processes of a machine that is a server and a node.
const TOGETHER: &str = "server, node-1 agent, node-1 dns";

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Smoke {
    /// `fairlead up` until both nodes were Ready, in milliseconds.
    pub up_ms: f64,
    /// Resident memory of each process when idle, in bytes.
    pub resident: Vec<Resident>,
    /// Milliseconds from a pod's creation to Ready, sorted.
    pub pod_ready_ms: Vec<f64>,
}

/// Resident memory of one process.
#[derive(Debug, Serialize)]
pub struct Resident {
    /// Role of the process, such as `server` or `node-1 agent`.
    pub process: String,
    /// All resident pages (`VmRSS` of `/proc/<pid>/status`).
    pub resident_bytes: u64,
    /// Of them those that belong to no file (`RssAnon`).
    pub anonymous_bytes: u64,
}

/// Measures a cluster that is up and has no load.
pub async fn run(cluster: &Cluster) -> Result<Smoke> {
    let resident = resident(cluster).await?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await?);
    let mut pod_ready_ms = Vec::new();
    for n in 0..PODS {
        pod_ready_ms.push(pod_ready(&pods, &format!("smoke-{n}")).await?.as_secs_f64() * 1e3);
    }
    pod_ready_ms.sort_by(f64::total_cmp);
    Ok(Smoke { up_ms: cluster.started_in().as_secs_f64() * 1e3, resident, pod_ready_ms })
}

async fn resident(cluster: &Cluster) -> Result<Vec<Resident>> {
    let status = cluster.json(&["status"]).await?;
    let processes =
        status["processes"].as_array().context("`fairlead status -o json` has no list `processes`")?;
    let row = |process: &serde_json::Value| {
        let name = process["name"].as_str().context("a process has no name")?.to_owned();
        let pid = process["pid"].as_i64().with_context(|| format!("{name} has no pid"))?;
        let file = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file} of {name}"))?;
        let bytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let kib = line
                .and_then(|rest| rest.split_whitespace().nth(1))
                .and_then(|number| number.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("{file} has no {key}"))
        };
        Ok(Resident { process: name, resident_bytes: bytes("VmRSS")?, anonymous_bytes: bytes("RssAnon")? })
    };
    processes.iter().map(row).collect()
}

/// Creates a pod, waits until it is Ready, deletes it.
async fn pod_ready(pods: &Api<Pod>, name: &str) -> Result<Duration> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "echo",
                "image": "fairlead.dev/workload:demo",
                "args": ["echo", "--port", "8080"],
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 } },
            }],
        },
    }))?;
    let clock = Instant::now();
    let created = pods.create(&PostParams::default(), &pod).await?;
    let revision = created.metadata.resource_version.context("the created pod has no resourceVersion")?;
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = pods.watch(&only, &revision).await?.boxed();
    let ready = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Modified(pod) = event?
                && is_ready(&pod)
            {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended before {name} was Ready")
    };
    tokio::time::timeout(PATIENCE, ready)
        .await
        .with_context(|| format!("{name} was not Ready in {PATIENCE:?}"))??;
    let took = clock.elapsed();
    pods.delete(name, &DeleteParams::default()).await?;
    Ok(took)
}

impl Smoke {
    /// A table for the README.
    pub fn print(&self) {
        let quantile = |q: f64| {
            let last = self.pod_ready_ms.len().saturating_sub(1);
            let index = (q * last as f64).round() as usize;
            human(Duration::from_secs_f64(self.pod_ready_ms.get(index).copied().unwrap_or_default() / 1e3))
        };
        println!("| what | measured |\n|---|---|");
        println!(
            "| `fairlead up` until both nodes are Ready | {} |",
            human(Duration::from_secs_f64(self.up_ms / 1e3))
        );
        println!("| pod created until Ready, image present, p50 | {} |", quantile(0.5));
        println!("| the same, p90 | {} |", quantile(0.9));
        for row in &self.resident {
            let (all, own) = (human_bytes(row.resident_bytes), human_bytes(row.anonymous_bytes));
            println!("| resident memory of {}, idle | {all}, of which {own} are its own |", row.process);
        }
        println!(
            "| {TOGETHER} together, the binary's pages counted once | {} |",
            human_bytes(self.together_bytes())
        );
    }

    /// What a machine with a server and one node holds: each process's own pages, and the pages of files, which are those
    /// of the one binary, as the process has them that touched most.
    fn together_bytes(&self) -> u64 {
        let rows = || self.resident.iter().filter(|row| TOGETHER.split(", ").any(|name| name == row.process));
        let own: u64 = rows().map(|row| row.anonymous_bytes).sum();
        own + rows().map(|row| row.resident_bytes - row.anonymous_bytes).max().unwrap_or_default()
    }
}
