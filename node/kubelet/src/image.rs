//! Images: found in containerd, or imported from the archives of the image directories.
//!
//! There is no registry client. An image that is not in containerd is looked for in archives that came or changed since
//! they were last read; after that it is missing.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use containerd_client::types;
use tokio::sync::Mutex;

use crate::{
    Error,
    archive::{Archive, ArchivedImage},
    containerd::{Containerd, SNAPSHOTTER},
    oci::{Descriptor, ImageConfig, Manifest, is_reference, normalize},
};

/// An image that containers can be made of.
#[derive(Debug)]
pub(crate) struct Image {
    /// Full reference.
    pub(crate) name: String,
    /// Digest of the manifest.
    pub(crate) digest: String,
    /// Snapshot of the top layer.
    pub(crate) chain_id: String,
    /// Bytes of the layers.
    pub(crate) size: u64,
    /// The image's defaults.
    pub(crate) config: ImageConfig,
}

/// Why a container has no image: the reasons and sentences of a container's `waiting` state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("image {image:?} is not a valid reference: use [registry/]name[:tag]")]
    InvalidName { image: String },
    #[error("image {image} is not on this node and imagePullPolicy is Never: {hint}")]
    Never { image: String, hint: String },
    #[error("image {image} is not on this node, and pulling from a registry is not supported: {hint}")]
    Missing { image: String, hint: String },
    #[error(transparent)]
    Failed(#[from] Error),
}

impl ImageError {
    /// The `reason` that clients know.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::Never { .. } => "ErrImageNeverPull",
            Self::Missing { .. } | Self::Failed(_) => "ErrImagePull",
        }
    }
}

/// The images of one node.
#[derive(Debug)]
pub(crate) struct ImageStore {
    containerd: Containerd,
    directories: Vec<PathBuf>,
    read: Mutex<HashMap<PathBuf, Option<SystemTime>>>,
    known: std::sync::Mutex<HashMap<String, Arc<Image>>>,
}

impl ImageStore {
    pub(crate) fn new(containerd: Containerd, directories: Vec<PathBuf>) -> Self {
        Self { containerd, directories, read: Mutex::default(), known: std::sync::Mutex::default() }
    }

    /// The image a container asks for.
    pub(crate) async fn resolve(&self, image: &str, policy: &str) -> Result<Arc<Image>, ImageError> {
        if !is_reference(image) {
            return Err(ImageError::InvalidName { image: image.to_owned() });
        }
        let name = normalize(image);
        if let Some(found) = self.find(&name).await? {
            return Ok(found);
        }
        let imported = self.import_new().await;
        if let Some(found) = self.find(&name).await? {
            return Ok(found);
        }
        imported?;
        let image = image.to_owned();
        let hint = self.hint();
        Err(if policy == "Never" {
            ImageError::Never { image, hint }
        } else {
            ImageError::Missing { image, hint }
        })
    }

    /// Imports archives that were not read yet. One bad archive does not keep the others out; the first error is told.
    pub(crate) async fn import_new(&self) -> Result<(), Error> {
        let mut read = self.read.lock().await;
        let mut result = Ok(());
        for path in self.archives() {
            let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            if read.get(&path) == Some(&modified) {
                continue;
            }
            match self.import(&path).await {
                Ok(()) => {
                    read.insert(path, modified);
                }
                Err(error) => {
                    tracing::warn!(%error, "image archive not imported");
                    result = result.and(Err(error));
                }
            }
        }
        result
    }

    /// All images, for the node's status.
    pub(crate) async fn list(&self) -> Result<Vec<Arc<Image>>, Error> {
        let mut found = Vec::new();
        for (name, target) in self.containerd.list_images().await? {
            if let Ok(image) = self.load(&name, &target).await {
                found.push(image);
            }
        }
        Ok(found)
    }

    async fn find(&self, name: &str) -> Result<Option<Arc<Image>>, Error> {
        match self.containerd.image(name).await? {
            Some(target) => self.load(name, &target).await.map(Some),
            None => Ok(None),
        }
    }

