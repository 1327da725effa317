//! Every node agent is killed with `kill -9` under load. Nothing may break: the programs and maps stay in the kernel.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::load::Load;
use crate::{
    cluster::Cluster,
    screen::{detail, human},
};

/// How long an agent may take to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that was killed and came back.
struct Agent {
    node: String,
    killed: i32,
    back: i32,
    after: Duration,
}

/// The agents that came back.
pub struct Restarted(Vec<Agent>);

/// Kills the agents one after the other and waits for each to serve again.
pub async fn run(cluster: &Cluster, load: &Load) -> Result<Restarted> {
    let mut agents = Vec::new();
    let before = load.total(cluster).await?;
    for (node, pid) in pids(cluster).await? {
        let pid = pid.with_context(|| format!("the agent of {node} is not running"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)
            .with_context(|| format!("cannot kill the agent of {node}"))?;
        let clock = Instant::now();
        let back = wait_for_another(cluster, &node, pid, clock).await?;
        agents.push(Agent { node, killed: pid, back, after: clock.elapsed() });
    }
    let after = load.keeps_going(cluster).await.context("after the agents were killed")?;
    ensure!(after.breaks == before.breaks, "the held connection broke when an agent was killed: {after}");
    Ok(Restarted(agents))
}

/// The agent's process by node, as `fairlead status` tells.
async fn pids(cluster: &Cluster) -> Result<Vec<(String, Option<i32>)>> {
    let status = cluster.json(&["status"]).await?;
    let nodes = status["nodes"].as_array().context("`fairlead status -o json` has no list `nodes`")?;
    let row = |node: &serde_json::Value| {
        let name = node["node"].as_str().context("a node of `fairlead status` has no name")?;
        let pid = node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        Ok((name.to_owned(), pid.filter(|_| node["synced"] == true)))
    };
    let rows = nodes.iter().map(row).collect::<Result<Vec<_>>>()?;
    ensure!(!rows.is_empty(), "`fairlead status` lists no node");
    Ok(rows)
}

async fn wait_for_another(cluster: &Cluster, node: &str, old: i32, clock: Instant) -> Result<i32> {
    while clock.elapsed() < PATIENCE {
        let now = pids(cluster).await?.into_iter().find(|(name, _)| name == node).and_then(|(_, pid)| pid);
        if let Some(pid) = now.filter(|pid| *pid != old) {
            return Ok(pid);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the agent of {node} did not come back within {PATIENCE:?}")
}

impl Restarted {
    /// Prints one line an agent.
    pub fn print(&self) {
        for agent in &self.0 {
            let Agent { node, killed, back, after } = agent;
            detail(format!(
                "{node}: pid {killed} killed, pid {back} in charge again after {}",
                human(*after)
            ));
        }
    }
}
