//! One cluster is killed in several ways and removed or started again, while another one beside it goes on.

use std::{
    io::{Read as _, Seek as _},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use fairlead_bench::{
    cluster::Cluster,
    scenario::{apply, load::Load},
};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::support::{
    PATIENCE, ensure_nothing_left, eventually, is_alive, leftovers, pids, signal, spec, start, supervisor,
};

/// `up` is told to end, or killed, while it makes its cluster; what it had made by then goes.
pub(crate) async fn in_the_middle_of_a_start(api_port: u16) -> Result<()> {
    for ending in [Signal::SIGINT, Signal::SIGKILL] {
        for fabric in ["node-1", "node-2"] {
            let cluster = Cluster::planned(spec("halfway", api_port));
            let outcome = end_when_made(&cluster, ending, fabric).await;
            let left = leftovers(cluster.spec());
            let removed = cluster.down().await;
            outcome?;
            removed.with_context(|| format!("`down` after {ending}"))?;
            let is_orderly = ending == Signal::SIGINT;
            ensure!(!is_orderly || left.is_empty(), "an interrupted `up` left {left:?}");
            ensure!(is_orderly || !left.is_empty(), "the kill came too late to test anything");
            ensure_nothing_left(&spec("halfway", api_port))?;
        }
    }
    Ok(())
}

/// Starts `up` in the foreground and ends it as soon as the namespace of `node` is there.
async fn end_when_made(cluster: &Cluster, ending: Signal, node: &str) -> Result<()> {
    let mut command = cluster.fairlead("up")?;
    command.args(["--api-port", &cluster.spec().api_port.to_string()]);
    let mut said = tempfile::tempfile()?;
    let mut up = command.stdout(Stdio::null()).stderr(said.try_clone()?).spawn()?;
    let own = i32::try_from(up.id().context("`up` ended at once")?)?;
    let namespace = Path::new("/run/netns").join(format!("{}-{node}", cluster.spec().name));
    while !namespace.exists() && up.try_wait()?.is_none() {
        tokio::task::yield_now().await;
    }
    signal(own, ending)?;
    let ended =
        timeout(PATIENCE, up.wait()).await.with_context(|| format!("`up` does not end after {ending}"))??;
    let expected =
        if ending == Signal::SIGINT { ended.success() } else { ended.signal() == Some(ending as i32) };
    if !expected {
        let mut text = String::new();
        said.rewind()?;
        said.read_to_string(&mut text)?;
        bail!("`up` ended with {ended} after {ending}:\n{text}");
    }
    Ok(())
}

/// Load runs on `calm` while the cluster at `api_port` is killed.
pub(crate) async fn run(calm: &Cluster, api_port: u16) -> Result<()> {
    apply::run(calm).await?;
    let load = Load::start(calm).await?;

    let killed = Cluster::planned(spec("killed", api_port));
    let outcome = kill_in_every_way(&killed, calm, &load).await;
    let removed = killed.down().await;
    outcome?;
    removed?;
    ensure_nothing_left(&spec("killed", api_port))?;

    let total = load.finish(calm).await?;
    ensure!(total.failed == 0 && total.breaks == 0, "the other cluster was disturbed: {total}");
    Ok(())
}

async fn kill_in_every_way(killed: &Cluster, calm: &Cluster, load: &Load) -> Result<()> {
    start(killed, &[]).await?;
    apply::run(killed).await?;
    same_name_is_refused(killed).await?;

    let daemons = kill_supervisor(killed).await?;
    ensure!(daemons.iter().all(|pid| is_alive(*pid)), "daemons ended with their supervisor");
    works(killed).await.context("without its supervisor")?;
    start(killed, &[]).await.context("`up` after a kill of `up`")?;
    let survivors: Vec<_> = daemons.iter().filter(|pid| is_alive(**pid)).collect();
    ensure!(survivors.is_empty(), "`up` left daemons of the cluster before: {survivors:?}");
    works(killed).await.context("started again after a kill")?;
    load.keeps_going(calm).await.context("while the other cluster was started again")?;

    kill_supervisor(killed).await?;
    down_keeps_state(killed).await?;
    load.keeps_going(calm).await.context("while the other cluster was removed")?;

    start(killed, &[]).await.context("`up` after `down`")?;
    works(killed).await.context("started again after `down`")?;
    let own = supervisor(killed)?;
    let all: Vec<_> = pids(killed).await?.into_iter().map(|(_, pid)| pid).chain([own]).collect();
    for pid in &all {
        signal(*pid, Signal::SIGKILL)?;
    }
    eventually("the killed processes are gone", async || {
        Ok((!all.iter().any(|pid| is_alive(*pid))).then_some(()))
    })
    .await
}

/// The supervisor is killed; the daemons' processes are returned.
async fn kill_supervisor(cluster: &Cluster) -> Result<Vec<i32>> {
    let own = supervisor(cluster)?;
    let daemons = pids(cluster).await?.into_iter().map(|(_, pid)| pid).collect();
    signal(own, Signal::SIGKILL)?;
    eventually("the killed supervisor is gone", async || Ok((!is_alive(own)).then_some(()))).await?;
    Ok(daemons)
}

/// `down` without `--purge` removes what runs, and keeps what is stored.
async fn down_keeps_state(cluster: &Cluster) -> Result<()> {
    let output = cluster.fairlead("down")?.output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "`fairlead down` after a kill failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        said.contains("is stopped; removed ") && said.contains("3 network namespaces"),
        "`down` said {said}"
    );
    ensure!(
        !cluster.run_dir().exists() && cluster.kubeconfig().exists(),
        "`down` removed too much or too little"
    );
    let left = leftovers(cluster.spec());
    ensure!(left.is_empty(), "`down` left {left:?}");
    Ok(())
}

/// What was applied in its first life runs on both nodes.
async fn works(cluster: &Cluster) -> Result<()> {
    let placed = apply::run(cluster).await?;
    ensure!(placed.nodes.len() == 3, "not three pods: {:?}", placed.nodes);
    let nodes = cluster.kubectl().json(&["get", "nodes"]).await?;
    ensure!(nodes["items"].as_array().is_some_and(|nodes| nodes.len() == 2), "not two nodes: {nodes}");
    Ok(())
}

/// A second `up` of a name that runs changes nothing.
async fn same_name_is_refused(cluster: &Cluster) -> Result<()> {
    let output = cluster.up_command()?.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && said.contains("is running already (pid "),
        "a second `up` said {said:?}"
    );
    works(cluster).await.context("after a second `up` was refused")
}
