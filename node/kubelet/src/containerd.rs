//! containerd's native API over its Unix socket, in one namespace.
//!
//! Written for the API of containerd 1.6: no transfer service, no sandbox service. Every request carries the namespace;
//! requests of an import carry its lease too.

mod containers;
mod content;
mod private;
mod remove;
mod snapshots;
mod tasks;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use containerd_client::{
    services::v1::{
        CreateNamespaceRequest, CreateRequest, DeleteRequest, Namespace, leases_client::LeasesClient,
        namespaces_client::NamespacesClient, version_client::VersionClient,
    },
    tonic::{Code, Request, Status, metadata::AsciiMetadataValue, transport::Channel},
};

pub(crate) use self::{
    containers::NewContainer,
    tasks::{Exit, TaskState},
};
pub use self::{
    private::{PrivateContainerd, Running, answers, configuration, spawn},
    remove::remove_all,
};
use crate::Error;

/// The snapshotter of all images and containers.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub struct Containerd {
    channel: Channel,
    namespace: AsciiMetadataValue,
    lease: Option<AsciiMetadataValue>,
    runc_root: Option<PathBuf>,
}

impl Containerd {
    /// Connects and makes the namespace.
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self, Error> {
        let connection = Self::open(socket, namespace).await?;
        connection.create_namespace(namespace).await?;
        Ok(connection)
    }

    /// Connects, and leaves the namespaces as they are.
    pub(crate) async fn open(socket: &Path, namespace: &str) -> Result<Self, Error> {
        let channel = containerd_client::connect(socket)
            .await
            .map_err(|source| Error::Connect { socket: socket.to_owned(), source: Box::new(source) })?;
        let namespace_value = namespace.parse().map_err(|_| {
            Error::unsupported("containerd namespace", format!("{namespace:?} is not printable ASCII"))
        })?;
        Ok(Self { channel, namespace: namespace_value, lease: None, runc_root: None })
    }

    /// Lets runc keep the state of new containers in this directory and not in the one of the whole machine.
    #[must_use]
    pub(crate) fn with_runc_root(self, directory: PathBuf) -> Self {
        Self { runc_root: Some(directory), ..self }
    }

    /// containerd's version.
    pub async fn version(&self) -> Result<String, Error> {
        let answer = VersionClient::new(self.channel.clone())
            .version(self.request(()))
            .await
            .map_err(Error::containerd("tell", "its version"))?;
        Ok(answer.into_inner().version)
    }

    /// Runs `work` under a lease, so that nothing it makes is collected before it refers to it.
    pub(crate) async fn with_lease<T>(
        &self,
        id: &str,
        work: impl AsyncFnOnce(Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut leases = LeasesClient::new(self.channel.clone());
        let request = CreateRequest { id: id.to_owned(), labels: HashMap::new() };
        if let Err(status) = leases.create(self.request(request)).await
            && status.code() != Code::AlreadyExists
        {
            return Err(Error::containerd("create lease", id)(status));
        }
        let leased = Self { lease: id.parse().ok(), ..self.clone() };
        let result = work(leased).await;
        let request = DeleteRequest { id: id.to_owned(), sync: false };
        ignore_not_found(leases.delete(self.request(request)).await)
            .map_err(Error::containerd("delete lease", id))?;
        result
    }

    async fn create_namespace(&self, name: &str) -> Result<(), Error> {
        let namespace = Namespace { name: name.to_owned(), labels: HashMap::new() };
        let request = CreateNamespaceRequest { namespace: Some(namespace) };
        match NamespacesClient::new(self.channel.clone()).create(self.request(request)).await {
            Err(status) if status.code() != Code::AlreadyExists => {
                Err(Error::containerd("create namespace", name)(status))
            }
            _ => Ok(()),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        request
    }
}

/// `Ok(None)` when the object is not there.
fn optional<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

fn ignore_not_found<T>(answer: Result<T, Status>) -> Result<(), Status> {
    optional(answer).map(|_| ())
}
