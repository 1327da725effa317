//! Removal of everything that was made in one namespace.

use std::path::Path;

use containerd_client::services::v1::{DeleteNamespaceRequest, namespaces_client::NamespacesClient};

use super::{Containerd, ignore_not_found};
use crate::Error;

/// Ends and removes every container, snapshot and image of the namespace, and the namespace. Idempotent.
pub async fn remove_all(socket: &Path, namespace: &str) -> Result<(), Error> {
    let containerd = Containerd::open(socket, namespace).await?;
    for container in containerd.list_containers().await? {
        containerd.delete_container(&container.id).await?;
    }
    for (name, _) in containerd.list_images().await? {
        containerd.delete_image(&name).await?;
    }
    containerd.remove_snapshots().await?;
    containerd.remove_blobs().await?;
    let request = DeleteNamespaceRequest { name: namespace.to_owned() };
    ignore_not_found(
        NamespacesClient::new(containerd.channel.clone()).delete(containerd.request(request)).await,
    )
    .map_err(Error::containerd("delete namespace", namespace))
}

impl Containerd {
    /// Children before their parents.
    async fn remove_snapshots(&self) -> Result<(), Error> {
        let mut left = self.list_snapshots().await?;
        while !left.is_empty() {
            let (parents, leaves): (Vec<_>, Vec<_>) =
                left.iter().cloned().partition(|(name, _)| left.iter().any(|(_, parent)| parent == name));
            if leaves.is_empty() {
                break;
            }
            for (name, _) in leaves {
                self.remove_snapshot(&name).await?;
            }
            left = parents;
        }
        Ok(())
    }
}
