//! A containerd of our own: own root, state and socket, started from the installed binary.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

use super::Containerd;
use crate::Error;

/// How long containerd may take to answer. It takes about 100 ms on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing tells when the socket appears, so it is tried this often.
const RETRY: Duration = Duration::from_millis(5);

/// Where a private containerd lives.
#[derive(Clone, Debug)]
pub struct PrivateContainerd {
    /// Persistent data: content, snapshots, metadata, log and configuration.
    pub root: PathBuf,
    /// Short-lived data.
    pub state: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// The program, a path or a name on `PATH`; normally `containerd`.
    pub binary: PathBuf,
}

/// A containerd that answers. Dropping it ends the process; containers go on without it.
#[derive(Debug)]
pub struct Running {
    /// The process, to be supervised.
    pub child: Child,
    /// Its socket.
    pub socket: PathBuf,
}

/// Starts it and waits until it answers.
pub async fn spawn(private: &PrivateContainerd) -> Result<Running, Error> {
    if tokio::net::UnixStream::connect(&private.socket).await.is_ok() {
        return Err(Error::AlreadyRunning { socket: private.socket.clone() });
    }
    for directory in
        [&private.root, &private.state].into_iter().map(PathBuf::as_path).chain(private.socket.parent())
    {
        std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    let config = private.root.join("config.toml");
    std::fs::write(&config, configuration(private)).map_err(Error::file("write", &config))?;
    let log = private.root.join("containerd.log");
    let output = std::fs::File::create(&log).map_err(Error::file("create", &log))?;
    let errors = output.try_clone().map_err(Error::file("open", &log))?;
    let mut child = Command::new(&private.binary)
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotInstalled { binary: private.binary.clone() },
            _ => Error::File { operation: "run", path: private.binary.clone(), source },
        })?;
    let ended = tokio::select! {
        () = answers(&private.socket) => false,
        _ = child.wait() => true,
        () = tokio::time::sleep(START_TIMEOUT) => true,
    };
    if ended {
        return Err(Error::NotAnswering { socket: private.socket.clone(), log });
    }
    Ok(Running { child, socket: private.socket.clone() })
}

/// Waits until containerd answers on its socket.
pub async fn answers(socket: &Path) {
    loop {
        if let Ok(connection) = Containerd::open(socket, "default").await
            && connection.version().await.is_ok()
        {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Everything in directories of its own, and nothing that we do not use.
pub fn configuration(private: &PrivateContainerd) -> String {
    let quote = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = {socket}
"#,
        root = quote(&private.root),
        state = quote(&private.state),
        socket = quote(&private.socket),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_binary_is_named_with_its_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let private = PrivateContainerd {
            root: directory.path().join("root"),
            state: directory.path().join("state"),
            socket: directory.path().join("containerd.sock"),
            binary: directory.path().join("no-containerd"),
        };
        let error = spawn(&private).await.unwrap_err().to_string();
        assert!(error.contains("apt-get install containerd runc"), "{error}");
    }
}
