//! Flow records and per-pod counters, through the commands a user types.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::NAMESPACE;
use crate::cluster::{Cluster, succeed};

/// Records that are printed.
const SHOWN: &str = "12";

/// Checks the records and counters; returns what the commands print for a person.
pub async fn run(cluster: &Cluster) -> Result<String> {
    flows(cluster).await?;
    counters(cluster).await?;
    let mut flows = cluster.fairlead("flows")?;
    flows.args(["--pod", "demo/load", "--last", SHOWN]);
    let mut top = cluster.fairlead("top")?;
    top.args(["pods", "-n", NAMESPACE]);
    let flows = succeed(&mut flows).await?;
    let ended = flows.lines().filter(|line| !line.contains("  begins  ")).collect::<Vec<_>>();
    Ok(format!("{}\n\n{}", ended.join("\n"), succeed(&mut top).await?.trim_end()))
}

/// A finished flow from the load pod through the service to a backend pod, with bytes and a round-trip time.
async fn flows(cluster: &Cluster) -> Result<()> {
    let mut command = cluster.fairlead("flows")?;
    command.args(["--pod", "demo/load", "--last", "5000", "-o", "json"]);
    let text = succeed(&mut command).await?;
    let flows =
        serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
    let flows = flows.into_iter().flat_map(|value| match value {
        Value::Array(rows) => rows,
        other => vec![other],
    });
    let whole = |flow: &Value| {
        flow["source"]["pod"] == "load"
            && flow["service"]["name"] == "echo"
            && flow["destination"]["pod"].as_str().is_some_and(|pod| pod.starts_with("echo-"))
            && flow["verdict"] == "forwarded"
            && flow["state"] == "ended"
            && flow["bytes_sent"].as_u64() > Some(0)
            && flow["bytes_received"].as_u64() > Some(0)
            && flow["rtt_us"].as_u64() > Some(0)
    };
    let count = flows.filter(whole).count();
    ensure!(count >= 100, "only {count} whole flow records of the load were found");
    Ok(())
}

/// The load pod's counters cover what it did.
async fn counters(cluster: &Cluster) -> Result<()> {
    let top = cluster.json(&["top", "pods", "-n", NAMESPACE]).await?;
    let rows =
        top.as_array().or_else(|| top["pods"].as_array()).context("`fairlead top pods` lists no pods")?;
    let backends = rows.iter().filter(|row| row["pod"].as_str().is_some_and(|pod| pod.starts_with("echo-")));
    for row in backends {
        let pod = &row["pod"];
        for counter in ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "connections_accepted"] {
            ensure!(row[counter].as_u64() > Some(0), "{counter} of {pod} is {}", row[counter]);
        }
    }
    Ok(())
}
