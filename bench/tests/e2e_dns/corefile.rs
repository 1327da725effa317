//! The ConfigMap `kube-system/coredns` is what the resolvers serve, as soon as it is written; a bad one changes nothing and
//! says so where its author looks.

use anyhow::{Result, ensure};
use fairlead_bench::cluster::{Cluster, succeed};
use tokio::process::Command;

use crate::support::eventually;

/// A name that only the Corefile knows, and one of the cluster's.
const OWN: &str = "hello.test";
const CLUSTERS: &str = "kubernetes.default.svc.cluster.local";

pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    everywhere(cluster, OWN, "").await?;
    write(cluster, &corefile("192.0.2.1", "template")).await?;
    everywhere(cluster, OWN, "192.0.2.1").await?;
    everywhere(cluster, CLUSTERS, "10.96.0.1").await?;

    write(cluster, &corefile("192.0.2.2", "tempalte")).await?;
    eventually("an Event says what is wrong", async || {
        let events = ["-n", "kube-system", "get", "events", "--field-selector=reason=CorefileRejected"];
        let text = cluster.kubectl().run(&events).await?;
        let wanted = ["Warning", "configmap/coredns", "Corefile:3", "did you mean template"];
        Ok(wanted.iter().all(|word| text.contains(word)).then_some(()))
    })
    .await?;
    for node in 1..=2 {
        eventually("the failure is counted", async || {
            let metrics = in_node(cluster, node, &["curl", "-s", "http://127.0.0.1:9153/metrics"]).await?;
            Ok(metrics.lines().any(|line| line == "coredns_reload_failed_total 1").then_some(()))
        })
        .await?;
    }
    everywhere(cluster, OWN, "192.0.2.1").await?;

    write(cluster, &corefile("192.0.2.3", "template")).await?;
    everywhere(cluster, OWN, "192.0.2.3").await?;
    by_label(cluster).await?;
    cluster.kubectl().run(&["-n", "kube-system", "delete", "configmap", "coredns"]).await?;
    everywhere(cluster, OWN, "").await?;
    everywhere(cluster, CLUSTERS, "10.96.0.1").await
}

/// Services are shown while they have the labels that the Corefile asks for.
async fn by_label(cluster: &Cluster) -> Result<()> {
    let service = |tier: &str| {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "labelled", "namespace": "default", "labels": { "tier": tier } },
            "spec": { "clusterIP": "10.96.7.7", "ports": [{ "port": 80 }] },
        })
        .to_string()
    };
    let name = "labelled.default.svc.cluster.local";
    cluster.kubectl().apply(&service("front")).await?;
    let chosen = corefile("192.0.2.4", "template")
        .replace("pods insecure", "pods insecure\n        labels tier=front");
    write(cluster, &chosen).await?;
    everywhere(cluster, OWN, "192.0.2.4").await?;
    everywhere(cluster, name, "10.96.7.7").await?;
    everywhere(cluster, CLUSTERS, "").await?;
    cluster.kubectl().apply(&service("back")).await?;
    everywhere(cluster, name, "").await?;
    cluster.kubectl().apply(&service("front")).await?;
    everywhere(cluster, name, "10.96.7.7").await
}

/// The usual one with a name of its own, from a directive that may be misspelt.
fn corefile(address: &str, directive: &str) -> String {
    format!(
        ".:53 {{
    errors
    {directive} IN A {OWN} {{
        answer \"{{{{ .Name }}}} 60 IN A {address}\"
    }}
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
    }}
    prometheus :9153
}}
"
    )
}

/// Writes the ConfigMap as `kubectl edit` would.
async fn write(cluster: &Cluster, corefile: &str) -> Result<()> {
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "coredns", "namespace": "kube-system" },
        "data": { "Corefile": corefile },
    });
    cluster.kubectl().apply(&object.to_string()).await.map(drop)
}

/// Waits until both nodes' resolvers have an address for a name, or none.
async fn everywhere(cluster: &Cluster, name: &str, address: &str) -> Result<()> {
    for node in 1..=2 {
        let what = format!("node-{node} answers {name} with {address:?}");
        eventually(&what, async || {
            let server = format!("@172.29.0.1{node}");
            let said = in_node(cluster, node, &["dig", &server, "+short", "+time=2", name, "A"]).await?;
            ensure!(!said.contains(";;"), "{said}");
            Ok((said.trim() == address).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// What a command prints in the network of a node.
async fn in_node(cluster: &Cluster, node: u32, command: &[&str]) -> Result<String> {
    let mut ip = Command::new("ip");
    succeed(ip.args(["netns", "exec", &cluster.node_netns(node)]).args(command)).await
}
