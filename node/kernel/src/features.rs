//! What the node needs of the kernel and of the machine, checked by name before anything is made.

use std::path::Path;

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use crate::{KernelError, cgroup};

/// Where the bpf file system is mounted by convention.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Type information of the running kernel.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Version of the running kernel.
const OS_RELEASE: &str = "/proc/sys/kernel/osrelease";

/// First kernel with TCX links (commit e420bed02507).
const TCX_SINCE: (u32, u32) = (6, 6);

/// Checks everything and mounts the bpf file system where it is missing.
///
/// # Errors
/// The first requirement that does not hold, with the remedy.
pub fn require_features(bpffs_dir: &Path) -> Result<(), KernelError> {
    require_kernel()?;
    cgroup::mount_point()?;
    require_bpffs(bpffs_dir)
}

/// Checks what only another user or another kernel would cure; changes nothing.
///
/// # Errors
/// The first requirement that does not hold, with the remedy.
pub fn require_kernel() -> Result<(), KernelError> {
    let uid = geteuid();
    if !uid.is_root() {
        return Err(KernelError::NotRoot { uid: uid.as_raw() });
    }
    require_release()?;
    if !Path::new(KERNEL_BTF).exists() {
        return Err(KernelError::MissingFeature {
            feature: "type information (BTF)",
            remedy: format!("{KERNEL_BTF} does not exist; use a kernel built with CONFIG_DEBUG_INFO_BTF=y"),
        });
    }
    Ok(())
}

fn require_release() -> Result<(), KernelError> {
    let release = std::fs::read_to_string(OS_RELEASE).map_err(KernelError::file("reading", OS_RELEASE))?;
    let release = release.trim();
    match parse_release(release) {
        Some(version) if version < TCX_SINCE => Err(KernelError::MissingFeature {
            feature: "TCX links",
            remedy: format!("{release} is running, Linux 6.6 or newer is needed"),
        }),
        _ => Ok(()),
    }
}

/// Major and minor number of a release such as `6.12.9-cloud-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn require_bpffs(directory: &Path) -> Result<(), KernelError> {
    if is_bpffs(directory) {
        return Ok(());
    }
    let mount_point = Path::new(BPFFS);
    if directory.starts_with(mount_point) && !is_bpffs(mount_point) {
        mount(Some("bpffs"), mount_point, Some("bpf"), MsFlags::empty(), None::<&str>)
            .map_err(|errno| KernelError::file("mounting the bpf file system on", BPFFS)(errno.into()))?;
    }
    if is_bpffs(directory) {
        return Ok(());
    }
    Err(KernelError::MissingFeature {
        feature: "a bpf file system at the pin directory",
        remedy: format!("{} is not on one; choose a directory under {BPFFS}", directory.display()),
    })
}

/// Whether the directory, or the nearest ancestor that exists, is on a bpf file system.
fn is_bpffs(directory: &Path) -> bool {
    let existing = directory.ancestors().find(|path| path.exists());
    existing.and_then(|path| statfs(path).ok()).is_some_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("6.12.9+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(parse_release("6.1-rc3"), Some((6, 1)));
        assert_eq!(parse_release("unknown"), None);
        assert!(parse_release("6.1.0").is_some_and(|version| version < TCX_SINCE));
        assert!(parse_release("6.18.44").is_some_and(|version| version >= TCX_SINCE));
    }
}
