//! A pod's cgroups.
//!
//! Limits are runc's work, in the hierarchy its version uses. Socket hooks sit in the cgroup v2 hierarchy: on a hybrid
//! host (v1 controllers beside a v2 hierarchy) a task is moved there by hand, between its creation and its start; on a
//! pure v2 host runc has placed it in the same subtree already.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// Mounted cgroup hierarchies.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    unified: PathBuf,
    v1: Vec<PathBuf>,
    root: String,
}

impl Cgroups {
    /// Finds the hierarchies. `root` is the node's subtree.
    pub(crate) fn find(root: &str) -> Result<Self, Error> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(Error::file("read", "/proc/self/mounts"))?;
        Self::parse(&mounts, root)
    }

    fn parse(mounts: &str, root: &str) -> Result<Self, Error> {
        let of_type = |wanted: &str| {
            let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let paths =
                lines.filter(|fields| fields.get(2) == Some(&wanted)).map(|fields| PathBuf::from(fields[1]));
            paths.collect::<Vec<_>>()
        };
        let unified = of_type("cgroup2").into_iter().next().ok_or(Error::NoCgroup2)?;
        Ok(Self { unified, v1: of_type("cgroup"), root: root.trim_matches('/').to_owned() })
    }

    /// `cgroupsPath` of a container.
    pub(crate) fn container_path(&self, uid: &str, container_id: &str) -> String {
        let short = container_id.get(..16).unwrap_or(container_id);
        format!("/{}/pod{uid}/{short}", self.root)
    }

    /// Makes the pod's cgroup where hooks see it.
    pub(crate) fn create(&self, uid: &str) -> Result<(), Error> {
        let directory = self.pod(&self.unified, uid);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))
    }

    /// Puts the process there.
    pub(crate) fn join(&self, uid: &str, pid: u32) -> Result<(), Error> {
        if self.v1.is_empty() {
            return Ok(());
        }
        let file = self.pod(&self.unified, uid).join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(Error::file("write", &file))
    }

    /// Whether the kernel ended a process of the container because memory ran out. Asked after its end, before its
    /// task is deleted.
    pub(crate) fn was_out_of_memory(&self, uid: &str, container_id: &str) -> bool {
        let path = self.container_path(uid, container_id);
        let relative = path.trim_start_matches('/');
        let v1 = self
            .v1
            .iter()
            .filter(|mount| mount.ends_with("memory"))
            .map(|m| m.join(relative).join("memory.oom_control"));
        let v2 = [self.unified.join(relative).join("memory.events")];
        v1.chain(v2).any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
        })
    }

    /// Removes the pod's cgroups of every hierarchy, children first. Idempotent.
    pub(crate) fn remove(&self, uid: &str) -> Result<(), Error> {
        for mount in self.v1.iter().chain([&self.unified]) {
            remove_tree(&self.pod(mount, uid))?;
        }
        Ok(())
    }

    /// Removes the node's whole subtree of every hierarchy. No process must be left in it. Idempotent.
    fn remove_all(&self) -> Result<(), Error> {
        self.v1.iter().chain([&self.unified]).try_for_each(|mount| remove_tree(&mount.join(&self.root)))
    }

    fn pod(&self, mount: &Path, uid: &str) -> PathBuf {
        mount.join(&self.root).join(format!("pod{uid}"))
    }
}

/// Removes the subtree `root` of every cgroup hierarchy, after its containers were removed. Idempotent.
pub fn remove_cgroups(root: &str) -> Result<(), Error> {
    Cgroups::find(root)?.remove_all()
}

fn remove_tree(directory: &Path) -> Result<(), Error> {
    let children = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path())?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove cgroup", directory)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_hosts_are_told_apart() {
        let hybrid =
            "cgroup /sys/fs/cgroup/memory cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = Cgroups::parse(hybrid, "/fairlead/n1").unwrap();
        assert_eq!(found.unified, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found.v1, [PathBuf::from("/sys/fs/cgroup/memory")]);
        assert_eq!(found.container_path("u", "0123456789abcdef0"), "/fairlead/n1/podu/0123456789abcdef");
        let pure = Cgroups::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "fairlead/n1").unwrap();
        assert!(pure.v1.is_empty());
    }

    #[test]
    fn a_host_without_cgroup2_is_told_how_to_get_it() {
        let error = Cgroups::parse("proc /proc proc rw 0 0\n", "x").unwrap_err().to_string();
        assert!(error.contains("mount -t cgroup2"), "{error}");
    }
}
