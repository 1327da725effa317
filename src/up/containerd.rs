//! The cluster's own containerd: its configuration, and waiting until it answers.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use fairlead_kubelet::containerd::{self, PrivateContainerd};

use super::supervise::ChildSpec;
use crate::paths::ClusterPaths;

/// Programs that a private containerd needs, with the Debian package that has each.
pub(crate) const PROGRAMS: [(&str, &str); 3] =
    [("containerd", "containerd"), ("containerd-shim-runc-v2", "containerd"), ("runc", "runc")];

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

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
    fs::write(&file, containerd::configuration(&private(paths)))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(ChildSpec {
        role: "containerd".to_owned(),
        program: "containerd".into(),
        arguments: vec!["--config".into(), file.into()],
        log: paths.log("containerd"),
        grace: Duration::from_secs(3),
        ..ChildSpec::default()
    })
}

/// Waits until containerd answers.
pub(crate) async fn wait_for(socket: PathBuf) -> anyhow::Result<()> {
    let answered = tokio::time::timeout(PATIENCE, containerd::answers(&socket)).await;
    answered.with_context(|| {
        let (socket, secs) = (socket.display(), PATIENCE.as_secs());
        format!("containerd does not answer on {socket} after {secs} s; look at its log")
    })
}

fn private(paths: &ClusterPaths) -> PrivateContainerd {
    PrivateContainerd {
        root: paths.containerd_state(),
        state: paths.containerd_run().join("state"),
        socket: socket(paths),
        binary: "containerd".into(),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_kubelet::containerd::configuration;

    use super::private;
    use crate::paths::ClusterPaths;

    #[test]
    fn containerd_is_kept_in_the_clusters_own_directories() {
        let text = configuration(&private(&ClusterPaths::new("blue", None, None)));
        assert!(text.contains(r#"root = "/var/lib/fairlead-blue/containerd""#), "{text}");
        assert!(text.contains(r#"state = "/run/fairlead-blue/containerd/state""#), "{text}");
        assert!(text.contains(r#"address = "/run/fairlead-blue/containerd/containerd.sock""#), "{text}");
    }
}
