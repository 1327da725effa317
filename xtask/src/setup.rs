//! Installs what is missing and says what and why.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    bpf, paths,
    requirement::{CargoTool, Check, Needed, PythonTool, REQUIREMENTS, Requirement, Source},
    step,
};

/// To compile.
pub(crate) const BUILD: &[Needed] = &[Needed::Build];
/// To compile and run.
pub(crate) const RUN: &[Needed] = &[Needed::Build, Needed::Run];
/// To test.
pub(crate) const TEST: &[Needed] = &[Needed::Build, Needed::Run, Needed::Test];
/// To lint.
pub(crate) const LINT: &[Needed] = &[Needed::Build, Needed::Lint];
/// Everything.
pub(crate) const ALL: &[Needed] = &[Needed::Build, Needed::Run, Needed::Test, Needed::Lint];

/// Installs what is missing of what is `needed`.
pub(crate) fn run(needed: &[Needed]) -> Result<()> {
    let missing: Vec<&Requirement> =
        REQUIREMENTS.iter().filter(|row| needed.contains(&row.needed) && !row.is_met()).collect();
    let mut packages = Vec::new();
    for row in &missing {
        match &row.source {
            Source::Debian(package) => {
                println!("needs the package {package}: {}", row.why);
                packages.push(*package);
            }
            Source::Cargo(tool) => println!("needs {} {}: {}", tool.name, tool.version, row.why),
            Source::Python(tool) => println!("needs {} {}: {}", tool.name, tool.version, row.why),
        }
    }
    install_packages(&packages)?;
    for row in missing {
        match &row.source {
            Source::Debian(_) => {}
            Source::Cargo(tool) => tool.install()?,
            Source::Python(tool) => tool.install()?,
        }
    }
    Ok(())
}

/// Fails with one sentence when not root.
pub(crate) fn need_root(why: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("this command must run as root: {why}; run it again with sudo")
}

fn install_packages(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!(
            "these Debian packages are missing and there is no apt-get to install them: {}",
            packages.join(" ")
        );
    }
    need_root("it installs Debian packages")?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    step::quiet("read the package lists", apt().arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    let title = match packages {
        [one] => format!("install {one}"),
        several => format!("install {} packages", several.len()),
    };
    step::quiet(&title, apt().args(install).args(packages))
}

impl Requirement {
    fn is_met(&self) -> bool {
        match (&self.check, &self.source) {
            (Some(Check::Program(name)), _) => on_path(name),
            (Some(Check::File(path)), _) => Path::new(path).exists(),
            (Some(Check::Compiler(path)), _) => Path::new(path).exists() || bpf::rustup_builds(),
            (None, Source::Cargo(tool)) => tool.binary().exists(),
            (None, Source::Python(tool)) => tool.marker().exists(),
            (None, Source::Debian(_)) => false,
        }
    }
}

impl CargoTool {
    /// Its folder in the tool cache.
    fn folder(&self) -> PathBuf {
        let variant = if self.variant.is_empty() { String::new() } else { format!("-{}", self.variant) };
        paths::tools().join(format!("{}-{}{variant}", self.name, self.version))
    }

    /// The built tool.
    pub(crate) fn binary(&self) -> PathBuf {
        self.folder().join("bin").join(self.name)
    }

    fn install(&self) -> Result<()> {
        let title = format!("build {} {} (kept in {})", self.name, self.version, self.folder().display());
        let mut command = Command::new("cargo");
        command.args(["install", self.name, "--version", self.version]).args(self.args);
        command.arg("--root").arg(self.folder()).arg("--target-dir").arg(paths::target().join("tools"));
        command.envs(self.env.iter().copied());
        step::quiet(&title, &mut command).with_context(|| format!("cannot build {}", self.name))
    }
}

impl PythonTool {
    /// Its environment in the tool cache.
    fn folder(&self) -> PathBuf {
        paths::tools().join(format!("python-{}-{}", self.name, self.version))
    }

    /// The interpreter that finds it.
    pub(crate) fn interpreter(&self) -> PathBuf {
        self.folder().join("bin").join("python3")
    }

    /// What is there when the environment is complete.
    fn marker(&self) -> PathBuf {
        self.folder().join("complete")
    }

    fn install(&self) -> Result<()> {
        let folder = self.folder();
        let make = ["-m", "venv", "--clear"];
        step::quiet(
            &format!("make an environment for Python (kept in {})", folder.display()),
            Command::new("python3").args(make).arg(&folder),
        )?;
        let package = format!("{}=={}", self.name, self.version);
        step::quiet(
            &format!("install {package} from PyPI"),
            Command::new(self.interpreter()).args(["-m", "pip", "install", "--quiet", &package]),
        )?;
        std::fs::write(self.marker(), "").with_context(|| format!("cannot write into {}", folder.display()))
    }
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}
