//! Where the sources of dependencies are.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The folders of the crates that are read.
pub(crate) struct Sources {
    pub(crate) openapi: PathBuf,
    pub(crate) protobuf: PathBuf,
}

impl Sources {
    /// Asks cargo, first without the network: a crate that is never compiled may not have been fetched yet.
    pub(crate) fn find() -> Self {
        let metadata = metadata(true).or_else(|_| metadata(false)).unwrap_or_else(|error| {
            panic!("cargo metadata cannot say where k8s-openapi and k8s-pb are (try `cargo fetch`): {error}")
        });
        Self { openapi: folder_of(&metadata, "k8s-openapi"), protobuf: folder_of(&metadata, "k8s-pb") }
    }
}

fn metadata(offline: bool) -> Result<Value, String> {
    let variable = |name: &str| std::env::var(name).expect("cargo sets it for build scripts");
    let mut command = Command::new(variable("CARGO"));
    command.args(["metadata", "--format-version=1", "--features=sources", "--filter-platform"]);
    command.arg(variable("TARGET")).arg("--manifest-path");
    command.arg(PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    if offline {
        command.arg("--offline");
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn folder_of(metadata: &Value, name: &str) -> PathBuf {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == name)
        .find_map(|package| package["manifest_path"].as_str())
        .unwrap_or_else(|| panic!("cargo metadata does not name {name}"));
    PathBuf::from(manifest).parent().expect("a manifest is in a folder").to_owned()
}
