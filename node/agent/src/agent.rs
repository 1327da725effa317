//! Wiring: opens the dataplane, binds the sockets, runs the tasks.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use fairlead_flows::{Recent, Starts};
use fairlead_kernel::{Dataplane, LocalChange, LocalChanges, ProgramLogs, Tables};
use fairlead_kubelet::network::PodNetwork;
use fairlead_model::Update;
use fairlead_wire::client::Subscription;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    AgentError, Config, NodePortAddresses, admin,
    check_ports::CheckPorts,
    cluster::Cluster,
    flow_pump::FlowPump,
    garbage::{GarbageLoop, Totals},
    health::{self, Health},
    metrics,
    network::Network,
    report::Reporter,
    resolver::{Heartbeats, OwnResolver},
    rules::{Rules, leftovers::Leftovers},
    serve::serve,
    sockets::SocketEnder,
    stats::Stats,
    sync::{Outputs, Signals, SyncLoop},
};

/// How many flows are remembered.
const RECENT_FLOWS: usize = 8_192;

/// How many updates may wait between the feed and the sync loop.
const UPDATES_QUEUED_MAX: usize = 64;

/// A node's agent, open and bound, not yet serving.
pub struct Agent {
    subscription: Subscription,
    sync: SyncLoop<Tables>,
    local_changes: LocalChanges,
    garbage: GarbageLoop,
    sockets: SocketEnder,
    node_ports_everywhere: bool,
    heartbeats: Option<Heartbeats>,
    flows: FlowPump,
    logs: Option<ProgramLogs>,
    network: Arc<Network>,
    reporter: Arc<Reporter>,
    ready: watch::Receiver<bool>,
    cgroup: PathBuf,
    admin: UnixListener,
    health: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    /// Held while the agent lives.
    _lock: File,
}

impl Agent {
    /// Locks the state directory, opens the dataplane (which runs from here on), restores the pods' links, binds.
    ///
    /// # Errors
    /// The machine lacks something, a file cannot be used, or a port is taken. What is pinned stays as it was.
    pub async fn new(config: Config) -> Result<Self, AgentError> {
        let lock = lock(&config.state_dir)?;
        // First, so that what refuses a mode is told before what it would be in the way of, and is not noted as used.
        let rules =
            Rules::open(config.proxy_mode, &config.node_name, &config.services, &config.state_dir).await?;
        let health = bind_all("health checks", &config.health_listen).await?;
        let metrics = bind_all("metrics", &config.metrics_listen).await?;
        let admin = bind_private("administration", &config.admin_socket)?;
        let heartbeats =
            config.dns_heartbeat.as_deref().map(|path| bind_private("signs of life", path)).transpose()?;
        let (heartbeats, life) = heartbeats.map(Heartbeats::new).unzip();

        let mut config = config;
        let leftovers = Leftovers::open(&config.state_dir, &config.bpffs_dir, config.proxy_mode)?;
        config.services.options.carriage = leftovers.carriage();
        let dataplane = Dataplane::open(&config.dataplane()).await?;
        let (networks_sender, networks) = watch::channel(Vec::new());
        let (ready_sender, ready) = watch::channel(false);
        let network = Arc::new(Network::new(&config, dataplane.pods, networks.clone())?);
        network.restore().await?;

        let subscription = Subscription::new(config.feed.clone(), config.node_name.clone());
        let resolver = OwnResolver::new(config.node_name.clone(), config.services.addresses.clone());
        let ignored = config.services.ignore_external_addresses;
        let cluster = Arc::new(Cluster::new(resolver).ignoring_external_addresses(ignored));
        let stats = Arc::new(Stats::default());
        let recent = Arc::new(Recent::new(RECENT_FLOWS));
        let malformed = Arc::new(AtomicU64::default());
        let (stopped_sender, stopped) = mpsc::unbounded_channel();
        let outputs = Outputs {
            cluster: Arc::clone(&cluster),
            stats: Arc::clone(&stats),
            ready: ready_sender,
            networks: networks_sender,
            stopped: stopped_sender,
        };
        let flows = FlowPump {
            node: config.node_name.clone(),
            events: dataplane.events,
            cluster: Arc::clone(&cluster),
            network: Arc::clone(&network),
            recent: Arc::clone(&recent),
            starts: Starts::default(),
            malformed: Arc::clone(&malformed),
        };
        let (garbage_totals, garbage) = watch::channel(Totals::default());
        let sockets_ended = Arc::new(AtomicU64::default());
        let strangers = (!config.pod_network).then(|| dataplane.cgroup.clone());
        let reporter = Reporter {
            node: config.node_name.clone(),
            mode: config.proxy_mode,
            health: Arc::new(Health::new(config.node_name.clone(), cluster, stats, ready.clone())),
            bpffs_dir: config.bpffs_dir.clone(),
            settings: (&config.services.options).into(),
            recent,
            network: Arc::clone(&network),
            counters: dataplane.counters,
            uplink: dataplane.uplink,
            malformed,
            garbage,
            sockets_ended: Arc::clone(&sockets_ended),
            capacities: config.services.options.capacities,
            ready: ready.clone(),
            networks,
            feed: subscription.state(),
        };
        Ok(Self {
            subscription,
            sync: SyncLoop::new(config.node_name, dataplane.tables, outputs, config.services.clone())
                .with_life(life)
                .with_routes(config.pod_network)
                .with_mode(rules, leftovers, Arc::clone(&network)),
            local_changes: dataplane.local_changes,
            garbage: GarbageLoop {
                garbage: dataplane.garbage,
                timeouts: config.services.timeouts,
                totals: garbage_totals,
            },
            node_ports_everywhere: config.services.node_port_addresses == NodePortAddresses::All,
            sockets: SocketEnder { stopped, network: Arc::clone(&network), strangers, ended: sockets_ended },
            heartbeats,
            flows,
            logs: dataplane.logs,
            network,
            reporter: Arc::new(reporter),
            ready,
            cgroup: dataplane.cgroup,
            admin,
            health,
            metrics,
            _lock: lock,
        })
    }

