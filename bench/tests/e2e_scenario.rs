//! The scenario of the demo, as a test.

use anyhow::{Result, ensure};
use fairlead_bench::{
    cluster::{Cluster, ClusterSpec, folder_for, succeed},
    scenario,
};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn apply_pods_service_dns_and_flows_work_end_to_end() -> Result<()> {
    let name = "e2e-scenario";
    let spec = ClusterSpec { name: name.into(), nodes: 2, api_port: 16_443, folder: folder_for(name) };
    let cluster = Cluster::up(spec, false).await?;
    let mut outcome = scenario::run(&cluster).await;
    if outcome.is_ok() {
        outcome = no_netfilter_rule(&cluster).await;
    }
    let netns = cluster.node_netns(1);
    cluster.down().await?;
    outcome?;
    let left = succeed(Command::new("ip").args(["netns", "list"])).await?;
    ensure!(!left.contains(&netns), "`fairlead down` left network namespaces:\n{left}");
    Ok(())
}

/// Nothing on a packet's way is done by netfilter.
async fn no_netfilter_rule(cluster: &Cluster) -> Result<()> {
    for n in 1..=cluster.spec().nodes {
        let rules = succeed(Command::new("ip").args([
            "netns",
            "exec",
            &cluster.node_netns(n),
            "nft",
            "list",
            "ruleset",
        ]))
        .await?;
        ensure!(rules.trim().is_empty(), "node {n} has netfilter rules:\n{rules}");
    }
    Ok(())
}
