//! The pods of this node: one worker each, fed by a watch.

mod adopt;
pub(crate) mod labels;
pub(crate) mod plan;
pub(crate) mod record;
mod start;
mod stop;
mod worker;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    labels::Found,
    worker::{Desired, Worker},
};
use crate::{
    Config, Error,
    cgroup::Cgroups,
    containerd::Containerd,
    events::Recorder,
    image::ImageStore,
    network::{PodIdentity, PodNetwork},
    pod_files::ClusterDns,
    volumes,
};

/// What all workers use.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) containerd: Containerd,
    pub(crate) images: ImageStore,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) cgroups: Cgroups,
    pub(crate) recorder: Recorder,
    pub(crate) dns: ClusterDns,
}

impl Shared {
    /// Files of a pod.
    fn pod_directory(&self, uid: &str) -> PathBuf {
        self.config.state_dir.join("pods").join(uid)
    }

    /// Takes back everything of a pod but its containers.
    async fn clean_up(&self, uid: &str) -> Result<(), Error> {
        self.network
            .detach(uid)
            .await
            .map_err(|error| Error::unsupported("pod network", error.to_string()))?;
        self.cgroups.remove(uid)?;
        let directory = self.pod_directory(uid);
        volumes::remove(&directory.join("volumes"))?;
        volumes::remove(&directory)
    }
}

/// What others may know of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The object with the status as this node sees it.
    pub(crate) pod: Arc<Pod>,
    /// Every container with its number of attempts and whether the last one runs.
    pub(crate) containers: Vec<(String, u32, bool)>,
}

/// A pod's worker, seen from outside.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) identity: PodIdentity,
    desired: Arc<watch::Sender<Desired>>,
    pub(crate) summary: watch::Receiver<Summary>,
}

/// All workers by UID. Written by [`run`] only.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    handles: Arc<Mutex<HashMap<String, Handle>>>,
    /// Every pod that there was when the kubelet started is among them.
    complete: Arc<watch::Sender<bool>>,
}

impl Registry {
    /// The same as [`Self::find`]. A kubelet that has just started may not know the pod yet: for so long it is waited for.
    pub(crate) async fn find_within(&self, wait: Duration, namespace: &str, name: &str) -> Option<Handle> {
        let mut complete = self.complete.subscribe();
        if !*complete.borrow() && self.find(namespace, name).is_none() {
            drop(timeout(wait, complete.wait_for(|complete| *complete)).await);
        }
        self.find(namespace, name)
    }

    /// The pod of this name; of several, the one that is not being removed.
    fn find(&self, namespace: &str, name: &str) -> Option<Handle> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named =
            handles.values().filter(|h| h.identity.namespace == namespace && h.identity.name == name);
        let first = named.next();
        named.chain(first).min_by_key(|handle| handle.desired.borrow().removed).cloned()
    }

    /// All pods.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn get(&self, uid: &str) -> Option<Handle> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    fn insert(&self, handle: Handle) {
        let uid = handle.identity.uid.clone();
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, handle);
    }

    fn remove(&self, uid: &str) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Watches the node's pods and runs their workers until `shutdown`. Containers go on after that.
pub(crate) async fn run(
    shared: Arc<Shared>,
    registry: Registry,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut manager = Manager::new(shared.clone(), registry, shutdown.clone()).await?;
    let api: Api<Pod> = Api::all(shared.client.clone());
    let fields = format!("spec.nodeName={}", shared.config.node_name);
    let config = watcher::Config::default().fields(&fields);
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => manager.observe(event).await,
                Some(Err(error)) => tracing::warn!(%error, "watching pods; trying again"),
                None => break,
            },
            Some(ended) = manager.workers.join_next() => {
                if let Ok(uid) = ended {
                    manager.registry.remove(&uid);
                }
            }
            () = shutdown.cancelled() => break,
        }
    }
    while manager.workers.join_next().await.is_some() {}
    Ok(())
}

struct Manager {
    shared: Arc<Shared>,
    registry: Registry,
    shutdown: CancellationToken,
    workers: JoinSet<String>,
    /// Containers from before this start, by pod, until their worker takes them.
    found: HashMap<String, Vec<Found>>,
    /// UIDs of the list that is being received.
    listed: HashSet<String>,
    /// The first complete list was seen.
    settled: bool,
}

