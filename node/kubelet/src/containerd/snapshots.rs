//! Snapshots: unpacked image layers and the writable layers of containers.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{
        ApplyRequest,
        diff_client::DiffClient,
        snapshots::{
            CommitSnapshotRequest, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
            StatSnapshotRequest, snapshots_client::SnapshotsClient,
        },
    },
    tonic::{Code, transport::Channel},
    types::{Descriptor, Mount},
};

use super::{Containerd, SNAPSHOTTER, ignore_not_found, optional};
use crate::Error;

impl Containerd {
    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    /// Makes the writable layer of a container over the committed `parent` (empty for none). It stays until it is
    /// removed, also before its container is recorded.
    pub(crate) async fn prepare_rootfs(&self, id: &str, parent: &str) -> Result<Vec<Mount>, Error> {
        let root = ("containerd.io/gc.root".to_owned(), jiff::Timestamp::now().to_string());
        self.prepare_snapshot(id, parent, HashMap::from([root])).await
    }

    async fn prepare_snapshot(
        &self,
        key: &str,
        parent: &str,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let mut client = self.snapshots();
        let answer = match client.prepare(self.request(request.clone())).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                self.remove_snapshot(key).await?;
                client.prepare(self.request(request)).await
            }
            other => other,
        };
        Ok(answer.map_err(Error::containerd("prepare snapshot", key))?.into_inner().mounts)
    }

    /// Whether the committed snapshot is there.
    pub(crate) async fn has_snapshot(&self, name: &str) -> Result<bool, Error> {
        let request = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.to_owned() };
        let answer = optional(self.snapshots().stat(self.request(request)).await)
            .map_err(Error::containerd("look at snapshot", name))?;
        Ok(answer.is_some())
    }

    /// Removes a snapshot. Idempotent.
    pub(crate) async fn remove_snapshot(&self, key: &str) -> Result<(), Error> {
        let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        ignore_not_found(self.snapshots().remove(self.request(request)).await)
            .map_err(Error::containerd("remove snapshot", key))
    }

    /// Unpacks one layer over `parent` as the snapshot `chain_id`.
    pub(crate) async fn unpack_layer(
        &self,
        layer: Descriptor,
        parent: &str,
        chain_id: &str,
    ) -> Result<(), Error> {
        if self.has_snapshot(chain_id).await? {
            return Ok(());
        }
        let key = format!("extract {chain_id}");
        let mounts = self.prepare_snapshot(&key, parent, HashMap::new()).await?;
        let request = ApplyRequest { diff: Some(layer), mounts, ..ApplyRequest::default() };
        DiffClient::new(self.channel.clone())
            .apply(self.request(request))
            .await
            .map_err(Error::containerd("unpack layer", chain_id))?;
        let request = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: chain_id.to_owned(),
            key,
            labels: HashMap::new(),
        };
        match self.snapshots().commit(self.request(request)).await {
            Err(status) if status.code() != Code::AlreadyExists => {
                Err(Error::containerd("commit snapshot", chain_id)(status))
            }
            _ => Ok(()),
        }
    }

    /// Removes writable layers whose container is none of `containers`: leftovers of a kubelet that was killed.
    pub(crate) async fn remove_orphan_rootfs(&self, containers: &[&str]) -> Result<(), Error> {
        for (name, _) in self.list_snapshots().await? {
            // Layers are named `sha256:…`, unpacking ones `extract …`.
            if !name.contains([':', ' ']) && !containers.contains(&name.as_str()) {
                self.remove_snapshot(&name).await?;
            }
        }
        Ok(())
    }

    /// All snapshots as (name, parent).
    pub(crate) async fn list_snapshots(&self) -> Result<Vec<(String, String)>, Error> {
        let request = ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), filters: Vec::new() };
        let mut stream = self
            .snapshots()
            .list(self.request(request))
            .await
            .map_err(Error::containerd("list", "snapshots"))?
            .into_inner();
        let mut found = Vec::new();
        while let Some(page) = stream.message().await.map_err(Error::containerd("list", "snapshots"))? {
            found.extend(page.info.into_iter().map(|info| (info.name, info.parent)));
        }
        Ok(found)
    }
}
