//! What must hold before `up` makes anything; each failure is one sentence with its remedy.

use std::{
    fs,
    io::{Read as _, Seek as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

use super::{UpArgs, containerd, ledger::Record};
use crate::{listen, paths::ClusterPaths, system::mounts};

/// What was checked and is held from then on.
#[derive(Debug)]
pub(crate) struct Preflight {
    /// The state directory belongs to this process.
    pub(crate) _lock: Flock<fs::File>,
    /// Socket on the host for kubectl.
    pub(crate) api: TcpListener,
    /// Where cgroup v2 is mounted.
    pub(crate) cgroup2: PathBuf,
}

/// Namespaces, BPF programs and cgroups need root, and a user namespace's root is not enough for BPF.
pub(crate) fn require_root(command: &str) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`fairlead {command}` needs root to manage network namespaces and BPF programs; run `sudo fairlead {command}`"
        );
    }
    Ok(())
}

/// Checks everything and takes the lock and the port. `leftovers` are removed in between by `clean`.
pub(crate) fn check(
    args: &UpArgs,
    paths: &ClusterPaths,
    clean: impl FnOnce(Option<&Record>) -> anyhow::Result<()>,
) -> anyhow::Result<Preflight> {
    require_root("up")?;
    let cgroup2 = require_cgroup2()?;
    fairlead_kernel::require_kernel()?;
    match &args.containerd {
        Some(socket) => require_socket(socket)?,
        None => require_programs()?,
    }
    if let Some(images) = &args.images {
        require_directory(images, "--images")?;
    }
    require_alone(paths)?;
    let record = Record::read(&paths.ledger())?;
    if let Some(record) = record.as_ref().filter(|record| record.supervisor.is_alive()) {
        bail!(
            "the cluster {} is running already (pid {}); use it, stop it with `fairlead down --name {0}`, or choose another --name",
            paths.name,
            record.supervisor.pid
        );
    }
    let is_new = !paths.state.exists();
    let lock = lock_state(paths)?;
    clean(record.as_ref())?;
    let address = SocketAddr::from(([127, 0, 0, 1], args.api_port));
    match listen::bind(&[address], "--api-port") {
        Ok(mut api) => Ok(Preflight { _lock: lock, api: api.remove(0), cgroup2 }),
        Err(problem) => {
            if is_new {
                // Made for the lock only. What cannot be removed is empty and harms nobody.
                let _ = fs::remove_dir_all(&paths.state);
            }
            Err(problem)
        }
    }
}

fn require_cgroup2() -> anyhow::Result<PathBuf> {
    mounts::cgroup2().context(
        "no cgroup2 file system is mounted, which service load balancing hooks into; mount one with `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified` or boot with systemd.unified_cgroup_hierarchy=1",
    )
}

fn require_socket(socket: &Path) -> anyhow::Result<()> {
    std::os::unix::net::UnixStream::connect(socket).with_context(|| {
        format!(
            "no containerd answers on {}; start it, or leave --containerd out for a private one",
            socket.display()
        )
    })?;
    Ok(())
}

fn require_programs() -> anyhow::Result<()> {
    for (program, package) in containerd::PROGRAMS {
        if find_program(program).is_none() {
            bail!(
                "{program} is not in PATH; install it with `apt-get install {package}`, or give --containerd SOCKET"
            );
        }
    }
    Ok(())
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn require_directory(path: &Path, flag: &str) -> anyhow::Result<()> {
    if !path.is_dir() {
        bail!("{flag} {} is not a directory; give one with OCI image archives (*.tar)", path.display());
    }
    Ok(())
}

/// A runtime directory serves one cluster.
fn require_alone(paths: &ClusterPaths) -> anyhow::Result<()> {
    let own = paths.ledger();
    for entry in fs::read_dir(&paths.run).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == own || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        if let Ok(Some(other)) = Record::read(&path) {
            bail!(
                "{} belongs to the cluster {} already; give this one another --run-dir",
                paths.run.display(),
                other.name
            );
        }
    }
    Ok(())
}

/// The lock goes with this process, however it ends; the number in the file is for the error message only.
fn lock_state(paths: &ClusterPaths) -> anyhow::Result<Flock<fs::File>> {
    let path = paths.lock();
    fs::create_dir_all(&paths.state)
        .with_context(|| format!("cannot make the state directory {}", paths.state.display()))?;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            writeln!(*lock, "{}", std::process::id())?;
            Ok(lock)
        }
        Err((mut file, _)) => {
            let mut holder = String::new();
            file.rewind()?;
            file.read_to_string(&mut holder)?;
            bail!(
                "the state directory {} is in use by another `fairlead up` (pid {}); stop that one or give another --state-dir",
                paths.state.display(),
                holder.trim()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{lock_state, require_alone};
    use crate::{paths::ClusterPaths, up::ledger::Ledger};

    #[test]
    fn a_locked_state_directory_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ClusterPaths::new("blue", Some(dir.path().to_owned()), None);
        let held = lock_state(&paths).unwrap();
        let message = lock_state(&paths).unwrap_err().to_string();
        assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
        drop(held);
        assert!(lock_state(&paths).is_ok());
    }

    #[test]
    fn a_runtime_directory_serves_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let paths = |name| ClusterPaths::new(name, None, Some(dir.path().to_owned()));
        Ledger::create(&paths("blue"), "127.0.0.1:1".parse().unwrap(), Vec::new()).unwrap();
        assert!(require_alone(&paths("blue")).is_ok());
        assert!(require_alone(&paths("red")).unwrap_err().to_string().contains("blue"));
    }
}
