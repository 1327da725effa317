//! cgroups: making one, ending what is in a tree, and removing it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::processes::{self, ProcessId};

/// Makes a cgroup and those above it. Another cluster may be removing the common parent just then.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    let mut result = fs::create_dir_all(path);
    for _ in 0..20 {
        match &result {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => result = fs::create_dir_all(path),
            _ => break,
        }
    }
    result.with_context(|| format!("cannot make the cgroup {}; is cgroup2 mounted writable?", path.display()))
}

/// Moves a process into a cgroup.
pub(crate) fn enter(path: &Path, pid: u32) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
}

/// How many cgroups the tree has.
pub(crate) fn count(tree: &Path) -> usize {
    directories(tree).len()
}

/// Every process in the tree.
pub(crate) fn members(tree: &Path) -> Vec<ProcessId> {
    directories(tree)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// Ends every process in the tree at once, with all it may be forking meanwhile. Returns how many there were.
pub(crate) fn kill(tree: &Path) -> usize {
    let found = members(tree).len();
    // Version 2 does it atomically (since Linux 5.14); elsewhere, member by member.
    if fs::write(tree.join("cgroup.kill"), "1").is_err() {
        processes::end(members(tree), Duration::ZERO);
    }
    found
}

/// Removes the tree, from the leaves up. Returns how many cgroups were removed.
pub(crate) fn remove(tree: &Path, patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    let found = directories(tree);
    loop {
        for dir in &found {
            // Busy while a killed process is still being torn down; tried again below.
            let _ = fs::remove_dir(dir);
        }
        if !tree.exists() {
            return found.len();
        }
        if Instant::now() >= deadline {
            tracing::warn!(cgroup = %tree.display(), "cannot remove the cgroup; processes are still in it");
            return found.len();
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The directories of a tree, children before their parents. A path that does not exist has none.
fn directories(tree: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(tree) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .flat_map(|entry| directories(&entry.path()))
        .collect();
    found.push(tree.to_owned());
    found
}
