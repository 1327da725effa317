//! The cluster's own containerd: its configuration, and waiting until it answers.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use tokio::net::UnixStream;

use super::supervise::ChildSpec;
use crate::paths::ClusterPaths;

/// Programs that a private containerd needs, with the Debian package that has each.
pub(crate) const PROGRAMS: [(&str, &str); 3] =
    [("containerd", "containerd"), ("containerd-shim-runc-v2", "containerd"), ("runc", "runc")];

/// Where the private containerd listens.
pub(crate) fn socket(paths: &ClusterPaths) -> PathBuf {
    paths.containerd_run().join("containerd.sock")
}

/// The containerd namespace of a node.
pub(crate) fn namespace(paths: &ClusterPaths, node: &str) -> String {
    paths.netns_name(node)
}

/// Writes the configuration and says how to start it.
pub(crate) fn prepare(paths: &ClusterPaths) -> anyhow::Result<ChildSpec> {
    let file = paths.containerd_run().join("config.toml");
    for dir in [paths.containerd_run(), paths.containerd_state()] {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(&file, configuration(paths)).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(ChildSpec {
        role: "containerd".to_owned(),
        program: "containerd".into(),
        arguments: vec!["--config".into(), file.into()],
        log: paths.log("containerd"),
        grace: Duration::from_secs(3),
        ..ChildSpec::default()
    })
}

/// Waits until containerd takes connections.
pub(crate) async fn wait_for(socket: PathBuf) -> anyhow::Result<()> {
    for _ in 0..3000 {
        if UnixStream::connect(&socket).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("containerd does not answer on {} after 15 s; look at its log", socket.display())
}

/// Everything in directories of the cluster's own, and nothing that we do not use.
fn configuration(paths: &ClusterPaths) -> String {
    format!(
        r#"version = 2
root = {root:?}
state = {state:?}
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = {socket:?}

"#,
        root = paths.containerd_state(),
        state = paths.containerd_run().join("state"),
        socket = socket(paths),
    )
}

#[cfg(test)]
mod tests {
    use super::configuration;
    use crate::paths::ClusterPaths;

    #[test]
    fn containerd_is_kept_in_the_clusters_own_directories() {
        let text = configuration(&ClusterPaths::new("blue", None, None));
        assert!(text.contains(r#"root = "/var/lib/fairlead-blue/containerd""#), "{text}");
        assert!(text.contains(r#"state = "/run/fairlead-blue/containerd/state""#), "{text}");
        assert!(text.contains(r#"address = "/run/fairlead-blue/containerd/containerd.sock""#), "{text}");
    }
}
