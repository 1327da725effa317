//! What has to be built, and in what order: the eBPF object, which the binary embeds; the workload and its image;
//! the release binaries.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{bpf, paths, step};

/// The only target the static workload is built for.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the binaries are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With debug assertions; what the tests run, since they compile it anyway.
    Dev,
    /// What the demo shows and the benchmarks measure.
    Release,
}

impl Profile {
    /// The folder of the binaries.
    fn folder(self) -> PathBuf {
        paths::target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }

    /// The binary `fairlead`.
    pub(crate) fn fairlead(self) -> PathBuf {
        self.folder().join("fairlead")
    }

    /// The binary `fairlead-bench`.
    pub(crate) fn fairlead_bench(self) -> PathBuf {
        self.folder().join("fairlead-bench")
    }

    /// A command that runs the demo and the benchmarks with `arguments`.
    pub(crate) fn bench(self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.fairlead_bench());
        command.args(arguments);
        command.env("FAIRLEAD_BIN", self.fairlead()).env("FAIRLEAD_IMAGES", paths::images());
        command
    }
}

/// Builds the object, the binaries and the image.
pub(crate) fn everything(profile: Profile) -> Result<()> {
    bpf::build()?;
    workload()?;
    binaries(profile)?;
    let mut image = profile.bench(&["image"]);
    image.arg("--workload").arg(workload_binary()).arg("--to").arg(paths::images());
    step::quiet("make the image of the demo", &mut image)
}

/// Builds the binaries, with the eBPF object that is there.
pub(crate) fn binaries(profile: Profile) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--locked", "--package", "fairlead", "--package", "fairlead-bench"]);
    let title = match profile {
        Profile::Dev => "build the binaries for the tests",
        Profile::Release => {
            cargo.arg("--release");
            "build the release binaries"
        }
    };
    step::quiet(title, &mut cargo)
}

/// A cargo command in the workspace, with the environment that a person's own `cargo` has: what `cargo run` sets for xtask
/// itself would make build scripts run again, and everything after them be compiled again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| own(name)) {
        command.env_remove(name);
    }
    command.current_dir(paths::root());
    command
}

/// Removes what builds and crashed runs left behind.
pub(crate) fn clean() -> Result<()> {
    let fairlead = Profile::Release.fairlead();
    if fairlead.exists() && nix::unistd::geteuid().is_root() {
        step::attached(Command::new(fairlead).arg("down")).context("cannot remove a left-over cluster")?;
    }
    step::attached(cargo().arg("clean"))
}

fn workload() -> Result<()> {
    static_binary("build the static workload", "fairlead-workload")
}

/// The first process of virtual machines.
pub(crate) fn guest() -> Result<()> {
    static_binary("build the guest", "fairlead-guest")
}

fn static_binary(title: &str, package: &str) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--package", package, "--target", STATIC_TARGET]);
    cargo.arg("--target-dir").arg(static_target()).env("RUSTFLAGS", "-C target-feature=+crt-static");
    step::quiet(title, &mut cargo)
}

fn workload_binary() -> PathBuf {
    static_release().join("fairlead-workload")
}

/// Where [`guest`] leaves its binary.
pub(crate) fn guest_binary() -> PathBuf {
    static_release().join("fairlead-guest")
}

fn static_release() -> PathBuf {
    static_target().join(STATIC_TARGET).join("release")
}

fn static_target() -> PathBuf {
    paths::target().join("static")
}
