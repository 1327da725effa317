//! The pod network that the kubelet uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use fairlead_kernel::{Pods, cleanup::pod_namespaces};
use fairlead_kubelet::network::{Attachment, NetworkError, PodIdentity, PodNetwork};
use fairlead_model::{ObjectName, Prefix};
use tokio::{sync::watch, time::timeout};

use crate::{
    AgentError,
    ipam::{INTERFACE_PREFIX, Ipam, PodRecord},
};

/// How long a pod waits for the node to learn its pod networks.
const NETWORKS_TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses from the checkpoint, the rest from the kernel.
pub(crate) struct Network {
    node: String,
    pods: Pods,
    ipam: Mutex<Ipam>,
    networks: watch::Receiver<Vec<Prefix>>,
    netns_dir: PathBuf,
    netns_prefix: String,
}

impl Network {
    pub(crate) fn new(
        config: &crate::Config,
        pods: Pods,
        networks: watch::Receiver<Vec<Prefix>>,
    ) -> Result<Self, AgentError> {
        let netns_prefix = config.netns_dir.join(&config.netns_prefix);
        let ipam = Ipam::open(config.state_dir.join("pods.json"), netns_prefix)?;
        Ok(Self {
            node: config.node_name.clone(),
            pods,
            ipam: Mutex::new(ipam),
            networks,
            netns_dir: config.netns_dir.clone(),
            netns_prefix: config.netns_prefix.clone(),
        })
    }

    /// Gives the pods that survived a restart of the agent the programs of this build. A pod whose namespace is gone
    /// is left to the kubelet, which attaches it again or gives it up.
    pub(crate) async fn restore(&self) -> Result<(), AgentError> {
        let records: Vec<PodRecord> = self.ipam().pods().values().cloned().collect();
        for record in records {
            let spec = record.spec();
            if self.pods.is_attached(&spec).await? {
                self.pods.attach(&spec).await?;
            }
        }
        Ok(())
    }

    /// From now on packets to pods may pass the host's stack by.
    pub(crate) async fn use_shortcuts(&self) -> Result<(), AgentError> {
        self.pods.use_shortcuts();
        self.restore().await
    }

    /// Pods that have a place, by UID.
    pub(crate) fn records(&self) -> BTreeMap<String, PodRecord> {
        self.ipam().pods().clone()
    }

    /// The pod that has this address on this node.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<ObjectName> {
        let ipam = self.ipam();
        let record = ipam.pods().values().find(|record| record.addresses.contains(&address))?;
        Some(ObjectName::new(&record.namespace, &record.name))
    }

    /// The kernel's view of the programs.
    pub(crate) fn programs(&self) -> Vec<fairlead_kernel::ProgramSummary> {
        self.pods.programs()
    }

    async fn pod_networks(&self) -> Result<Vec<Prefix>, NetworkError> {
        let mut networks = self.networks.clone();
        let known = timeout(NETWORKS_TIMEOUT, networks.wait_for(|networks| !networks.is_empty())).await;
        match known {
            Ok(Ok(networks)) => Ok(networks.clone()),
            _ => Err(NetworkError {
                message: format!(
                    "node {} has no pod network: its Node has no spec.podCIDRs yet, or the agent cannot reach the \
                     feed (see `fairlead status`)",
                    self.node
                ),
                source: None,
            }),
        }
    }

    async fn take_back(&self, uid: &str, record: &PodRecord) -> Result<(), NetworkError> {
        let failed =
            |error: AgentError| failure(&record.namespace, &record.name, "removing its network", error);
        self.pods.detach(&record.spec()).await.map_err(|error| failed(error.into()))?;
        self.ipam().release(uid).map_err(failed)
    }

    /// Interfaces and namespaces of ours that no record mentions: left by an attach that did not get far.
    async fn remove_strays(&self) -> Result<(), AgentError> {
        let records = self.records();
        let interfaces: BTreeSet<String> = records.values().map(|record| record.spec().interface).collect();
        for name in self.pods.interfaces(INTERFACE_PREFIX).await? {
            if !interfaces.contains(&name) {
                self.pods.delete_interface(&name).await?;
            }
        }
        let namespaces: BTreeSet<&Path> = records.values().map(|record| record.netns.as_path()).collect();
        for namespace in pod_namespaces(&self.netns_dir, &self.netns_prefix)? {
            if !namespaces.contains(namespace.path()) {
                namespace.remove()?;
            }
        }
        Ok(())
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, pod: &PodIdentity) -> Result<Attachment, NetworkError> {
        let networks = self.pod_networks().await?;
        let failed = |error: AgentError| failure(&pod.namespace, &pod.name, "setting up its network", error);
        let record = self.ipam().allocate(pod, &networks).map_err(failed)?;
        self.pods.attach(&record.spec()).await.map_err(|error| failed(error.into()))?;
        Ok(Attachment { netns: record.netns, addresses: record.addresses })
    }

    async fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        let record = self.ipam().get(uid).cloned();
        match record {
            Some(record) => self.take_back(uid, &record).await,
            None => Ok(()),
        }
    }

    async fn retain(&self, uids: &[String]) -> Result<(), NetworkError> {
        for (uid, record) in self.records() {
            if !uids.contains(&uid) {
                self.take_back(&uid, &record).await?;
            }
        }
        self.remove_strays().await.map_err(|error| NetworkError {
            message: format!("removing network leftovers of node {}: {error}", self.node),
            source: Some(Box::new(error)),
        })
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("node", &self.node).finish_non_exhaustive()
    }
}

fn failure(namespace: &str, name: &str, what: &str, error: AgentError) -> NetworkError {
    let message = format!("pod {namespace}/{name}: {what}: {error}");
    NetworkError { message, source: Some(Box::new(error)) }
}
