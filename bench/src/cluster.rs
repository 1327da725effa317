//! A development cluster of one test, demo or benchmark: `fairlead up` in folders of its own, `fairlead down` at the end.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::process::Command;

use crate::kubectl::Kubectl;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Name; everything on the machine that belongs to the cluster begins with it.
    pub name: String,
    /// Number of simulated nodes.
    pub nodes: u32,
    /// Port of the API server on the machine's loopback address.
    pub api_port: u16,
    /// Folder for state and run directories.
    pub folder: PathBuf,
}

/// A running cluster.
pub struct Cluster {
    spec: ClusterSpec,
    started_in: Duration,
}

/// The binary under test: `FAIRLEAD_BIN`, else the one beside this executable.
pub fn binary() -> Result<PathBuf> {
    let beside = || Some(env::current_exe().ok()?.parent()?.join("fairlead"));
    let path = env::var_os("FAIRLEAD_BIN").map(PathBuf::from).or_else(beside).unwrap_or_default();
    ensure!(path.is_file(), "there is no fairlead binary at {}: run `cargo xtask build`", path.display());
    Ok(path)
}

/// The folder of OCI archives: `FAIRLEAD_IMAGES`.
fn images() -> Result<PathBuf> {
    let path = env::var_os("FAIRLEAD_IMAGES").map(PathBuf::from);
    path.context("FAIRLEAD_IMAGES does not say where the images are: run `cargo xtask build` and start this through xtask")
}

impl Cluster {
    /// Starts a cluster and waits until its nodes are Ready. What `fairlead up` prints is shown when `show` is set.
    pub async fn up(spec: ClusterSpec, show: bool) -> Result<Self> {
        let mut cluster = Self::planned(spec);
        let started = Instant::now();
        let mut command = cluster.up_command()?;
        if show {
            ensure!(
                command.status().await?.success(),
                "`fairlead up` failed; its logs are in {}",
                cluster.logs().display()
            );
        } else {
            succeed(&mut command).await?;
        }
        cluster.started_in = started.elapsed();
        Ok(cluster)
    }

    /// A cluster that is not started: its places and command lines.
    pub fn planned(spec: ClusterSpec) -> Self {
        Self { spec, started_in: Duration::ZERO }
    }

    /// The command line that starts it and returns when it is Ready.
    pub fn up_command(&self) -> Result<Command> {
        let mut command = self.fairlead("up")?;
        command.args(["--detach", "--nodes", &self.spec.nodes.to_string()]);
        command.args(["--api-port", &self.spec.api_port.to_string()]).arg("--images").arg(images()?);
        Ok(command)
    }

    /// A command line of `fairlead SUBCOMMAND` for this cluster.
    pub fn fairlead(&self, subcommand: &str) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg(subcommand).args(["--name", &self.spec.name]).arg("--run-dir").arg(self.run_dir());
        if matches!(subcommand, "up" | "down") {
            command.arg("--state-dir").arg(self.state_dir());
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// What `fairlead SUBCOMMAND ARGUMENTS -o json` prints.
    pub async fn json(&self, subcommand: &[&str]) -> Result<serde_json::Value> {
        let (first, rest) = subcommand.split_first().context("a subcommand is needed")?;
        let mut command = self.fairlead(first)?;
        command.args(rest).args(["-o", "json"]);
        let text = succeed(&mut command).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("`fairlead {}` printed no JSON", subcommand.join(" ")))
    }

    /// Removes everything, the stored state too.
    pub async fn down(self) -> Result<String> {
        let mut command = self.fairlead("down")?;
        let text = succeed(command.arg("--purge")).await?;
        tokio::fs::remove_dir_all(&self.spec.folder).await.ok();
        Ok(text)
    }

    /// kubectl for this cluster.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.kubeconfig())
    }

    /// A client of the cluster's API.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state_dir().join("admin.kubeconfig")
    }

    /// How long `fairlead up` took until every node was Ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The specification it was started with.
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// The network namespace of the n-th node, from 1.
    pub fn node_netns(&self, n: u32) -> String {
        format!("{}-node-{n}", self.spec.name)
    }

    /// Where the processes write their logs.
    pub fn logs(&self) -> PathBuf {
        self.run_dir().join("logs")
    }

    /// Stored state.
    pub fn state_dir(&self) -> PathBuf {
        self.spec.folder.join("state")
    }

    /// Sockets, the ledger and logs.
    pub fn run_dir(&self) -> PathBuf {
        self.spec.folder.join("run")
    }
}

/// Runs a command to its end and returns its standard output; an error carries what it said.
pub async fn succeed(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().await.with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let shown = command.as_std();
        let words: Vec<_> = std::iter::once(shown.get_program()).chain(shown.get_args()).collect();
        bail!(
            "{} failed ({}): {}",
            words.join(std::ffi::OsStr::new(" ")).display(),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A folder of its own for a cluster, below the system's temporary folder.
pub fn folder_for(name: &str) -> PathBuf {
    Path::new("/var/tmp").join(format!("fairlead-{name}"))
}