impl Manager {
    async fn new(
        shared: Arc<Shared>,
        registry: Registry,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let containers = shared.containerd.list_containers().await?;
        let ids: Vec<_> = containers.iter().map(|container| container.id.as_str()).collect();
        shared.containerd.remove_orphan_rootfs(&ids).await?;
        let mut found: HashMap<String, Vec<Found>> = HashMap::new();
        for container in containers.iter().filter_map(labels::read) {
            found.entry(container.pod.uid.clone()).or_default().push(container);
        }
        let workers = JoinSet::new();
        Ok(Self { shared, registry, shutdown, workers, found, listed: HashSet::new(), settled: false })
    }

    async fn observe(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.extend(pod.metadata.uid.clone());
                self.apply(pod);
            }
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => self.removed(pod.metadata.uid.as_deref().unwrap_or_default()),
            Event::InitDone => {
                for handle in self.registry.all() {
                    if !self.listed.contains(&handle.identity.uid) {
                        self.removed(&handle.identity.uid);
                    }
                }
                if !self.settled {
                    self.settled = true;
                    self.registry.complete.send_replace(true);
                    self.remove_orphans().await;
                }
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(pod);
        if let Some(handle) = self.registry.get(&uid) {
            handle.desired.send_modify(|desired| desired.pod = pod);
            return;
        }
        let identity = PodIdentity {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: uid.clone(),
        };
        let (desired, desired_receiver) = watch::channel(Desired { pod: pod.clone(), removed: false });
        let (summary_sender, summary) = watch::channel(Summary { pod, containers: Vec::new() });
        let found = self.found.remove(&uid).unwrap_or_default();
        let worker = Worker::new(self.shared.clone(), identity.clone(), desired_receiver, summary_sender);
        self.registry.insert(Handle { identity, desired: Arc::new(desired), summary });
        let shutdown = self.shutdown.clone();
        self.workers.spawn(async move {
            worker.run(found, shutdown).await;
            uid
        });
    }

    fn removed(&self, uid: &str) {
        if let Some(handle) = self.registry.get(uid) {
            handle.desired.send_modify(|desired| desired.removed = true);
        }
    }

    /// Removes what belongs to pods that went away while no kubelet ran.
    async fn remove_orphans(&mut self) {
        for (uid, containers) in std::mem::take(&mut self.found) {
            for container in containers {
                if let Err(error) = self.shared.containerd.delete_container(&container.id).await {
                    tracing::warn!(%error, "orphan container not removed");
                }
            }
            if let Err(error) = self.shared.clean_up(&uid).await {
                tracing::warn!(%error, uid, "orphan pod not removed");
            }
        }
        let directories = std::fs::read_dir(self.shared.config.state_dir.join("pods"));
        let uids = directories.into_iter().flatten().flatten();
        for uid in uids.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            if self.registry.get(&uid).is_none()
                && let Err(error) = self.shared.clean_up(&uid).await
            {
                tracing::warn!(%error, uid, "orphan pod not removed");
            }
        }
        let uids: Vec<_> = self.registry.all().into_iter().map(|handle| handle.identity.uid).collect();
        if let Err(error) = self.shared.network.retain(&uids).await {
            tracing::warn!(%error, "the network was not cleaned up");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{pin_mut, poll};

    use super::*;

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3_600);

    fn handle(name: &str) -> Handle {
        let pod = Arc::new(Pod::default());
        let identity =
            PodIdentity { namespace: "demo".into(), name: name.into(), uid: format!("uid-{name}") };
        let (desired, _) = watch::channel(Desired { pod: pod.clone(), removed: false });
        let (_, summary) = watch::channel(Summary { pod, containers: Vec::new() });
        Handle { identity, desired: Arc::new(desired), summary }
    }

    #[tokio::test]
    async fn a_pod_is_unknown_only_once_the_first_list_is_complete() {
        let registry = Registry::default();
        let asked = registry.find_within(LONG, "demo", "late");
        pin_mut!(asked);
        assert!(poll!(&mut asked).is_pending(), "the list may still name it");
        registry.insert(handle("late"));
        registry.complete.send_replace(true);
        assert_eq!(asked.await.map(|found| found.identity.uid).as_deref(), Some("uid-late"));
        let unknown = registry.find_within(LONG, "demo", "nobody");
        pin_mut!(unknown);
        assert!(poll!(&mut unknown).is_ready(), "there is nothing to wait for any more");
    }

    #[tokio::test]
    async fn a_pod_that_is_known_is_not_waited_for_and_nobody_waits_for_ever() {
        let registry = Registry::default();
        registry.insert(handle("early"));
        let known = registry.find_within(LONG, "demo", "early");
        pin_mut!(known);
        assert!(poll!(&mut known).is_ready());
        assert!(registry.find_within(Duration::ZERO, "demo", "late").await.is_none());
    }
}
