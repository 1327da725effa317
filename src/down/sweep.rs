//! Removes whatever is left of a cluster: what its ledger names and what is recognisably its own. Idempotent.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use super::Removed;
use crate::{
    admin,
    paths::{BPFFS, ClusterPaths, NETNS_DIR},
    system::{
        cgroups, mounts, netns,
        processes::{self, Process, ProcessId},
    },
    up::ledger::{Item, Record},
};

/// How long a daemon may take to end.
const GRACE: Duration = Duration::from_secs(4);
/// containerd's process beside each container.
const SHIM: &str = "containerd-shim-runc-v2";
/// Source of a BPF file system that we mounted, by which we know it again.
pub(crate) const OWN_BPFFS: &str = "fairlead";

/// Removes everything but the stored state. The supervisor, if there is one, is gone or is the caller.
pub(crate) fn sweep(paths: &ClusterPaths, record: Option<&Record>) -> anyhow::Result<Removed> {
    let state = record.map_or(&paths.state, |record| &record.state_dir);
    let items = record.map_or(&[][..], |record| &record.items);
    let mut removed = Removed { processes: end_processes(paths, record), ..Removed::default() };

    let names = namespaces(paths, items);
    removed.namespaces = names.iter().filter(|name| netns::remove(&Path::new(NETNS_DIR).join(name))).count();
    forget_modes(state)?;
    removed.mounts = mounts::detach_below(&paths.run) + mounts::detach_below(state);
    for path in items.iter().filter_map(|item| match item {
        Item::Mount { path } if path != Path::new(BPFFS) => Some(path),
        _ => None,
    }) {
        removed.mounts += mounts::detach_below(path);
    }
    let (pins, unmounted) = remove_pins(paths, items)?;
    removed.pins = pins;
    removed.mounts += unmounted;
    for tree in cgroup_trees(paths) {
        removed.cgroups += cgroups::remove(&tree, Duration::from_secs(5));
        // Shared with other clusters: goes with the last of them.
        let _ = tree.parent().map(fs::remove_dir);
    }
    remove_shim_sockets(paths);
    removed.directories = remove_run_dir(paths)?;
    Ok(removed)
}

/// Rules of proxy modes went with the nodes' namespaces, so the next `up` has none to look for.
fn forget_modes(state: &Path) -> anyhow::Result<()> {
    let nodes = state.join("nodes");
    for node in names_in(&nodes) {
        for file in fairlead_agent::LEFTOVER_FILES {
            remove_tree(&nodes.join(&node).join("agent").join(file))?;
        }
    }
    Ok(())
}

/// What the kernel puts into every BPF file system.
const KERNELS_OWN: [&str; 2] = ["maps.debug", "progs.debug"];

/// How much there is of what [`sweep`] removes.
pub(crate) fn census(paths: &ClusterPaths, record: Option<&Record>) -> Removed {
    let items = record.map_or(&[][..], |record| &record.items);
    let state = record.map_or(&paths.state, |record| &record.state_dir);
    let trees = cgroup_trees(paths);
    let mut processes: HashSet<ProcessId> = record.iter().flat_map(|record| record.processes()).collect();
    processes.extend(processes::others().iter().filter(|p| is_ours(p, paths)).map(|p| p.id));
    processes.extend(trees.iter().flat_map(|tree| cgroups::members(tree)));
    let existing = |path: &&PathBuf| path.exists();
    Removed {
        processes: processes.iter().filter(|p| p.is_alive()).count(),
        namespaces: namespaces(paths, items)
            .iter()
            .filter(|name| Path::new(NETNS_DIR).join(name).exists())
            .count(),
        mounts: mounts::count_below(&paths.run) + mounts::count_below(state),
        pins: pins(paths, items).iter().filter(existing).count(),
        cgroups: trees.iter().map(|tree| cgroups::count(tree)).sum(),
        directories: run_directories(paths).iter().filter(existing).count() + usize::from(paths.run.exists()),
    }
}

