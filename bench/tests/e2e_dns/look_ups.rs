//! Glibc clients in pods, which ask for A and AAAA at the same time from one socket.

use anyhow::{Context, Result, ensure};
use fairlead_bench::cluster::Cluster;
use serde_json::Value;

use crate::support::eventually;

const MANIFEST: &str = include_str!("../../manifests/look-ups.yaml");
/// Looks names up a number of times, with one attempt for each question.
const CALM: &str = "look-ups";
const COUNT: u64 = 100_000;
/// Looks names up until it is told to end.
const LONG: &str = "look-ups-for-long";

/// Starts the one that goes on until its end is asked for; the other one has a calm cluster to itself, later.
pub(crate) async fn start(cluster: &Cluster) -> Result<()> {
    let (_, long) = MANIFEST.split_once("---\n").context("the manifest has two pods")?;
    cluster.kubectl().apply(long).await?;
    begun(cluster, LONG).await
}

/// Waits until a node has begun with the pod: before, there is no log to ask for.
async fn begun(cluster: &Cluster, pod: &str) -> Result<()> {
    eventually(&format!("{pod} goes on"), async || {
        let pod = cluster.kubectl().json(&["get", "pod", pod]).await?;
        Ok(pod["status"]["phase"].as_str().filter(|phase| *phase != "Pending").map(drop))
    })
    .await
}

/// How many look-ups it has done, in thousands.
pub(crate) async fn progress(cluster: &Cluster) -> Result<u64> {
    let said = cluster.kubectl().run(&["logs", LONG, "--tail=1"]).await?;
    let number = said.split_whitespace().next().unwrap_or("0");
    number.parse().with_context(|| format!("the client says {said}"))
}

/// Ends it. None of its look-ups failed, whatever happened meanwhile.
pub(crate) async fn end(cluster: &Cluster) -> Result<()> {
    cluster.kubectl().run(&["create", "service", "clusterip", "the-end", "--tcp=80"]).await?;
    report_of(cluster, LONG).await.map(drop)
}

/// A hundred thousand look-ups, each with one attempt only: none of them loses a single answer.
pub(crate) async fn without_a_stall(cluster: &Cluster) -> Result<()> {
    let (calm, _) = MANIFEST.split_once("---\n").context("the manifest has two pods")?;
    cluster.kubectl().apply(calm).await?;
    let report = report_of(cluster, CALM).await?;
    ensure!(report["look_ups"] == COUNT, "{report}");
    Ok(())
}

/// What a client says at its end.
async fn report_of(cluster: &Cluster, pod: &str) -> Result<Value> {
    let kubectl = cluster.kubectl();
    begun(cluster, pod).await?;
    let ended = ["wait", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=150s"];
    let waited = kubectl.run(&[&ended[..], &[&format!("pod/{pod}")]].concat()).await;
    let said = kubectl.run(&["logs", pod, "--tail=1"]).await?;
    println!("{pod}: {}", said.trim());
    waited?;
    let report: Value = serde_json::from_str(&said).with_context(|| format!("{pod} says {said}"))?;
    ensure!(report["failed"] == 0, "look-ups failed: {report}");
    Ok(report)
}
