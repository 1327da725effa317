//! Embeds the eBPF object when `cargo xtask build` has made it.
//!
//! A build without the object works; loading it then fails with a sentence that says how to make it.

use std::{env, fs, path::PathBuf};

/// Overrides where the object is.
const VARIABLE: &str = "FAIRLEAD_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object =
        env::var_os(VARIABLE).map_or_else(|| manifest.join("../../target/bpf/fairlead.bpf.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("fairlead.bpf.o");
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&out, bytes).expect("OUT_DIR is writable");
}