/// Daemons first, so that nothing is restarted; then what containers run; then shims; then whatever is left. Writers of
/// logs end when nobody is left to write to them, and not before.
fn end_processes(paths: &ClusterPaths, record: Option<&Record>) -> usize {
    let recorded: HashSet<ProcessId> = record.iter().flat_map(|record| record.processes()).collect();
    let own = |process: &Process| recorded.contains(&process.id) || is_ours(process, paths);
    let daemon = |process: &Process| process.program() == "fairlead" && !is_log_writer(process);

    let ids = |wanted: &dyn Fn(&Process) -> bool| {
        processes::others().iter().filter(|p| own(p) && wanted(p)).map(|p| p.id).collect::<Vec<_>>()
    };
    let mut ended = processes::end(ids(&daemon), GRACE);
    let nodes = cgroup_trees(paths);
    remove_foreign_containers(paths, record);
    ended += nodes.iter().map(|tree| kill_but_us(tree)).sum::<usize>();
    // A shim whose container is gone waits for a containerd that will not come: it does not listen to SIGTERM.
    ended += processes::end(ids(&|process| process.program() != SHIM && !is_log_writer(process)), GRACE);
    ended += processes::end(ids(&|process| process.program() == SHIM), Duration::ZERO);
    ended + processes::end(ids(&|_| true), GRACE)
}

/// The process that writes a container's output to its log.
fn is_log_writer(process: &Process) -> bool {
    process.program() == "fairlead"
        && process.arguments.get(1).is_some_and(|command| command == "container-log")
}

/// Containers in a containerd that is not ours and goes on. What ours runs ends with it.
fn remove_foreign_containers(paths: &ClusterPaths, record: Option<&Record>) {
    let namespaces = record.into_iter().flat_map(|record| &record.items).filter_map(|item| match item {
        Item::ContainerdNamespace { socket, name } if !socket.starts_with(&paths.run) => Some((socket, name)),
        _ => None,
    });
    let remove = |socket: &Path, name: &str| -> anyhow::Result<()> {
        Ok(admin::runtime()?.block_on(fairlead_kubelet::containerd::remove_all(socket, name))?)
    };
    for (socket, name) in namespaces {
        // On a thread of its own, because the caller's may be in a runtime already.
        let removed = thread::scope(|scope| scope.spawn(|| remove(socket, name)).join());
        if let Ok(Err(problem)) = removed {
            tracing::warn!(socket = %socket.display(), namespace = name, "cannot remove containers: {problem:#}");
        }
    }
}

/// A daemon, containerd or shim that was told to work in this cluster's directories.
fn is_ours(process: &Process, paths: &ClusterPaths) -> bool {
    let daemon = process.program() == "fairlead"
        && process
            .arguments
            .iter()
            .skip(1)
            .any(|argument| matches!(argument.as_str(), "server" | "node" | "dns" | "container-log"));
    let containerd = matches!(process.program(), "containerd" | "containerd-shim-runc-v2");
    (daemon || containerd) && (process.names_path(&paths.run) || process.names_path(&paths.state))
}

/// The cluster's cgroups in every hierarchy.
fn cgroup_trees(paths: &ClusterPaths) -> Vec<PathBuf> {
    let below = paths.cgroup();
    mounts::cgroup_hierarchies()
        .into_iter()
        .map(|mount| mount.join(&below))
        .filter(|tree| tree.exists())
        .collect()
}

/// Whoever was started from inside a node's cgroup (a shell, a test) must not end itself.
fn kill_but_us(tree: &Path) -> usize {
    if ProcessId::own().is_some_and(|own| cgroups::members(tree).contains(&own)) {
        tracing::warn!(cgroup = %tree.display(), "this command runs inside the cluster's cgroup, which is left");
        return 0;
    }
    cgroups::kill(tree)
}

/// Names of the cluster's namespaces that may be there.
fn namespaces(paths: &ClusterPaths, items: &[Item]) -> HashSet<String> {
    let recorded = items.iter().filter_map(|item| match item {
        Item::Netns { name } => Some(name.clone()),
        _ => None,
    });
    recorded.chain(names_in(Path::new(NETNS_DIR)).filter(|name| paths.owns_netns(name))).collect()
}

