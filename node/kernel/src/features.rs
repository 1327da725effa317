//! What the node needs of the kernel and of the machine, checked by name before anything is made.

use std::path::Path;

use aya::{
    EbpfLoader,
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};
use fairlead_abi::names::globals;
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

/// First kernel that can hold the programs: `bpf_redirect_peer` and `bpf_redirect_neigh` came with it.
const OLDEST: (u32, u32) = (5, 10);

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

/// Whether interfaces take TCX links, which can be pinned; else they take filters ([`crate::bpf`]).
pub(crate) fn has_tcx() -> bool {
    let release = std::fs::read_to_string(OS_RELEASE).unwrap_or_default();
    parse_release(release.trim()).is_some_and(|version| version >= TCX_SINCE)
}

fn require_release() -> Result<(), KernelError> {
    let release = std::fs::read_to_string(OS_RELEASE).map_err(KernelError::file("reading", OS_RELEASE))?;
    let release = release.trim();
    match parse_release(release) {
        Some(version) if version < OLDEST => Err(KernelError::MissingFeature {
            feature: "redirection to a peer (`bpf_redirect_peer`)",
            remedy: format!("{release} is running, Linux {}.{} or newer is needed", OLDEST.0, OLDEST.1),
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

/// Lets the process make maps where the kernel counts them against the limit of locked memory (before Linux 5.11). Where
/// it may not be raised, loading says that memory is short.
#[expect(unsafe_code, reason = "the limit has no safe interface among our dependencies")]
pub fn raise_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: it reads the structure, which lives for the time of the call.
    let _refused = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// A helper that only newer kernels have, the programs that call it, and the switch that leaves the call out.
struct Helper {
    /// A global of the object: 1 by default, 0 where the kernel lacks the helper.
    switch: &'static str,
    program: ProgramType,
    helper: BpfHelper,
}

const HELPERS: &[Helper] = &[
    // Linux 6.1 (commit 69fd337a975c).
    Helper {
        switch: globals::SET_RETVAL,
        program: ProgramType::CgroupSockAddr,
        helper: BpfHelper::BPF_FUNC_set_retval,
    },
    // Linux 5.15 (commit 6cf1770d63dd).
    Helper {
        switch: globals::SOCK_OPS_NETNS,
        program: ProgramType::SockOps,
        helper: BpfHelper::BPF_FUNC_get_netns_cookie,
    },
];

/// Which helpers of `HELPERS` the running kernel has, in that order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Helpers(Vec<u32>);

impl Helpers {
    /// Asks the kernel, by loading programs of two instructions.
    ///
    /// # Errors
    /// The kernel cannot be asked: not root, for one.
    pub fn of_this_kernel() -> Result<Self, KernelError> {
        let has = |row: &Helper| is_helper_supported(row.program, row.helper).map(u32::from);
        let probed: Result<_, ProgramError> = HELPERS.iter().map(has).collect();
        let failed = |source| KernelError::Program { name: "of two instructions", source: Box::new(source) };
        Ok(Self(probed.map_err(failed)?))
    }

    /// Whether the kernel has what this switch of the object leaves out.
    pub fn has(&self, switch: &str) -> bool {
        HELPERS.iter().zip(&self.0).any(|(row, has)| row.switch == switch && *has == 1)
    }

    /// Leaves out of the programs what the kernel would refuse.
    pub fn switch<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (row, has) in HELPERS.iter().zip(&self.0) {
            loader.override_global(row.switch, has, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("6.12.9+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(parse_release("6.1-rc3"), Some((6, 1)));
        assert_eq!(parse_release("unknown"), None);
        assert!(parse_release("5.4.0").is_some_and(|version| version < OLDEST));
        assert!(parse_release("5.10.0-32-cloud-amd64").is_some_and(|version| version >= OLDEST));
    }
}
