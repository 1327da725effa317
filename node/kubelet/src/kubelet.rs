//! The kubelet: its parts wired together.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    cgroup::Cgroups,
    containerd::Containerd,
    events::Recorder,
    image::ImageStore,
    network::PodNetwork,
    node_status::{Health, LEASE_RENEWAL, NodeWriter, STATUS_REPORT},
    pod_files::ClusterDns,
    pods::{self, Registry, Shared},
    server::Server,
};

/// How often containerd is asked whether it is there.
const RUNTIME_CHECK: Duration = Duration::from_secs(5);
/// Pause before a failed write of the node's status is repeated.
const STATUS_RETRY: Duration = Duration::from_millis(500);

/// The kubelet of one node. Made by [`Kubelet::new`], which opens everything; [`Kubelet::run`] works.
pub struct Kubelet {
    shared: Arc<Shared>,
    registry: Registry,
    server: Server,
    events: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Ends the writer of events, after everybody else.
    events_end: CancellationToken,
}

impl Kubelet {
    /// Connects to containerd, makes the directories and binds the HTTPS server.
    pub async fn new(config: Config, client: Client, network: Arc<dyn PodNetwork>) -> Result<Self, Error> {
        let containerd = Containerd::connect(&config.containerd_socket, &config.containerd_namespace).await?;
        let directories = [&config.state_dir, &config.run_dir, &config.log_dir];
        for directory in directories.into_iter().chain(&config.image_dirs) {
            std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        }
        let config = Config {
            state_dir: absolute(&config.state_dir)?,
            run_dir: absolute(&config.run_dir)?,
            log_dir: absolute(&config.log_dir)?,
            ..config
        };
        let containerd = containerd.with_runc_root(config.run_dir.join("runc"));
        let events_end = CancellationToken::new();
        let (recorder, events) = Recorder::new(client.clone(), config.node_name.clone(), events_end.clone());
        let shared = Arc::new(Shared {
            client,
            images: ImageStore::new(containerd.clone(), config.image_dirs.clone()),
            containerd,
            network,
            cgroups: Cgroups::find(&config.cgroup_root)?,
            recorder,
            dns: ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
            config,
        });
        let registry = Registry::default();
        let listen = shared.config.listen;
        let server = Server::bind(listen, &shared.config.tls, shared.clone(), registry.clone()).await?;
        Ok(Self { shared, registry, server, events: Box::pin(events), events_end })
    }

    /// Where the HTTPS server listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// Works until `shutdown`. Containers go on after that.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { shared, registry, server, events, events_end } = self;
        // Ends the others when the pods cannot be worked on.
        let shutdown = shutdown.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(events);
        tasks.spawn(server.run(shutdown.clone()));
        let (healthy, health) = watch::channel(Health {
            containerd: shared.containerd.version().await.map_err(|error| error.to_string()),
            network_ready: *shared.config.network_ready.borrow(),
            images: Vec::new(),
        });
        tasks.spawn(until(shutdown.clone(), report_node(shared.clone(), health)));
        let imported = Arc::new(Notify::new());
        tasks.spawn(until(shutdown.clone(), watch_health(shared.clone(), healthy, imported.clone())));
        let import = shared.clone();
        tasks.spawn(until(shutdown.clone(), async move {
            // What went wrong was logged; the images that are missing are told again with the pods that want them.
            let _logged = import.images.import_new().await;
            imported.notify_one();
        }));
        let result = pods::run(shared, registry, shutdown.clone()).await;
        shutdown.cancel();
        events_end.cancel();
        tasks.join_all().await;
        result
    }
}

fn absolute(path: &PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::file("find", path))
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Keeps `health` true to what is.
async fn watch_health(shared: Arc<Shared>, health: watch::Sender<Health>, imported: Arc<Notify>) {
    let mut ready = shared.config.network_ready.clone();
    let mut ready_known = true;
    let mut check = tokio::time::interval(RUNTIME_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = ready.changed(), if ready_known => ready_known = changed.is_ok(),
            () = imported.notified() => {
                let images = shared.images.list().await.unwrap_or_default();
                health.send_modify(|health| health.images = images);
            }
            _ = check.tick() => {}
        }
        let containerd = shared.containerd.version().await.map_err(|error| error.to_string());
        // Whoever told readiness is gone: the last word holds.
        let network_ready = *ready.borrow();
        health.send_if_modified(|health| {
            let changed = health.containerd != containerd || health.network_ready != network_ready;
            health.containerd = containerd;
            health.network_ready = network_ready;
            changed
        });
    }
}

/// Registers the node, writes its status at every change, renews its lease.
async fn report_node(shared: Arc<Shared>, mut health: watch::Receiver<Health>) {
    let mut writer = NodeWriter::new(shared.client.clone(), shared.config.clone());
    let mut renewal = tokio::time::interval(LEASE_RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {
                let current = health.borrow_and_update().clone();
                due = Instant::now() + match writer.write_status(&current).await {
                    Ok(()) => STATUS_REPORT,
                    Err(error) => {
                        tracing::warn!(%error, "node status not written; trying again");
                        STATUS_RETRY
                    }
                };
            }
            Ok(()) = health.changed() => due = Instant::now(),
            _ = renewal.tick() => match renew(&writer).await {
                Ok(true) => due = Instant::now(),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "lease not renewed"),
            },
        }
    }
}

/// Renews the lease; true when the status has to be written again.
async fn renew(writer: &NodeWriter) -> Result<bool, Error> {
    writer.renew_lease().await?;
    writer.is_overruled().await
}
