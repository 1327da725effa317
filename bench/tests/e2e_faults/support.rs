//! Clusters that are removed whatever happens, waiting for a state, and what a cluster may have left on the machine.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use fairlead_bench::cluster::{Cluster, ClusterSpec, folder_for, succeed};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep, timeout};

/// Longest time that a state may take to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Longest time of everything that is done with a cluster.
const LIMIT: Duration = Duration::from_secs(240);

/// The places of a cluster of these tests.
pub(crate) fn spec(name: &str, api_port: u16) -> ClusterSpec {
    let name = format!("e2e-f-{name}");
    ClusterSpec { nodes: 2, api_port, folder: folder_for(&name), name }
}

/// Starts a cluster, works with it, removes it, and looks at what is left.
pub(crate) async fn with_cluster(
    name: &str,
    api_port: u16,
    options: &[&str],
    work: impl AsyncFnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let spec = spec(name, api_port);
    let cluster = Cluster::planned(spec.clone());
    start(&cluster, options).await?;
    let outcome = timeout(LIMIT, work(&cluster)).await;
    if !matches!(outcome, Ok(Ok(()))) {
        keep_logs(&cluster);
    }
    let removed = cluster.down().await;
    outcome.with_context(|| format!("{} took longer than {LIMIT:?}", spec.name))??;
    removed?;
    ensure_nothing_left(&spec)
}

/// `fairlead up --detach`.
pub(crate) async fn start(cluster: &Cluster, options: &[&str]) -> Result<()> {
    succeed(cluster.up_command()?.args(options)).await.map(drop)
}

/// The logs of a test that failed are worth more than a clean machine.
fn keep_logs(cluster: &Cluster) {
    let to = std::env::temp_dir().join(format!("fairlead-{}-logs", cluster.spec().name));
    let _ = fs::create_dir_all(&to);
    for entry in fs::read_dir(cluster.logs()).into_iter().flatten().flatten() {
        let _ = fs::copy(entry.path(), to.join(entry.file_name()));
    }
    eprintln!("the logs of {} are in {}", cluster.spec().name, to.display());
}

/// Waits until `look` finds what it looks for. An error of `look` is a state that may pass; the last one is told.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() > deadline {
            let last = seen.map(|error| format!("; at last: {error:#}")).unwrap_or_default();
            bail!("not within {PATIENCE:?}: {what}{last}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The process of a daemon, as `fairlead status` names it.
pub(crate) async fn pid_of(cluster: &Cluster, daemon: &str) -> Result<i32> {
    let found = pids(cluster).await?.into_iter().find(|(name, _)| name == daemon);
    found.map(|(_, pid)| pid).with_context(|| format!("{daemon} does not run"))
}

/// Name and process of every daemon that runs.
pub(crate) async fn pids(cluster: &Cluster) -> Result<Vec<(String, i32)>> {
    let status = cluster.json(&["status"]).await?;
    let rows = status["processes"].as_array().context("`fairlead status -o json` has no `processes`")?;
    rows.iter()
        .map(|row| {
            let name = row["name"].as_str().context("a process has no name")?;
            let pid = row["pid"].as_i64().context("a process has no pid")?;
            Ok((name.to_owned(), i32::try_from(pid)?))
        })
        .collect()
}

/// The process of the `up` that stays in the background.
pub(crate) fn supervisor(cluster: &Cluster) -> Result<i32> {
    let ledger = cluster.run_dir().join(format!("{}.json", cluster.spec().name));
    let text = fs::read(&ledger).with_context(|| format!("cannot read {}", ledger.display()))?;
    let ledger: serde_json::Value = serde_json::from_slice(&text)?;
    let pid = ledger["supervisor"]["pid"].as_i64().context("the ledger names no supervisor")?;
    Ok(i32::try_from(pid)?)
}

/// Sends a signal.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {pid}"))
}

/// A process that runs, or that was stopped; not one whose parent has not yet asked how it ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Fails when anything of a cluster that was removed with its state is still on the machine.
pub(crate) fn ensure_nothing_left(spec: &ClusterSpec) -> Result<()> {
    let left = leftovers(spec);
    ensure!(left.is_empty(), "{} left behind:\n{}", spec.name, left.join("\n"));
    ensure!(!spec.folder.exists(), "{} is still there", spec.folder.display());
    Ok(())
}

/// Namespaces, pins, cgroups, mounts and processes of a cluster; its directories are not counted.
pub(crate) fn leftovers(spec: &ClusterSpec) -> Vec<String> {
    let prefix = format!("{}-", spec.name);
    let folder = spec.folder.display().to_string();
    let names = |directory: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let mut left = Vec::new();
    for directory in ["/run/netns", "/sys/fs/bpf/fairlead"] {
        let own = names(directory).into_iter().filter(|name| name.starts_with(&prefix));
        left.extend(own.map(|name| format!("{directory}/{name}")));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts.lines() {
        let mut fields = mount.split(' ').skip(1);
        let (target, kind) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let cgroup = Path::new(target).join("fairlead").join(&spec.name);
        if kind.starts_with("cgroup") && cgroup.exists() {
            left.push(cgroup.display().to_string());
        }
        if target.starts_with(&folder) {
            left.push(format!("mount {target}"));
        }
    }
    let own = std::process::id().to_string();
    for pid in names("/proc").into_iter().filter(|name| name.parse::<i32>().is_ok() && *name != own) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&folder) {
            left.push(format!("process {pid}: {line}"));
        }
    }
    left
}
