//! Content (blobs by digest) and image records.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{
        CreateImageRequest, DeleteContentRequest, DeleteImageRequest, GetImageRequest, Image, Info,
        InfoRequest, ListContentRequest, ListImagesRequest, ReadContentRequest, UpdateImageRequest,
        UpdateRequest, WriteAction, WriteContentRequest, content_client::ContentClient,
        images_client::ImagesClient,
    },
    tonic::{Code, Status, transport::Channel},
    types::Descriptor,
};
use futures::Stream;
use prost_types::FieldMask;

use super::{Containerd, optional};
use crate::Error;

impl Containerd {
    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }

    /// Whether the blob is there.
    pub(crate) async fn has_blob(&self, digest: &str) -> Result<bool, Error> {
        let request = InfoRequest { digest: digest.to_owned() };
        let answer = optional(self.content().info(self.request(request)).await)
            .map_err(Error::containerd("look at blob", digest))?;
        Ok(answer.is_some())
    }

    /// Reads a whole (small) blob.
    pub(crate) async fn read_blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut stream = self
            .content()
            .read(self.request(request))
            .await
            .map_err(Error::containerd("read blob", digest))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(Error::containerd("read blob", digest))? {
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Writes a blob from its parts; a blob that is there already is left as it is.
    pub(crate) async fn write_blob(
        &self,
        digest: &str,
        size: u64,
        parts: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<(), Error> {
        let total = i64::try_from(size).map_err(|_| Error::unsupported(digest, "the blob is too large"))?;
        let requests = write_requests(digest.to_owned(), total, parts);
        let answer = async {
            let mut stream = self.content().write(self.request(requests)).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        match answer.await {
            Err(status) if status.code() != Code::AlreadyExists => {
                Err(Error::containerd("write blob", digest)(status))
            }
            _ => Ok(()),
        }
    }

    /// Adds labels to a blob; they keep what it refers to from being collected.
    pub(crate) async fn label_blob(
        &self,
        digest: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), Error> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = Info { digest: digest.to_owned(), labels, ..Info::default() };
        let request = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        self.content()
            .update(self.request(request))
            .await
            .map_err(Error::containerd("label blob", digest))?;
        Ok(())
    }

    /// Removes all blobs of the namespace.
    pub(crate) async fn remove_blobs(&self) -> Result<(), Error> {
        let mut client = self.content();
        let request = ListContentRequest { filters: Vec::new() };
        let mut stream = client
            .list(self.request(request))
            .await
            .map_err(Error::containerd("list", "blobs"))?
            .into_inner();
        let mut digests = Vec::new();
        while let Some(page) = stream.message().await.map_err(Error::containerd("list", "blobs"))? {
            digests.extend(page.info.into_iter().map(|info| info.digest));
        }
        for digest in digests {
            let request = DeleteContentRequest { digest: digest.clone() };
            optional(client.delete(self.request(request)).await)
                .map_err(Error::containerd("delete blob", digest))?;
        }
        Ok(())
    }

    /// The descriptor of an image's manifest.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        let request = GetImageRequest { name: name.to_owned() };
        let answer = optional(self.images().get(self.request(request)).await)
            .map_err(Error::containerd("look at image", name))?;
        Ok(answer.and_then(|answer| answer.into_inner().image).and_then(|image| image.target))
    }

    /// Names and manifests of all images.
    pub(crate) async fn list_images(&self) -> Result<Vec<(String, Descriptor)>, Error> {
        let request = ListImagesRequest { filters: Vec::new() };
        let answer =
            self.images().list(self.request(request)).await.map_err(Error::containerd("list", "images"))?;
        let images = answer.into_inner().images.into_iter();
        Ok(images.filter_map(|image| Some((image.name, image.target?))).collect())
    }

    /// Points the name at the manifest.
    pub(crate) async fn put_image(&self, name: &str, target: Descriptor) -> Result<(), Error> {
        let image = Image { name: name.to_owned(), target: Some(target), ..Image::default() };
        let mut client = self.images();
        let request = CreateImageRequest { image: Some(image.clone()), ..CreateImageRequest::default() };
        match client.create(self.request(request)).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = UpdateImageRequest { image: Some(image), ..UpdateImageRequest::default() };
                client.update(self.request(request)).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
        .map_err(Error::containerd("record image", name))
    }

    /// Forgets an image and waits until what only it used is collected. Idempotent.
    pub(crate) async fn delete_image(&self, name: &str) -> Result<(), Error> {
        let request =
            DeleteImageRequest { name: name.to_owned(), sync: true, ..DeleteImageRequest::default() };
        optional(self.images().delete(self.request(request)).await)
            .map_err(Error::containerd("delete image", name))?;
        Ok(())
    }
}

/// The messages of one blob: its parts in order, then the commit.
fn write_requests(
    digest: String,
    total: i64,
    parts: impl Stream<Item = Vec<u8>> + Send + 'static,
) -> impl Stream<Item = WriteContentRequest> + Send + 'static {
    use futures::StreamExt;

    let message = move |action: WriteAction, offset: i64, data: Vec<u8>| WriteContentRequest {
        action: action.into(),
        r#ref: format!("import-{digest}"),
        total,
        expected: digest.clone(),
        offset,
        data,
        labels: HashMap::new(),
    };
    let commit = message.clone();
    let mut offset = 0;
    parts
        .map(move |data| {
            let at = offset;
            offset += data.len() as i64;
            message(WriteAction::Write, at, data)
        })
        .chain(futures::stream::once(async move { commit(WriteAction::Commit, total, Vec::new()) }))
}
