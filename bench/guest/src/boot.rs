//! Making a bare kernel a Linux system.

use std::{fs, process::Command};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};

use crate::BUSYBOX;

/// Type and place of what is mounted, in this order.
const MOUNTS: &[(&str, &str)] = &[
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tmpfs", "/var"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("debugfs", "/sys/kernel/debug"),
];

pub(crate) fn mount_all() -> anyhow::Result<()> {
    for (kind, place) in MOUNTS {
        // Those below /sys exist already.
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        let mounted = mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>);
        match mounted {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot mount {kind} on {place}")),
        }
    }
    Ok(())
}

pub(crate) fn load_modules(modules: &[String]) -> anyhow::Result<()> {
    for module in modules {
        let output = Command::new(BUSYBOX).args(["insmod", module]).output().context("cannot run busybox")?;
        if !output.status.success() {
            bail!("cannot load {module}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// What was not loaded is not there: the kernel shall not look for a program that would load it.
pub(crate) fn forbid_more_modules() -> anyhow::Result<()> {
    let path = "/proc/sys/kernel/modprobe";
    fs::write(path, "\n").with_context(|| format!("cannot write {path}"))
}

pub(crate) fn prepare_network() -> anyhow::Result<()> {
    let status = Command::new(BUSYBOX).args(["ip", "link", "set", "lo", "up"]).status();
    status.context("cannot run busybox").map(drop)
}
