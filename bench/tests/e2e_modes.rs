//! A whole cluster in the modes with rules: real pods ask a real service through them, and nothing of them stays.

use anyhow::{Result, ensure};
use fairlead_bench::{
    cluster::{Cluster, ClusterSpec, folder_for, succeed},
    scenario::{apply, client},
};
use tokio::process::Command;

/// A mode, and how its rules are listed and known.
struct Mode {
    name: &'static str,
    api_port: u16,
    list: &'static [&'static str],
    known_by: &'static str,
}

const IPTABLES: Mode =
    Mode { name: "iptables", api_port: 16_461, list: &["iptables-save", "-t", "nat"], known_by: "KUBE-SVC-" };
const NFTABLES: Mode = Mode {
    name: "nftables",
    api_port: 16_462,
    list: &["nft", "list", "table", "ip", "kube-proxy"],
    known_by: "service-ips",
};

#[tokio::test(flavor = "multi_thread")]
async fn iptables_rules_carry_a_cluster_and_go_with_it() -> Result<()> {
    carries(&IPTABLES).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nftables_rules_carry_a_cluster_and_go_with_it() -> Result<()> {
    carries(&NFTABLES).await
}

async fn carries(mode: &Mode) -> Result<()> {
    let name = format!("e2e-{}", mode.name);
    let folder = folder_for(&name);
    let cluster = Cluster::planned(ClusterSpec { name, nodes: 2, api_port: mode.api_port, folder });
    succeed(cluster.up_command()?.args(["--proxy-mode", mode.name])).await?;
    let outcome = asks(&cluster, mode).await;
    let netns = cluster.node_netns(1);
    // What is stored is kept, and with it what the nodes remember.
    succeed(&mut cluster.fairlead("down")?).await?;
    let again = match &outcome {
        Ok(()) => starts_in_the_default_mode(&cluster, mode).await,
        Err(_) => Ok(()),
    };
    cluster.down().await?;
    outcome?;
    again?;
    let left = succeed(Command::new("ip").args(["netns", "list"])).await?;
    ensure!(!left.contains(&netns), "`fairlead down` left network namespaces:\n{left}");
    Ok(())
}

/// Names, a thousand connections to a service from a pod, and the rules that led them.
async fn asks(cluster: &Cluster, mode: &Mode) -> Result<()> {
    apply::run(cluster).await?;
    client::run(cluster).await?;
    for n in 1..=cluster.spec().nodes {
        let rules = in_node(cluster, n, mode.list).await?;
        ensure!(rules.contains(mode.known_by), "node {n} has no rules of the mode:\n{rules}");
        let told =
            in_node(cluster, n, &["busybox", "wget", "-qO-", "http://127.0.0.1:10249/proxyMode"]).await?;
        ensure!(told == mode.name, "node {n} says that its mode is {told}");
    }
    Ok(())
}

/// The same cluster without the flag has no rules.
async fn starts_in_the_default_mode(cluster: &Cluster, mode: &Mode) -> Result<()> {
    succeed(&mut cluster.up_command()?).await?;
    let rules = in_node(cluster, 1, &["nft", "list", "ruleset"]).await?;
    ensure!(!rules.contains(mode.known_by), "rules of the former mode came back:\n{rules}");
    Ok(())
}

async fn in_node(cluster: &Cluster, n: u32, program: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &cluster.node_netns(n)]).args(program);
    succeed(&mut command).await
}