    async fn load(&self, name: &str, target: &types::Descriptor) -> Result<Arc<Image>, Error> {
        if let Some(image) = self.known.lock().expect("never held over a panic").get(name)
            && image.digest == target.digest
        {
            return Ok(image.clone());
        }
        let manifest: Manifest = self.read_json(&target.digest).await?;
        let config: ImageConfig = self.read_json(&manifest.config.digest).await?;
        let image = Arc::new(Image {
            name: name.to_owned(),
            digest: target.digest.clone(),
            chain_id: config.rootfs.chain_ids().pop().unwrap_or_default(),
            size: manifest.layers.iter().map(|layer| layer.size).sum(),
            config,
        });
        self.known.lock().expect("never held over a panic").insert(name.to_owned(), image.clone());
        Ok(image)
    }

    async fn read_json<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<T, Error> {
        let bytes = self.containerd.read_blob(digest).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::unsupported(digest, error.to_string()))
    }

    fn archives(&self) -> Vec<PathBuf> {
        let entries =
            self.directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
        paths.sort();
        paths
    }

    fn hint(&self) -> String {
        let directories: Vec<_> = self.directories.iter().map(|path| path.display().to_string()).collect();
        format!("put an OCI archive (*.tar) of it into {}", directories.join(" or "))
    }

    async fn import(&self, path: &Path) -> Result<(), Error> {
        let owned = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let archive = Archive::open(&owned)?;
            let images = archive.images()?;
            Ok::<_, Error>((archive, images))
        });
        let (archive, images) = opened.await.expect("reading an archive does not panic")?;
        for image in images {
            let current = self.containerd.image(&image.name).await?;
            if current.is_some_and(|current| current.digest == image.target.digest) {
                continue;
            }
            let lease = format!("import-{}", image.target.digest.replace(':', "-"));
            self.containerd
                .with_lease(&lease, async |leased: Containerd| import_image(&leased, &archive, image).await)
                .await?;
        }
        Ok(())
    }
}

/// Blobs, then snapshots, then the name: what is named is complete.
async fn import_image(containerd: &Containerd, archive: &Archive, image: ArchivedImage) -> Result<(), Error> {
    let ArchivedImage { name, target, manifest } = image;
    let config_blob = archive.blob(&manifest.config.digest)?;
    let config: ImageConfig = serde_json::from_slice(&config_blob)
        .map_err(|error| Error::unsupported(format!("image {name} configuration"), error.to_string()))?;
    let chain_ids = config.rootfs.chain_ids();
    if chain_ids.len() != manifest.layers.len() {
        return Err(Error::unsupported(
            format!("image {name}"),
            format!("{} layers but {} diff_ids", manifest.layers.len(), chain_ids.len()),
        ));
    }
    for blob in manifest.layers.iter().chain([&manifest.config, &target]) {
        if !containerd.has_blob(&blob.digest).await? {
            containerd.write_blob(&blob.digest, blob.size, archive.stream(&blob.digest)?).await?;
        }
    }
    let mut references =
        HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), manifest.config.digest.clone())]);
    for (index, layer) in manifest.layers.iter().enumerate() {
        references.insert(format!("containerd.io/gc.ref.content.l.{index}"), layer.digest.clone());
    }
    containerd.label_blob(&target.digest, references).await?;
    let mut parent = "";
    for (layer, chain_id) in manifest.layers.iter().zip(&chain_ids) {
        containerd.unpack_layer(wire_descriptor(layer), parent, chain_id).await?;
        parent = chain_id;
    }
    if !parent.is_empty() {
        let label = (format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"), parent.to_owned());
        containerd.label_blob(&manifest.config.digest, HashMap::from([label])).await?;
    }
    containerd.put_image(&name, wire_descriptor(&target)).await?;
    tracing::info!(image = name, "imported");
    Ok(())
}

fn wire_descriptor(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone(),
    }
}
