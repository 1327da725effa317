//! The node's cgroup-v2 subtree, on hybrid and on pure v2 hosts.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{KernelError, net::Namespace};

/// How long processes may take to leave a cgroup that is being removed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where cgroup v2 is mounted; on hybrid hosts beside the v1 controllers.
///
/// # Errors
/// It is not mounted.
pub fn mount_point() -> Result<PathBuf, KernelError> {
    let mounts = "/proc/self/mounts";
    let text = fs::read_to_string(mounts).map_err(KernelError::file("reading", mounts))?;
    find_mount(&text).ok_or_else(|| KernelError::MissingFeature {
        feature: "a mounted cgroup v2 hierarchy",
        remedy:
            "mount one with `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
                .to_owned(),
    })
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.into_iter().find(|f| f.get(2) == Some(&"cgroup2")).map(|f| unescape(f[1]))
}

/// `/proc/mounts` writes blanks as octal escapes (`fs/proc_namespace.c`).
fn unescape(field: &str) -> PathBuf {
    PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

/// Makes the cgroup `relative` to the mount and returns its path.
///
/// # Errors
/// It cannot be made.
pub fn create(relative: &Path) -> Result<PathBuf, KernelError> {
    let path = mount_point()?.join(relative.strip_prefix("/").unwrap_or(relative));
    fs::create_dir_all(&path).map_err(KernelError::file("creating cgroup", path.clone()))?;
    Ok(path)
}

/// Opens a cgroup to attach programs to it.
pub(crate) fn open(path: &Path) -> Result<File, KernelError> {
    File::open(path).map_err(KernelError::file("opening cgroup", path))
}

/// Kills whatever runs in the cgroup and removes it with everything below. Nothing happens when it does not exist.
///
/// # Errors
/// A process does not die, or a directory cannot be removed.
pub fn remove(path: &Path) -> Result<(), KernelError> {
    if !path.exists() {
        return Ok(());
    }
    // Without making the file: cgroupfs forbids that, where it says that there is none.
    let kill = OpenOptions::new().write(true).open(path.join("cgroup.kill"));
    match kill.and_then(|mut file| file.write_all(b"1")) {
        // A kernel before 5.14, or it went away meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => kill_each(path),
        Err(error) => return Err(KernelError::file("killing the processes in cgroup", path)(error)),
        Ok(()) => {}
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        match remove_tree(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result.map_err(KernelError::file("removing cgroup", path)),
        }
    }
}

/// Kills every process in the cgroup and below. One that is started meanwhile is seen by whoever removes the directory.
fn kill_each(path: &Path) {
    each_process(path, &mut |process| {
        // It may have ended.
        let _gone = kill(Pid::from_raw(process), Signal::SIGKILL);
    });
}

/// Network namespaces of the processes in the cgroup and below, other than that of the calling thread.
pub fn network_namespaces(path: &Path) -> Vec<Namespace> {
    let own = fs::read_link("/proc/thread-self/ns/net").ok();
    let mut found = BTreeMap::new();
    each_process(path, &mut |process| {
        let namespace = PathBuf::from(format!("/proc/{process}/ns/net"));
        // It may have ended.
        if let Ok(name) = fs::read_link(&namespace) {
            found.entry(name).or_insert(namespace);
        }
    });
    found
        .into_iter()
        .filter(|(name, _)| own.as_ref() != Some(name))
        .map(|(_, path)| Namespace::at(path))
        .collect()
}

fn each_process(path: &Path, act: &mut impl FnMut(i32)) {
    let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    processes.lines().filter_map(|line| line.parse().ok()).for_each(&mut *act);
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.filter(|entry| entry.is_dir()).for_each(|directory| each_process(&directory, act));
}

/// Depth first; control files cannot be removed and need not be.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_on_hybrid_and_on_pure_hosts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_mount("none /my\\040mount cgroup2 rw 0 0\n"), Some("/my mount".into()));
        assert_eq!(find_mount("cgroup /sys/fs/cgroup cgroup rw 0 0\n"), None);
    }
}
