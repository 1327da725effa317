//! Putting the test's own process under a node's hooks.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

/// This process is in a cgroup, with all its sockets made from now on; back home when dropped.
#[derive(Debug)]
pub struct InCgroup {
    home: PathBuf,
}

impl InCgroup {
    /// Makes the cgroup and enters it.
    ///
    /// # Panics
    /// There is no cgroup v2, or it cannot be entered.
    pub fn enter(cgroup: &Path) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").expect("Linux");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let home = mount_point().join(own);
        fs::create_dir_all(cgroup).expect("root may make a cgroup");
        move_to(cgroup);
        Self { home }
    }
}

impl Drop for InCgroup {
    fn drop(&mut self) {
        move_to(&self.home);
    }
}

/// Where cgroup v2 is mounted.
///
/// # Panics
/// Nowhere.
pub fn mount_point() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("Linux");
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let found = fields.find_map(|mut f| {
        let path = f.nth(1)?;
        (f.next() == Some("cgroup2")).then(|| PathBuf::from(path))
    });
    found.expect("cgroup v2 is mounted")
}

fn move_to(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string()).expect("root may move a process");
}
