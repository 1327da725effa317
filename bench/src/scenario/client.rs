//! A client pod resolves the names through the cluster DNS address and makes a thousand requests to the service.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, runtime::wait::await_condition};
use serde_json::Value;

use super::{NAMESPACE, apply::Placed};
use crate::{
    cluster::Cluster,
    screen::{bar, detail},
};

const MANIFEST: &str = include_str!("../../manifests/client.yaml");

/// Requests that the manifest asks for.
const REQUESTS: u64 = 1_000;

/// How long the client may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the client pod reported.
pub struct Report {
    names: Vec<(String, Vec<String>, u64)>,
    node: String,
    by_backend: BTreeMap<String, u64>,
    by_node: BTreeMap<String, u64>,
    p50_us: u64,
    p99_us: u64,
}

/// Runs the client pod to its end and reads what it printed.
pub async fn run(cluster: &Cluster) -> Result<Report> {
    let kubectl = cluster.kubectl();
    kubectl.apply(MANIFEST).await?;
    // Not `kubectl wait`: the kubectl of Debian 12 waits for conditions only, and a pod that ends has none for it.
    let pods: Api<Pod> = Api::namespaced(cluster.client().await?, NAMESPACE);
    let ended = await_condition(pods, "client", |pod: Option<&Pod>| {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    });
    tokio::time::timeout(PATIENCE, ended).await.context("the client pod did not end")??;
    let text = kubectl.run(&["-n", NAMESPACE, "logs", "client"]).await?;
    let report = Report::read(&text).with_context(|| format!("the client pod printed:\n{text}"))?;
    report.check(cluster).await.with_context(|| format!("the client pod printed:\n{text}"))?;
    Ok(report)
}

impl Report {
    fn read(text: &str) -> Result<Self> {
        let lines =
            text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
        let names = lines.iter().filter(|line| line["resolve"].is_string()).map(|line| {
            let name = line["resolve"].as_str().unwrap_or_default().to_owned();
            Ok((
                name,
                serde_json::from_value(line["addresses"].clone())?,
                line["took_us"].as_u64().unwrap_or_default(),
            ))
        });
        let sum =
            lines.iter().find(|line| line["total"].is_u64()).context("the requests were not reported")?;
        ensure!(sum["failed"] == 0 && sum["total"] == REQUESTS, "not every request was answered: {sum}");
        Ok(Self {
            names: names.collect::<Result<_>>()?,
            node: sum["node"].as_str().unwrap_or_default().to_owned(),
            by_backend: serde_json::from_value(sum["by_backend"].clone())?,
            by_node: serde_json::from_value(sum["by_node"].clone())?,
            p50_us: sum["latency_us"]["p50"].as_u64().unwrap_or_default(),
            p99_us: sum["latency_us"]["p99"].as_u64().unwrap_or_default(),
        })
    }

    /// The names lead to what the API says, and every backend took its share.
    async fn check(&self, cluster: &Cluster) -> Result<()> {
        let kubectl = cluster.kubectl();
        let service = kubectl.json(&["-n", NAMESPACE, "get", "service", "echo"]).await?;
        let mut expected: Vec<IpAddr> = serde_json::from_value(service["spec"]["clusterIPs"].clone())?;
        expected.sort();
        for name in ["echo.demo.svc.cluster.local", "echo"] {
            ensure!(
                self.addresses(name)? == expected,
                "{name} resolved to {:?}, not {expected:?}",
                self.addresses(name)?
            );
        }
        let pods = kubectl.json(&["-n", NAMESPACE, "get", "pods", "-l", "app=echo"]).await?;
        let addresses =
            pods["items"].as_array().into_iter().flatten().flat_map(|pod| pod["status"]["podIPs"].as_array());
        let addresses = addresses.flatten().filter_map(|ip| ip["ip"].as_str());
        let mut expected = addresses.map(str::parse).collect::<std::result::Result<Vec<IpAddr>, _>>()?;
        expected.sort();
        let headless = self.addresses("echo-headless.demo.svc.cluster.local")?;
        ensure!(headless == expected, "the headless name resolved to {headless:?}, not {expected:?}");
        ensure!(self.by_backend.len() == 3, "not all three backends answered: {:?}", self.by_backend);
        ensure!(self.by_node.len() > 1, "only one node answered: {:?}", self.by_node);
        Ok(())
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let (_, found, _) = self
            .names
            .iter()
            .find(|row| row.0 == name)
            .with_context(|| format!("{name} was not resolved"))?;
        let mut found =
            found.iter().map(|text| text.parse()).collect::<std::result::Result<Vec<IpAddr>, _>>()?;
        found.sort();
        Ok(found)
    }

    /// Prints names, shares and times.
    pub fn print(&self, placed: &Placed) {
        for (name, addresses, took_us) in &self.names {
            detail(format!("{name} → {}  ({took_us} µs)", addresses.join(", ")));
        }
        for (pod, count) in &self.by_backend {
            let node = placed.nodes.get(pod).map(String::as_str).unwrap_or_default();
            let place = if node == self.node { "same node" } else { "cross-node" };
            detail(format!("{} {count:>4}  {pod}  {node}, {place}", bar(*count, REQUESTS)));
        }
        let same = self.by_node.get(&self.node).copied().unwrap_or_default();
        let share = |count: u64| format!("{:.1} %", count as f64 * 100.0 / REQUESTS as f64);
        detail(format!(
            "same node {}, cross-node {}; a request took {} µs (median), {} µs (p99)",
            share(same),
            share(REQUESTS - same),
            self.p50_us,
            self.p99_us
        ));
    }
}
