//! What the kubelet asks of the node's network: a namespace with addresses for each pod.

use std::{net::IpAddr, path::PathBuf};

use async_trait::async_trait;

/// Identifies a pod to the network.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PodIdentity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; the key of [`PodNetwork::detach`].
    pub uid: String,
}

/// A pod's place on the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Path of the network namespace; the pod's containers join it.
    pub netns: PathBuf,
    /// Addresses, primary family first.
    pub addresses: Vec<IpAddr>,
}

/// The network could not be set up or taken down. The sentence names the pod, what failed and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    /// For an Event and the pod's status.
    pub message: String,
    /// What failed below.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The node's pod network. Both operations are idempotent.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Gives the pod its namespace and addresses; the same ones when it has them already, also after a restart.
    async fn attach(&self, pod: &PodIdentity) -> Result<Attachment, NetworkError>;

    /// Takes everything back. The addresses may be given to another pod afterwards.
    async fn detach(&self, uid: &str) -> Result<(), NetworkError>;

    /// Tells the network that only these pods (by UID) exist; everything else is taken back. Called once, when the
    /// kubelet has seen its complete list of pods and containers after a start.
    async fn retain(&self, uids: &[String]) -> Result<(), NetworkError>;
}
