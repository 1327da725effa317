//! OCI image archives, made from files: what the demo's and the tests' pods run, without a registry.
//!
//! The layout is that of the OCI image specification 1.1: an `index.json` that names the image, and blobs by digest.

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// Reference of the image that [`write_workload`] makes.
pub const WORKLOAD: &str = "fairlead.dev/workload:demo";

/// Where the workload is in its image.
const PROGRAM: &str = "/fairlead-workload";
/// Debian's static busybox.
const BUSYBOX: &str = "/bin/busybox";
/// Names that busybox answers to in the image.
const APPLETS: &[&str] =
    &["sh", "ls", "cat", "echo", "sleep", "wget", "nslookup", "ip", "ping", "nc", "true", "false"];

/// One blob and what refers to it.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
}

/// Writes the archive of the workload image: the static `binary` and a shell.
pub fn write_workload(archive: &Path, binary: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
        append(&mut layer, folder, EntryType::Directory, mode, &[])?;
    }
    append(&mut layer, PROGRAM, EntryType::Regular, 0o755, &read(binary)?)?;
    append(&mut layer, BUSYBOX, EntryType::Regular, 0o755, &read(Path::new(BUSYBOX))?)?;
    for applet in APPLETS {
        link(&mut layer, &format!("bin/{applet}"), "busybox")?;
    }
    let users = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    append(&mut layer, "etc/passwd", EntryType::Regular, 0o644, users)?;
    append(&mut layer, "etc/group", EntryType::Regular, 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    write_archive(archive, WORKLOAD, &[PROGRAM], layer.into_inner()?)
}

/// Writes an archive with one image of one uncompressed layer.
fn write_archive(archive: &Path, reference: &str, entrypoint: &[&str], layer: Vec<u8>) -> Result<()> {
    let layer = Blob { media_type: "application/vnd.oci.image.layer.v1.tar", bytes: layer };
    let config = Blob::json(
        "application/vnd.oci.image.config.v1+json",
        &json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": entrypoint, "Env": ["PATH=/bin:/"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
        }),
    );
    let manifest = Blob::json(
        "application/vnd.oci.image.manifest.v1+json",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        }),
    );
    let mut named = manifest.descriptor();
    named["annotations"] =
        json!({ "org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference });
    let index = json!({ "schemaVersion": 2, "manifests": [named] });

    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "oci-layout", EntryType::Regular, 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", EntryType::Regular, 0o644, index.to_string().as_bytes())?;
    for blob in [config, manifest, layer] {
        append(&mut tar, &format!("blobs/sha256/{}", blob.hex()), EntryType::Regular, 0o644, &blob.bytes)?;
    }
    // A reader never sees half an archive.
    let partial = archive.with_extension("partial");
    fs::write(&partial, tar.into_inner()?).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, archive).with_context(|| format!("cannot write {}", archive.display()))
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Blob {
    fn json(media_type: &'static str, value: &Value) -> Self {
        Self { media_type, bytes: value.to_string().into_bytes() }
    }

    fn hex(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex())
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// Adds an entry; owner and times are fixed, so that the same files make the same image.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path.trim_start_matches('/'), bytes)
        .with_context(|| format!("cannot archive {path}"))
}

fn link<W: Write>(tar: &mut tar::Builder<W>, path: &str, target: &str) -> Result<()> {
    let mut header = header(EntryType::Symlink, 0o777);
    tar.append_link(&mut header, path, target).with_context(|| format!("cannot archive {path}"))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}
