//! A node's agent is stopped as if its machine hung: its pods come up elsewhere, and it returns when it goes on.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fairlead_bench::cluster::Cluster;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{eventually, pid_of, signal};

const MANIFEST: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"spread"},"spec":{
    "replicas":2,"selector":{"matchLabels":{"app":"spread"}},"template":{"metadata":{"labels":{"app":"spread"}},"spec":{
    "terminationGracePeriodSeconds":1,
    "tolerations":[{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":1}],
    "containers":[{"name":"echo","image":"fairlead.dev/workload:demo","args":["echo"],
        "readinessProbe":{"httpGet":{"path":"/healthz","port":8080},"periodSeconds":1}}]}}}}"#;

/// Goes on when the test ends, however it ends.
struct Stopped(i32);

impl Stopped {
    fn stop(pid: i32) -> Result<Self> {
        signal(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed in between.
        let _ = signal(self.0, Signal::SIGCONT);
    }
}

/// Stops the agent of node-2 and lets it go on.
pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.apply(MANIFEST).await?;
    kubectl.run(&["rollout", "status", "deployment/spread", "--timeout=40s"]).await?;
    let before = ready_nodes(cluster).await?;
    ensure!(before == ["node-1", "node-2"], "the pods are not spread over both nodes: {before:?}");

    let stopped = Stopped::stop(pid_of(cluster, "node-2 agent").await?)?;
    eventually("the silent node is not Ready", async || {
        Ok((readiness(cluster).await? == "Unknown").then_some(()))
    })
    .await?;
    let events = kubectl.run(&["get", "events", "-A", "--field-selector=reason=NodeNotReady"]).await?;
    ensure!(events.contains("node-2"), "no Event says that node-2 is not Ready:\n{events}");
    let status = cluster.fairlead("status")?.arg("--check").output().await.context("`fairlead status`")?;
    let said = String::from_utf8_lossy(&status.stderr);
    ensure!(!status.status.success() && said.contains("node-2"), "`fairlead status --check` said {said:?}");
    eventually("its pod is replaced on the other node", async || {
        Ok((ready_nodes(cluster).await? == ["node-1", "node-1"]).then_some(()))
    })
    .await?;

    drop(stopped);
    eventually("the node is Ready again", async || Ok((readiness(cluster).await? == "True").then_some(())))
        .await?;
    eventually("its old pod is gone and its taints too", async || {
        let pods = pods(cluster).await?;
        let taints = &kubectl.json(&["get", "node", "node-2"]).await?["spec"]["taints"];
        let names: BTreeSet<_> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        Ok((names.len() == 2 && taints.as_array().is_none_or(Vec::is_empty)).then_some(()))
    })
    .await
}

/// Status of node-2's condition Ready.
async fn readiness(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    cluster.kubectl().run(&["get", "node", "node-2", "-o", path]).await
}

async fn pods(cluster: &Cluster) -> Result<Vec<Value>> {
    let list = cluster.kubectl().json(&["get", "pods", "-l", "app=spread"]).await?;
    list["items"].as_array().cloned().context("a list has no items")
}

/// The nodes of the pods that are Ready and stay, sorted.
async fn ready_nodes(cluster: &Cluster) -> Result<Vec<String>> {
    let is_ready = |pod: &Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let pods = pods(cluster).await?;
    let mut nodes: Vec<_> = pods
        .iter()
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned))
        .collect();
    nodes.sort();
    Ok(nodes)
}
