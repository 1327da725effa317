//! Builds the eBPF object `target/bpf/fairlead.bpf.o`.
//!
//! The compiler must have the sources of `core`. A rustup toolchain with `rust-src` is taken when the linker's LLVM
//! can read its bitcode, otherwise Debian's compiler. Cargo decides what is up to date.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{build, paths, requirement, step};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "fairlead-programs";
const BINARY: &str = "fairlead-bpf";
/// Newest LLVM whose bitcode the linker reads: the one it is built with.
const LINKER_LLVM: u32 = 22;
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// What the object is compiled with: `v3` has 32-bit jumps and registers (kernel 5.1). Copies of a known size are loads and
/// stores, not calls of functions that go byte by byte.
const FLAGS: &[&str] = &[
    "--cfg=bpf_target_arch=\"x86_64\"",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
    "-Ctarget-cpu=v3",
];

/// A compiler with the sources of `core`.
struct Compiler {
    rustc: PathBuf,
    llvm: u32,
    from: Origin,
}

enum Origin {
    Rustup(String),
    Debian,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Origin::Rustup(name) => write!(f, "rustup's {name}, LLVM {}", self.llvm),
            Origin::Debian => write!(f, "Debian's rustc-web, LLVM {}", self.llvm),
        }
    }
}

/// Builds the object and returns its path.
pub(crate) fn build() -> Result<PathBuf> {
    let compiler = Compiler::find()?;
    let linker = requirement::BPF_LINKER.binary();
    if !linker.exists() {
        bail!("bpf-linker is not at {}: run `cargo xtask setup`", linker.display());
    }
    let target_dir = paths::target().join("bpf-build");
    let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    flags.push(format!("-Clinker={}", linker.display()));
    let mut cargo = build::cargo();
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            PACKAGE,
            "--target",
            TARGET,
            "-Zbuild-std=core",
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_UNSTABLE_FEATURE_UNIFICATION")
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION");
    step::quiet(&format!("build the eBPF object with {compiler}"), &mut cargo)?;
    install(&target_dir.join(TARGET).join("release").join(BINARY))
}

/// Whether a toolchain of rustup can build the object, so that Debian's compiler is not needed.
pub(crate) fn rustup_builds() -> bool {
    Compiler::in_rustup().is_some()
}

/// Copies the object to its place, unless it is there already: its date is what the binary's build looks at.
fn install(built: &Path) -> Result<PathBuf> {
    let object = paths::target().join("bpf").join("fairlead.bpf.o");
    let bytes =
        fs::read(built).with_context(|| format!("the build left no object at {}", built.display()))?;
    if fs::read(&object).is_ok_and(|present| present == bytes) {
        return Ok(object);
    }
    let folder = object.parent().expect("joined above");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&object, bytes).with_context(|| format!("cannot write {}", object.display()))?;
    Ok(object)
}

impl Compiler {
    fn find() -> Result<Self> {
        if let Some(compiler) = Self::in_rustup() {
            return Ok(compiler);
        }
        match Self::at(Path::new(DEBIAN_RUSTC), Origin::Debian) {
            Some(compiler) => Ok(compiler),
            None => bail!(
                "no Rust compiler with the sources of `core` and LLVM {LINKER_LLVM} or older: run `cargo xtask setup` \
                 (Debian's rustc-web and rust-web-src), or `rustup component add rust-src`"
            ),
        }
    }

    /// The first fitting toolchain of rustup, nightly before others.
    fn in_rustup() -> Option<Self> {
        let list = step::probe(Command::new("rustup").args(["toolchain", "list", "--quiet"]))?;
        let mut names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
        names.sort_by_key(|name| !name.starts_with("nightly"));
        names.into_iter().find_map(|name| {
            let rustc = step::probe(Command::new("rustup").args(["which", "rustc", "--toolchain", name]))?;
            Self::at(Path::new(&rustc), Origin::Rustup(name.to_owned()))
        })
    }

    /// The compiler at this path, if it fits.
    fn at(rustc: &Path, from: Origin) -> Option<Self> {
        let sysroot = step::probe(Command::new(rustc).args(["--print", "sysroot"]))?;
        let has_core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists();
        let version = step::probe(Command::new(rustc).arg("-vV"))?;
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        let recent = numbers(field("release: ")?) >= numbers(env!("CARGO_PKG_RUST_VERSION"));
        let llvm = *numbers(field("LLVM version: ")?).first()?;
        (has_core && recent && llvm <= LINKER_LLVM).then(|| Self { rustc: rustc.to_owned(), llvm, from })
    }
}

/// Major and minor number of a version.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').take(2).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(numbers("1.96.0-nightly"), [1, 96]);
        assert!(numbers("1.100.0") > numbers("1.95"));
        assert!(numbers("1.94.1") < numbers("1.95"));
    }
}
