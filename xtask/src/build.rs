//! What has to be built, and in what order: the eBPF object, which the binary embeds; the workload and its image;
//! the release binaries.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{bpf, paths, step};

/// The only target the static workload is built for.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// A release binary of the workspace.
#[derive(Clone, Copy)]
pub(crate) enum Binary {
    /// The demo and the benchmarks.
    Bench,
}

impl Binary {
    /// A command that runs it with `arguments`.
    pub(crate) fn command(self, arguments: &[&str]) -> Command {
        let name = match self {
            Self::Bench => "fairlead-bench",
        };
        let mut command = Command::new(release().join(name));
        command.args(arguments);
        command.env("FAIRLEAD_BIN", release().join("fairlead")).env("FAIRLEAD_IMAGES", paths::images());
        command
    }
}

/// The folder of release binaries.
pub(crate) fn release() -> PathBuf {
    paths::target().join("release")
}

/// Builds the object, the image and the release binaries.
pub(crate) fn everything() -> Result<()> {
    bpf::build()?;
    workload()?;
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--package", "fairlead", "--package", "fairlead-bench"]);
    step::quiet("build the release binaries", &mut cargo)?;
    let mut image = Binary::Bench.command(&["image"]);
    image.arg("--workload").arg(workload_binary()).arg("--to").arg(paths::images());
    step::quiet("make the image of the demo", &mut image)
}

/// A cargo command in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    command
}

/// Removes what builds and crashed runs left behind.
pub(crate) fn clean() -> Result<()> {
    let fairlead = release().join("fairlead");
    if fairlead.exists() && nix::unistd::geteuid().is_root() {
        step::attached(Command::new(fairlead).arg("down")).context("cannot remove a left-over cluster")?;
    }
    step::attached(cargo().arg("clean"))
}

fn workload() -> Result<()> {
    let mut cargo = cargo();
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "fairlead-workload",
        "--target",
        STATIC_TARGET,
    ]);
    cargo.arg("--target-dir").arg(static_target()).env("RUSTFLAGS", "-C target-feature=+crt-static");
    step::quiet("build the static workload", &mut cargo)
}

fn workload_binary() -> PathBuf {
    static_target().join(STATIC_TARGET).join("release").join("fairlead-workload")
}

fn static_target() -> PathBuf {
    paths::target().join("static")
}
