//! The test image: the machine's static busybox.

use std::{fs, io, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

pub(crate) const NAME: &str = "fairlead.test/busybox:1";

/// Writes the OCI archive.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    let mut layer = Builder::new(Vec::new());
    add(&mut layer, EntryType::Directory, "bin/", &[], 0o755)?;
    add(&mut layer, EntryType::Regular, "bin/busybox", &fs::read("/bin/busybox")?, 0o755)?;
    for tool in [
        "sh", "sleep", "echo", "cat", "httpd", "env", "id", "touch", "test", "hostname", "wget", "ls",
        "head", "tr",
    ] {
        layer.append_link(&mut header(EntryType::Symlink, 0, 0o777), format!("bin/{tool}"), "busybox")?;
    }
    add(&mut layer, EntryType::Directory, "etc/", &[], 0o755)?;
    add(
        &mut layer,
        EntryType::Regular,
        "etc/passwd",
        b"root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n",
        0o644,
    )?;
    add(&mut layer, EntryType::Directory, "tmp/", &[], 0o1777)?;
    let layer = layer.into_inner()?;
    let config =
        json!({ "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": { "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo hello; sleep 1000"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] } })
        .to_string();
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)] })
    .to_string();
    let mut target = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    target["annotations"] = json!({ "io.containerd.image.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [target] }).to_string();
    let mut archive = Builder::new(fs::File::create(path)?);
    add(&mut archive, EntryType::Regular, "index.json", index.as_bytes(), 0o644)?;
    for blob in [&layer, config.as_bytes(), manifest.as_bytes()] {
        let name = format!("blobs/{}", digest(blob).replacen(':', "/", 1));
        add(&mut archive, EntryType::Regular, &name, blob, 0o644)?;
    }
    archive.into_inner()?;
    Ok(())
}

fn add(
    tar: &mut Builder<impl io::Write>,
    kind: EntryType,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    tar.append_data(&mut header(kind, bytes.len() as u64, mode), path, bytes)
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}
