//! Mounts: which there are, and taking them away.

use std::{
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

/// A mount of this process's mount namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    /// Where.
    pub(crate) target: PathBuf,
    /// File system type.
    pub(crate) kind: String,
    /// What is mounted, as whoever mounted it named it.
    pub(crate) source: String,
    /// Options of the file system.
    pub(crate) options: String,
}

/// All mounts, in the order they were made.
pub(crate) fn all() -> Vec<Mount> {
    fs::read_to_string("/proc/self/mountinfo").map(|text| parse(&text)).unwrap_or_default()
}

/// Unmounts everything at or below a directory, the newest first. Returns how many there were.
pub(crate) fn detach_below(directory: &Path) -> usize {
    let below: Vec<_> = all().into_iter().filter(|m| m.target.starts_with(directory)).collect();
    for mount in below.iter().rev() {
        if let Err(problem) = umount2(&mount.target, MntFlags::MNT_DETACH) {
            tracing::warn!(target = %mount.target.display(), %problem, "cannot unmount");
        }
    }
    below.len()
}

/// How many mounts there are at or below a directory.
pub(crate) fn count_below(directory: &Path) -> usize {
    all().iter().filter(|m| m.target.starts_with(directory)).count()
}

/// The cgroup v2 hierarchy, wherever it is mounted.
pub(crate) fn cgroup2() -> Option<PathBuf> {
    all().into_iter().find(|m| m.kind == "cgroup2").map(|m| m.target)
}

/// Every cgroup hierarchy of either version.
pub(crate) fn cgroup_hierarchies() -> Vec<PathBuf> {
    all().into_iter().filter(|m| m.kind.starts_with("cgroup")).map(|m| m.target).collect()
}

/// What is mounted on a directory, the last mount hiding those before it.
pub(crate) fn on(target: &Path) -> Option<Mount> {
    all().into_iter().rfind(|m| m.target == target)
}

/// Lines of proc_pid_mountinfo(5): `36 35 98:0 /root /target options [optional…] - type source options`.
fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        Some(Mount {
            target: unescape(left.split(' ').nth(4)?),
            kind: right.next()?.to_owned(),
            source: right.next()?.to_owned(),
            options: right.next().unwrap_or_default().to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(value) if byte == b'\\' => {
                bytes.push(value);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::parse;

    #[test]
    fn mountinfo_lines_are_read_with_and_without_optional_fields() {
        let text = "\
29 21 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
99 21 0:4 net:[4026532] /run/netns/a\\040b rw - nsfs nsfs rw\n\
broken line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, "cgroup2");
        assert_eq!(mounts[0].target, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[1].target, Path::new("/run/netns/a b"));
        assert_eq!(mounts[1].source, "nsfs");
    }
}
