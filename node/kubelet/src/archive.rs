//! OCI image archives: a tar file with `oci-layout`, `index.json` and `blobs/`.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    Error,
    oci::{Descriptor, Index, Manifest, normalize},
};

/// A message of the import stays under containerd's limit of 16 MiB.
const CHUNK_BYTES: usize = 1 << 20;
/// Indexes, manifests and configurations are read into memory up to this size.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Where everything is inside one archive.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    entries: HashMap<String, (u64, u64)>,
}

/// One image of an archive, for this machine's architecture.
#[derive(Debug)]
pub(crate) struct ArchivedImage {
    /// Full reference.
    pub(crate) name: String,
    /// Descriptor of the manifest.
    pub(crate) target: Descriptor,
    /// The manifest.
    pub(crate) manifest: Manifest,
}

impl Archive {
    /// Reads the table of contents. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let mut archive = tar::Archive::new(file);
        let mut entries = HashMap::new();
        for entry in archive.entries_with_seek().map_err(Error::file("read", path))? {
            let entry = entry.map_err(Error::file("read", path))?;
            let name = entry.path().map_err(Error::file("read", path))?.to_string_lossy().into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            entries.insert(name, (entry.raw_file_position(), entry.size()));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// The images in it. Blocks.
    pub(crate) fn images(&self) -> Result<Vec<ArchivedImage>, Error> {
        let index: Index = self.document("index.json")?;
        index.manifests.into_iter().map(|descriptor| self.image(descriptor)).collect()
    }

    /// A small blob. Blocks.
    pub(crate) fn blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        self.read(&blob_name(digest))
    }

    /// A blob of any size in parts, read in the background.
    pub(crate) fn stream(&self, digest: &str) -> Result<impl Stream<Item = Vec<u8>> + Send + use<>, Error> {
        let (offset, size) = self.entry(&blob_name(digest))?;
        let mut file = File::open(&self.path).map_err(Error::file("open", &self.path))?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::file("read", &self.path))?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut left = file.take(size);
            loop {
                let mut part = Vec::with_capacity(CHUNK_BYTES);
                // A short read fails the commit, which compares size and digest.
                match left.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut part) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                }
                if sender.blocking_send(part).is_err() {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn image(&self, descriptor: Descriptor) -> Result<ArchivedImage, Error> {
        let name =
            NAME_ANNOTATIONS.iter().find_map(|key| descriptor.annotations.get(*key)).ok_or_else(|| {
                self.invalid(format!(
                    "manifest {} has no annotation {}",
                    descriptor.digest, NAME_ANNOTATIONS[0]
                ))
            })?;
        let name = normalize(name);
        let target =
            if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
                self.for_this_machine(&descriptor)?
            } else {
                descriptor
            };
        let manifest = self.document(&blob_name(&target.digest))?;
        Ok(ArchivedImage { name, target, manifest })
    }

    fn for_this_machine(&self, index: &Descriptor) -> Result<Descriptor, Error> {
        let architecture = architecture();
        let index: Index = self.document(&blob_name(&index.digest))?;
        index
            .manifests
            .into_iter()
            .find(|manifest| {
                manifest.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
            })
            .ok_or_else(|| self.invalid(format!("it has no image for linux/{architecture}")))
    }

    fn document<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let bytes = self.read(name)?;
        serde_json::from_slice(&bytes).map_err(|error| self.invalid(format!("{name}: {error}")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (offset, size) = self.entry(name)?;
        if size > DOCUMENT_BYTES_MAX {
            return Err(self.invalid(format!("{name} is larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let mut file = File::open(&self.path).map_err(Error::file("open", &self.path))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(size).read_to_end(&mut bytes))
            .map_err(Error::file("read", &self.path))?;
        Ok(bytes)
    }

    fn entry(&self, name: &str) -> Result<(u64, u64), Error> {
        let entry = self.entries.get(name).copied();
        entry.ok_or_else(|| {
            self.invalid(format!(
                "{name} is missing; make it with `docker save` or `skopeo copy … oci-archive:`"
            ))
        })
    }

    fn invalid(&self, reason: String) -> Error {
        Error::Archive { path: self.path.clone(), reason }
    }
}

/// This machine's architecture in OCI's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
