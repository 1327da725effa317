//! What was removed, in numbers.

use std::fmt;

use serde::Serialize;

/// How many of each were removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Removed {
    /// Daemons, shims and what containers ran.
    pub(crate) processes: usize,
    /// Network namespaces of the fabric and the nodes.
    pub(crate) namespaces: usize,
    /// Root file systems, volumes, pods' namespaces.
    pub(crate) mounts: usize,
    /// Directories of pinned BPF objects.
    pub(crate) pins: usize,
    /// In all hierarchies.
    pub(crate) cgroups: usize,
    /// Of sockets, logs and other short-lived files.
    pub(crate) directories: usize,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.processes, "process", "processes"),
            (self.namespaces, "network namespace", "network namespaces"),
            (self.mounts, "mount", "mounts"),
            (self.pins, "directory of BPF pins", "directories of BPF pins"),
            (self.cgroups, "cgroup", "cgroups"),
            (self.directories, "directory", "directories"),
        ];
        let mut separator = "";
        for (count, one, many) in kinds.into_iter().filter(|(count, ..)| *count > 0) {
            write!(f, "{separator}{count} {}", if count == 1 { one } else { many })?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Removed;

    #[test]
    fn the_summary_counts_only_what_was_there() {
        assert_eq!(Removed::default().to_string(), "");
        let removed = Removed { processes: 1, namespaces: 3, ..Removed::default() };
        assert_eq!(removed.to_string(), "1 process, 3 network namespaces");
    }
}
