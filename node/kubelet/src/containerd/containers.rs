//! Container records: what containerd remembers of a container across restarts of everybody.

use std::{collections::HashMap, path::Path};

use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest,
        UpdateContainerRequest, container::Runtime, containers_client::ContainersClient,
    },
    tonic::{Code, transport::Channel},
};
use prost_types::{Any, FieldMask};

use super::{Containerd, SNAPSHOTTER, ignore_not_found};
use crate::Error;

/// Answers may hold the specifications of all containers of a node.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A container to be recorded; its root file system is the snapshot with the same identifier.
pub(crate) struct NewContainer {
    /// Identifier, at most 76 characters.
    pub(crate) id: String,
    /// Image reference.
    pub(crate) image: String,
    /// How it is found again.
    pub(crate) labels: HashMap<String, String>,
    /// OCI runtime specification.
    pub(crate) spec: serde_json::Value,
}

impl Containerd {
    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Records the container. A leftover record of the same identifier is replaced.
    pub(crate) async fn create_container(&self, new: NewContainer) -> Result<(), Error> {
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
            value: new.spec.to_string().into_bytes(),
        };
        let container = Container {
            id: new.id.clone(),
            image: new.image,
            labels: new.labels,
            runtime: Some(Runtime {
                name: "io.containerd.runc.v2".to_owned(),
                options: self.runc_root.as_deref().map(runc_options),
            }),
            spec: Some(spec),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: new.id.clone(),
            ..Container::default()
        };
        let request = CreateContainerRequest { container: Some(container) };
        let mut client = self.containers();
        match client.create(self.request(request.clone())).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                self.delete_container(&new.id).await?;
                client.create(self.request(request)).await
            }
            other => other,
        }
        .map_err(Error::containerd("create container", new.id))?;
        Ok(())
    }

    /// All containers of the namespace.
    pub(crate) async fn list_containers(&self) -> Result<Vec<Container>, Error> {
        let answer = self
            .containers()
            .list(self.request(ListContainersRequest { filters: Vec::new() }))
            .await
            .map_err(Error::containerd("list", "containers"))?;
        Ok(answer.into_inner().containers)
    }

    /// Adds labels to the record.
    pub(crate) async fn label_container(
        &self,
        id: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), Error> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let container = Container { id: id.to_owned(), labels, ..Container::default() };
        let request =
            UpdateContainerRequest { container: Some(container), update_mask: Some(FieldMask { paths }) };
        self.containers()
            .update(self.request(request))
            .await
            .map_err(Error::containerd("label container", id))?;
        Ok(())
    }

    /// Ends and forgets the container, its task and its root file system. Idempotent.
    pub(crate) async fn delete_container(&self, id: &str) -> Result<(), Error> {
        self.kill_and_delete_task(id).await?;
        let request = DeleteContainerRequest { id: id.to_owned() };
        ignore_not_found(self.containers().delete(self.request(request)).await)
            .map_err(Error::containerd("delete container", id))?;
        self.remove_snapshot(id).await
    }
}

/// Options of the shim `io.containerd.runc.v2`, of which only `root` is set: field 7 of `containerd.runc.v1.Options`
/// (containerd, `runtime/v2/runc/options/oci.proto`).
fn runc_options(root: &Path) -> Any {
    const ROOT: u32 = 7;
    let root = root.to_string_lossy().into_owned();
    let mut value = Vec::new();
    encode_string(ROOT, &root, &mut value);
    Any { type_url: "containerd.runc.v1.Options".to_owned(), value }
}

/// A string field in protobuf's encoding.
fn encode_string(field: u32, text: &str, out: &mut Vec<u8>) {
    const LENGTH_DELIMITED: u64 = 2;
    for mut number in [u64::from(field) << 3 | LENGTH_DELIMITED, text.len() as u64] {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_field_is_its_tag_its_length_and_its_bytes() {
        let mut out = Vec::new();
        encode_string(7, "/run", &mut out);
        assert_eq!(out, b"\x3a\x04/run");
        let long = "x".repeat(300);
        out.clear();
        encode_string(7, &long, &mut out);
        assert_eq!(out[..3], [0x3a, 0xac, 0x02]);
    }
}
