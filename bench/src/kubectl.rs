//! kubectl, unmodified, as our users run it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::succeed;

/// kubectl with the kubeconfig of one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// For the cluster that `kubeconfig` leads to.
    pub fn new(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig }
    }

    /// A command line, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // kubectl keeps discovery below its home; a cluster made a moment ago must not find another one's.
        let cache = self.kubeconfig.with_extension("kubectl-cache");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(cache).args(arguments);
        command.kill_on_drop(true);
        command
    }

    /// Runs it and returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        succeed(&mut self.command(arguments)).await
    }

    /// Runs it with `-o json`.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("kubectl {} printed no JSON", arguments.join(" ")))
    }

    /// Applies a manifest given as text.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let file = self.kubeconfig.with_extension(format!("apply-{:08x}.yaml", fingerprint(manifest)));
        tokio::fs::write(&file, manifest)
            .await
            .with_context(|| format!("cannot write {}", file.display()))?;
        let path = file.to_string_lossy().into_owned();
        self.run(&["apply", "-f", &path]).await
    }
}

/// Tells manifests apart in file names (FNV-1a).
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
