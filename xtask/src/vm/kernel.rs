//! Kernels of Debian's releases: fetched once, unpacked, kept in the user's cache by version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{paths, step};

/// A kernel that the programs must run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    /// Major and minor number.
    pub(crate) version: &'static str,
    /// Debian's release that has it.
    pub(crate) suite: &'static str,
}

/// Every one, oldest first.
pub(crate) const RELEASES: &[Release] = &[
    Release { version: "5.10", suite: "bullseye" },
    Release { version: "6.1", suite: "bookworm" },
    Release { version: "6.12", suite: "trixie" },
];

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package that depends on the newest build of the kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Written last, so that what has it is whole.
const COMPLETE: &str = "complete";

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Full version, such as `6.1.0-56-cloud-amd64`.
    pub(crate) version: String,
    folder: PathBuf,
}

impl Kernel {
    /// The kernel of a release, fetched if it is not in the cache.
    pub(crate) fn of(release: Release) -> Result<Self> {
        let cache = paths::tools().with_file_name("kernels").join(release.suite);
        if let Some(kernel) = Self::newest_in(&cache) {
            return Ok(kernel);
        }
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        fetch(release, &cache)?;
        let missing = || format!("Debian's {} has no kernel {}", release.suite, release.version);
        Self::newest_in(&cache).with_context(missing)
    }

    fn newest_in(cache: &Path) -> Option<Self> {
        let folders = fs::read_dir(cache).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let mut whole: Vec<PathBuf> = folders.filter(|folder| folder.join(COMPLETE).exists()).collect();
        whole.sort();
        let folder = whole.pop()?;
        Some(Self { version: folder.file_name()?.to_str()?.to_owned(), folder })
    }

    /// The file to boot.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The modules of these names that the package has, each after those that it needs. A name that it does not have is
    /// built into the kernel, or the step that needs it fails.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let places = ["lib", "usr/lib"].map(|lib| self.folder.join(lib).join("modules").join(&self.version));
        let Some(root) = places.iter().find(|place| place.exists()) else {
            bail!("the package of kernel {} has no modules", self.version);
        };
        let mut all = Vec::new();
        find_modules(root, &mut all)?;
        let mut ordered = Vec::new();
        for name in names {
            add_module(name, &all, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// Adds a module after those that its `depends` field names.
fn add_module(name: &str, all: &[PathBuf], ordered: &mut Vec<PathBuf>) -> Result<()> {
    let Some(packed) = all.iter().find(|path| module_name(path) == name) else { return Ok(()) };
    if ordered.iter().any(|path| module_name(path) == name) {
        return Ok(());
    }
    let path = unpacked(packed)?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for needed in depends(&bytes) {
        add_module(&needed, all, ordered)?;
    }
    ordered.push(path);
    Ok(())
}

/// What a module's `.modinfo` says that it needs (`scripts/mod/modpost.c`).
fn depends(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Name of the module in a file; the kernel writes `_` where the file may have `-`.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

/// The module, decompressed beside the packed file where the package has it packed.
fn unpacked(path: &Path) -> Result<PathBuf> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(path.to_owned());
    }
    let plain = path.with_extension("");
    if !plain.exists() {
        let mut xz = Command::new("xz");
        let output = xz.arg("--decompress").arg("--stdout").arg(path).output().context("cannot start xz")?;
        if !output.status.success() {
            bail!("cannot unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        fs::write(&plain, output.stdout).with_context(|| format!("cannot write {}", plain.display()))?;
    }
    Ok(plain)
}

fn find_modules(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            find_modules(&path, found)?;
        } else if path.to_string_lossy().contains(".ko") {
            found.push(path);
        }
    }
    Ok(())
}

/// Downloads and unpacks the newest kernel of a release with a package list of its own, so that the machine's is not
/// touched.
fn fetch(release: Release, cache: &Path) -> Result<()> {
    let apt = Apt::new(release, cache)?;
    step::quiet(
        &format!("read the package list of Debian {}", release.suite),
        apt.command("apt-get").arg("update"),
    )?;
    let depends = step::probe(apt.command("apt-cache").args(["depends", PACKAGE])).unwrap_or_default();
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let Some(package) = package.map(str::to_owned) else {
        bail!("Debian {} does not say which kernel {PACKAGE} is", release.suite);
    };
    let title = format!("download kernel {} ({package}, kept in {})", release.version, cache.display());
    step::quiet(&title, apt.command("apt-get").args(["download", &package]))?;
    let version = package.strip_prefix("linux-image-").unwrap_or(&package);
    let folder = cache.join(version);
    for file in fs::read_dir(cache)?.filter_map(Result::ok).map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            step::quiet(
                &format!("unpack {package}"),
                Command::new("dpkg").arg("-x").arg(&file).arg(&folder),
            )?;
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    fs::write(folder.join(COMPLETE), "").with_context(|| format!("cannot write to {}", folder.display()))?;
    fs::remove_dir_all(&apt.state).with_context(|| format!("cannot remove {}", apt.state.display()))
}

/// Debian's package tools on a list of one release.
struct Apt {
    cache: PathBuf,
    state: PathBuf,
}

impl Apt {
    fn new(release: Release, cache: &Path) -> Result<Self> {
        let state = cache.join("apt");
        fs::create_dir_all(state.join("lists/partial"))
            .with_context(|| format!("cannot make {}", state.display()))?;
        let line = format!("deb [signed-by={KEYRING}] {MIRROR} {} main\n", release.suite);
        fs::write(state.join("sources.list"), line).context("cannot write a package list")?;
        Ok(Self { cache: cache.to_owned(), state })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let state = self.state.display();
        let options = [
            format!("Dir::Etc::sourcelist={state}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={state}/lists"),
            format!("Dir::Cache={state}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        command.current_dir(&self.cache);
        for option in options {
            command.arg("-o").arg(option);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"license=GPL\0depends=nf_tables,libcrc32c\0retpoline=Y\0";
        assert_eq!(depends(module), ["nf_tables", "libcrc32c"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }

    #[test]
    fn a_module_is_named_as_the_kernel_names_it() {
        assert_eq!(module_name(Path::new("/x/nf-tables.ko.xz")), "nf_tables");
        assert_eq!(module_name(Path::new("veth.ko")), "veth");
    }
}
