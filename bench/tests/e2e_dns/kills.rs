//! The agent and the resolver of the node where names are looked up are killed, and a resolver stays dead or hangs: another
//! node's answers instead.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use fairlead_bench::cluster::Cluster;
use nix::sys::signal::Signal;

use crate::{
    look_ups,
    support::{eventually, pid_of, signal},
};

const AGENT: &str = "node-1 agent";
const RESOLVER: &str = "node-1 dns";
/// Look-ups between two faults.
const LOOK_UPS: u64 = 2000;

pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    eventually("look-ups begin", async || Ok((look_ups::progress(cluster).await? > 0).then_some(()))).await?;
    for daemon in [AGENT, RESOLVER] {
        kill_and_see_again(cluster, daemon).await?;
        some_more(cluster).await?;
    }
    // It hangs: its process is there, its sockets are open, and nobody reads them.
    let hanging = pid_of(cluster, RESOLVER).await?;
    signal(hanging, Signal::SIGSTOP)?;
    let outcome = some_more(cluster).await;
    signal(hanging, Signal::SIGCONT)?;
    outcome.context("with a resolver that hangs")?;
    stays_dead(cluster).await.context("with a resolver that stays dead")?;
    some_more(cluster).await?;
    look_ups::end(cluster).await
}

async fn kill_and_see_again(cluster: &Cluster, daemon: &str) -> Result<()> {
    let killed = pid_of(cluster, daemon).await?;
    signal(killed, Signal::SIGKILL)?;
    eventually(&format!("{daemon} is started again"), async || {
        Ok(pid_of(cluster, daemon).await.ok().filter(|pid| *pid != killed).map(drop))
    })
    .await
}

/// Without credentials the next one ends at once, and so do all that are started after it.
async fn stays_dead(cluster: &Cluster) -> Result<()> {
    let credentials: PathBuf = cluster.run_dir().join("nodes").join("node-1").join("kubeconfig");
    let aside = credentials.with_extension("aside");
    fs::rename(&credentials, &aside).with_context(|| format!("cannot move {}", credentials.display()))?;
    let killed = pid_of(cluster, RESOLVER).await;
    let outcome = match killed.and_then(|pid| signal(pid, Signal::SIGKILL)) {
        Ok(()) => some_more(cluster).await,
        Err(error) => Err(error),
    };
    fs::rename(&aside, &credentials).with_context(|| format!("cannot move {}", aside.display()))?;
    outcome
}

/// Waits until the clients have looked up some more names. A look-up that failed is known at their end.
async fn some_more(cluster: &Cluster) -> Result<()> {
    let enough = look_ups::progress(cluster).await? + LOOK_UPS;
    eventually("look-ups go on", async || Ok((look_ups::progress(cluster).await? >= enough).then_some(())))
        .await
}
