//! The parts of the OCI image format that the kubelet reads, and names of images.

use std::collections::HashMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Points at a blob.
#[derive(Clone, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) platform: Option<Platform>,
}

/// What an image of a multi-platform index is for.
#[derive(Clone, Deserialize, Debug)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// `index.json`, or a multi-platform index.
#[derive(Deserialize, Debug)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// One image.
#[derive(Deserialize, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// The image's configuration blob.
#[derive(Clone, Default, Deserialize, Debug)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    pub(crate) config: Defaults,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

/// What a container of the image does unless the pod says otherwise.
#[derive(Clone, Default, Deserialize, Debug)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Defaults {
    pub(crate) user: String,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) working_dir: String,
    pub(crate) stop_signal: String,
}

/// Digests of the unpacked layers.
#[derive(Clone, Default, Deserialize, Debug)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

impl RootFs {
    /// Chain identifiers, one per layer (OCI image specification, "Layer ChainID"): the names of the layers' snapshots.
    pub(crate) fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            let next = match chain.last() {
                None => diff_id.clone(),
                Some(parent) => sha256_digest(format!("{parent} {diff_id}").as_bytes()),
            };
            chain.push(next);
        }
        chain
    }
}

/// `sha256:<hex>` of the bytes.
pub(crate) fn sha256_digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

/// Hexadecimal SHA-256 of the bytes.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The full form of an image reference: `echo` is `docker.io/library/echo:latest`.
pub(crate) fn normalize(reference: &str) -> String {
    let (domain, rest) = match reference.split_once('/') {
        Some((domain, rest)) if domain.contains(['.', ':']) || domain == "localhost" => {
            (domain, rest.to_owned())
        }
        Some(_) => ("docker.io", reference.to_owned()),
        None => ("docker.io", format!("library/{reference}")),
    };
    let last = rest.rsplit('/').next().unwrap_or(&rest);
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{domain}/{rest}{tag}")
}

/// Whether the reference can name an image at all.
pub(crate) fn is_reference(reference: &str) -> bool {
    !reference.is_empty()
        && reference.chars().all(|c| c.is_ascii_alphanumeric() || "./:@_-".contains(c))
        && reference.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_take_their_full_form() {
        for (reference, full) in [
            ("echo", "docker.io/library/echo:latest"),
            ("echo:v1", "docker.io/library/echo:v1"),
            ("team/echo", "docker.io/team/echo:latest"),
            ("fairlead.dev/workload:demo", "fairlead.dev/workload:demo"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("quay.io/a/b@sha256:00", "quay.io/a/b@sha256:00"),
        ] {
            assert_eq!(normalize(reference), full, "{reference}");
        }
    }

    #[test]
    fn the_first_chain_id_is_the_first_layer() {
        let rootfs = RootFs { diff_ids: vec!["sha256:a".into(), "sha256:b".into()] };
        let chain = rootfs.chain_ids();
        assert_eq!(chain[0], "sha256:a");
        assert_eq!(chain[1], sha256_digest(b"sha256:a sha256:b"));
    }
}