/// Directories of pins that may be there.
fn pins(paths: &ClusterPaths, items: &[Item]) -> HashSet<PathBuf> {
    let recorded = items.iter().filter_map(|item| match item {
        Item::Pins { path } => Some(path.clone()),
        _ => None,
    });
    let root = Path::new(BPFFS).join("fairlead");
    let recognised = names_in(&root).filter(|name| paths.owns_netns(name)).map(|name| root.join(name));
    recorded.chain(recognised).collect()
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn run_directories(paths: &ClusterPaths) -> [PathBuf; 3] {
    [paths.nodes(), paths.containerd_run(), paths.logs()]
}

/// Removes the nodes' pins, and the BPF file system when it is ours and this was its last user.
fn remove_pins(paths: &ClusterPaths, items: &[Item]) -> anyhow::Result<(usize, usize)> {
    let _lock = lock_bpffs()?;
    let mut removed = 0;
    for path in pins(paths, items) {
        removed += usize::from(remove_tree(&path)?);
    }
    // Fails while another cluster has pins there.
    let _ = fs::remove_dir(Path::new(BPFFS).join("fairlead"));
    let unused = names_in(Path::new(BPFFS)).all(|name| KERNELS_OWN.contains(&name.as_str()));
    let ours = mounts::on(Path::new(BPFFS)).is_some_and(|mount| mount.source == OWN_BPFFS);
    let unmounted = if unused && ours { mounts::detach_below(Path::new(BPFFS)) } else { 0 };
    Ok((removed, unmounted))
}

/// Held while the BPF file system is mounted, unmounted, or directories are made or removed at its root.
pub(crate) fn lock_bpffs() -> anyhow::Result<Flock<fs::File>> {
    let directory = fs::File::open("/sys/fs").context("cannot open /sys/fs; is sysfs mounted?")?;
    Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, problem)| anyhow::Error::new(problem).context("cannot lock /sys/fs"))
}

/// Shims listen in `/run/containerd/s`; a killed one leaves its socket there.
fn remove_shim_sockets(paths: &ClusterPaths) {
    let tasks = paths.containerd_run().join("state/io.containerd.runtime.v2.task");
    let bundles = fs::read_dir(tasks).into_iter().flatten().flatten();
    for bundle in bundles.flat_map(|ns| fs::read_dir(ns.path()).into_iter().flatten().flatten()) {
        if let Ok(address) = fs::read_to_string(bundle.path().join("address")) {
            let _ = fs::remove_file(address.trim().trim_start_matches("unix://"));
        }
    }
}

/// Removes what is ours in the runtime directory, and the directory when nothing else is in it. The ledger goes last:
/// what fails before is found again by the next `down`.
fn remove_run_dir(paths: &ClusterPaths) -> anyhow::Result<usize> {
    let mut removed = 0;
    for path in run_directories(paths) {
        removed += usize::from(remove_tree(&path)?);
    }
    remove_tree(&paths.ledger().with_extension("json.new"))?;
    remove_tree(&paths.ledger())?;
    Ok(removed + usize::from(fs::remove_dir(&paths.run).is_ok()))
}

/// Removes a file or a directory with all that is in it; true when it was there.
fn remove_tree(path: &Path) -> anyhow::Result<bool> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(problem) => Err(problem),
    };
    match result {
        Ok(()) => Ok(true),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(problem) => Err(problem).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{forget_modes, is_ours};
    use crate::{
        paths::ClusterPaths,
        system::processes::{Process, ProcessId},
    };

    #[test]
    fn a_cluster_that_is_down_remembers_no_proxy_mode_and_keeps_the_rest() {
        let state = tempfile::tempdir().expect("a directory");
        assert!(forget_modes(state.path()).is_ok(), "there is no node yet");
        let agent = state.path().join("nodes/node-1/agent");
        fs::create_dir_all(&agent).expect("a directory");
        for name in ["proxy-modes", "route-localnet", "addresses"] {
            fs::write(agent.join(name), "iptables\n").expect("a file");
        }
        forget_modes(state.path()).expect("removes");
        let left: Vec<_> =
            fs::read_dir(&agent).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["addresses"]);
    }

    #[test]
    fn only_daemons_in_the_clusters_directories_are_recognised() {
        let paths = ClusterPaths::new("blue", None, None);
        for (line, ours) in [
            ("fairlead node --run-dir /run/fairlead-blue/nodes/node-1", true),
            ("/usr/bin/fairlead --log-level debug server --state-dir=/var/lib/fairlead-blue", true),
            ("containerd --config /run/fairlead-blue/containerd/config.toml", true),
            ("/usr/bin/containerd-shim-runc-v2 -address /run/fairlead-blue/containerd/containerd.sock", true),
            ("fairlead node --run-dir /run/fairlead/nodes/node-1", false),
            ("fairlead down --run-dir /run/fairlead-blue", false),
            ("vim /run/fairlead-blue/logs/server.log", false),
            ("containerd", false),
        ] {
            let arguments = line.split(' ').map(str::to_owned).collect();
            let process = Process { id: ProcessId { pid: 1, start_ticks: 1 }, arguments };
            assert_eq!(is_ours(&process, &paths), ours, "{line}");
        }
    }
}