    /// The pod network, for the kubelet. Usable at once; a pod waits until the node's pod networks are known.
    pub fn network(&self) -> Arc<dyn PodNetwork> {
        Arc::clone(&self.network) as Arc<dyn PodNetwork>
    }

    /// Turns true when a first complete view of the cluster is in the kernel.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// The node's cgroup, absolute; pods' tasks go below it before they start.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Serves until it is told to stop. The dataplane keeps working afterwards.
    ///
    /// # Errors
    /// A task failed; the others are stopped.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let stop = shutdown.child_token();
        let mut tasks: JoinSet<Result<(), AgentError>> = JoinSet::new();
        let (sender, updates) = mpsc::channel(UPDATES_QUEUED_MAX);
        tasks.spawn(read_feed(self.subscription, sender, stop.clone()).in_current_span());
        let signals = self.sync.signals();
        let sync = self.sync.run(updates, stop.clone());
        tasks.spawn(
            async move {
                sync.await;
                Ok(())
            }
            .in_current_span(),
        );
        tasks.spawn(self.flows.run(stop.clone()).in_current_span());
        tasks.spawn(self.garbage.run(stop.clone()).in_current_span());
        tasks.spawn(self.sockets.run(stop.clone()).in_current_span());
        tasks.spawn(watch_local(self.local_changes, signals, stop.clone()).in_current_span());
        if let Some(heartbeats) = self.heartbeats {
            tasks.spawn(heartbeats.run(stop.clone()).in_current_span());
        }
        if let Some(logs) = self.logs {
            tasks.spawn(forward_logs(logs, stop.clone()).in_current_span());
        }
        let router = admin::router(Arc::clone(&self.reporter), stop.clone());
        tasks.spawn(serve("administration", self.admin, router, stop.clone()).in_current_span());
        let check_ports = CheckPorts::new(Arc::clone(&self.reporter.health), self.node_ports_everywhere);
        tasks.spawn(check_ports.run(stop.clone()).in_current_span());
        for listener in self.health {
            let router = health::router(Arc::clone(&self.reporter.health));
            tasks.spawn(serve("health checks", listener, router, stop.clone()).in_current_span());
        }
        for listener in self.metrics {
            let router = metrics::router(Arc::clone(&self.reporter));
            tasks.spawn(serve("metrics", listener, router, stop.clone()).in_current_span());
        }
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            // Whichever ends first, by order or by failure, ends all.
            stop.cancel();
            match ended {
                Ok(ended) => result = result.and(ended),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            }
        }
        result
    }
}

async fn read_feed(
    mut subscription: Subscription,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let forward = async {
        loop {
            let update = subscription.next().await;
            if updates.send(update).await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(forward).await;
    Ok(())
}

async fn watch_local(
    mut changes: LocalChanges,
    signals: Signals,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let forward = async {
        while let Some(change) = changes.changed().await {
            match change {
                LocalChange::Addresses => signals.addresses.notify_one(),
                LocalChange::Uplink => signals.uplink.notify_one(),
            }
        }
        // Without a teller there still is the audit.
        std::future::pending::<()>().await;
    };
    stop.run_until_cancelled(forward).await;
    Ok(())
}

async fn forward_logs(logs: ProgramLogs, stop: CancellationToken) -> Result<(), AgentError> {
    stop.run_until_cancelled(logs.run()).await.unwrap_or(Ok(())).map_err(AgentError::Events)
}

/// Makes this process the only one that uses the directory, as long as the file lives.
pub(crate) fn lock(state_dir: &Path) -> Result<File, AgentError> {
    fs::create_dir_all(state_dir).map_err(AgentError::file("creating", state_dir))?;
    let path = state_dir.join("agent.lock");
    let file = File::create(&path).map_err(AgentError::file("creating", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AgentError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(AgentError::file("locking", path)(error)),
    }
}

async fn bind_all(purpose: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, AgentError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = TcpListener::bind(address).await;
        let failed = |source| {
            let holder = fairlead_kernel::listener(address.port());
            AgentError::Bind { purpose, address: address.to_string(), source, holder }
        };
        listeners.push(bound.map_err(failed)?);
    }
    Ok(listeners)
}

/// Only root may connect. A socket that a former process left is replaced; the lock shows that it is dead.
fn bind_private(purpose: &'static str, path: &Path) -> Result<UnixListener, AgentError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(AgentError::file("creating", directory))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(AgentError::file("removing", path)(error));
        }
        _ => {}
    }
    let bound = UnixListener::bind(path);
    let failed =
        |source| AgentError::Bind { purpose, address: path.display().to_string(), source, holder: None };
    let listener = bound.map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(AgentError::file("restricting permissions of", path))?;
    Ok(listener)
}
