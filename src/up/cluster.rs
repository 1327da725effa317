//! The life of a development cluster: start in an order that waits for nothing needlessly, watch, stop in reverse.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use nix::mount::{MsFlags, mount};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    UpArgs, children, containerd, credentials,
    ledger::{Item, Ledger, Phase},
    preflight::Preflight,
    ready::ready,
    report::Report,
    supervise::{ChildSpec, Ended, Supervisor},
    topology::{self, FABRIC_V4, FABRIC_V6},
};
use crate::{
    down::sweep,
    identity, listen,
    paths::{BPFFS, ClusterPaths, FABRIC, node_name},
    system::{cgroups, mounts, netns},
};

/// cgroup of the daemons, beside those of the nodes.
const DAEMONS: &str = "daemons";
/// A child that fails so often before the cluster is Ready will not get better.
const FAILURES_MAX: u32 = 3;
/// When nodes are not Ready by then, something is wrong that nobody complained of.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Children that are stopped together.
#[derive(Debug, Default)]
struct Tier {
    stop: CancellationToken,
    children: JoinSet<anyhow::Result<()>>,
}

impl Tier {
    async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.children.join_next().await {
            if let Err(problem) = ended.map_err(anyhow::Error::from).flatten() {
                tracing::warn!("{problem:#}");
            }
        }
    }
}

/// A cluster that this process makes.
#[derive(Debug)]
pub(crate) struct Cluster {
    paths: ClusterPaths,
    ledger: Ledger,
    report: Report,
    began: Timestamp,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    nodes: Tier,
    containerd: Tier,
    server: Tier,
}

impl Cluster {
    /// Nothing is made yet.
    pub(crate) fn new(paths: ClusterPaths, ledger: Ledger, report: Report) -> Self {
        Self {
            paths,
            ledger,
            report,
            began: Timestamp::now(),
            ended: mpsc::channel(64),
            nodes: Tier::default(),
            containerd: Tier::default(),
            server: Tier::default(),
        }
    }

    /// Makes the namespaces and starts the daemons; returns before they are of use.
    pub(crate) async fn start(&mut self, args: &UpArgs, checked: &Preflight) -> anyhow::Result<()> {
        self.mount_bpffs(args.nodes)?;
        let supervisor = self.make_cgroups(&checked.cgroup2)?;
        let since = Instant::now();
        let private = args.containerd.is_none();
        if private {
            let spec = containerd::prepare(&self.paths)?;
            keep(&mut self.containerd, &supervisor, spec);
        }

        // Certificates cost the processor, namespaces the kernel: side by side.
        let (paths, nodes, port) = (self.paths.clone(), args.nodes, args.api_port);
        let certificates = tokio::task::spawn_blocking(move || credentials::write_all(&paths, nodes, port));
        let topology = topology::build(&self.paths, &self.ledger, args.nodes);
        let ((), ()) = tokio::try_join!(topology, async { certificates.await? })?;
        self.report.done(&format!("certificates, network of {} nodes", args.nodes), since);

        let program: OsString = std::env::current_exe().context("cannot find this program's file")?.into();
        let sockets = self.bind(&checked.api).await?;
        keep(&mut self.server, &supervisor, children::server(&self.paths, program.clone(), sockets, args));
        for index in 1..=args.nodes {
            let sockets = self.bind_dns(index).await?;
            keep(&mut self.nodes, &supervisor, children::dns(&self.paths, program.clone(), sockets, index));
        }
        if private {
            containerd::wait_for(containerd::socket(&self.paths)).await?;
            self.report.done("containerd", since);
        }
        for index in 1..=args.nodes {
            let namespace = containerd::namespace(&self.paths, &node_name(index));
            let socket = args.containerd.clone().unwrap_or_else(|| containerd::socket(&self.paths));
            self.ledger.add(Item::ContainerdNamespace { socket, name: namespace })?;
            keep(&mut self.nodes, &supervisor, children::node(&self.paths, program.clone(), args, index));
        }
        Ok(())
    }

    /// What is said goes there.
    pub(crate) fn report(&self) -> Report {
        self.report
    }

    /// Writes down that it can be used.
    pub(crate) fn set_ready(&self) -> anyhow::Result<()> {
        self.ledger.set_phase(Phase::Ready)
    }

    /// Waits until all nodes are Ready; false when `stop` came first.
    pub(crate) async fn wait_until_ready(&mut self, stop: &CancellationToken) -> anyhow::Result<bool> {
        let (since, report) = (Instant::now(), self.report);
        let client = identity::client(&self.paths.kubeconfig()).await?;
        let names = self.ledger.record().nodes;
        let mut waiting: FuturesUnordered<_> =
            names.iter().map(|name| ready(client.clone(), name, self.began)).collect();
        let mut failures = HashMap::<String, u32>::new();
        let deadline = tokio::time::sleep(READY_PATIENCE);
        tokio::pin!(deadline);
        while !waiting.is_empty() {
            tokio::select! {
                Some(name) = waiting.next() => report.done(&format!("{name} Ready"), since),
                Some(ended) = self.ended.1.recv() => {
                    let count = failures.entry(ended.role.clone()).or_default();
                    *count += 1;
                    // The control plane alone opens the state; what it complains of is not cured by waiting.
                    if ended.failed && (ended.role == "server" || *count >= FAILURES_MAX) {
                        return Err(hopeless(&ended, &self.paths));
                    }
                    tell(report, &ended);
                }
                () = stop.cancelled() => return Ok(false),
                () = &mut deadline => bail!(
                    "the nodes are not Ready after {} s; the daemons' logs say why",
                    READY_PATIENCE.as_secs()
                ),
            }
        }
        Ok(true)
    }

    /// Says what happens to the children until `stop`.
    pub(crate) async fn watch(&mut self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                Some(ended) = self.ended.1.recv() => tell(self.report, &ended),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Ends the children: nodes before what they stand on.
    pub(crate) async fn stop(&mut self) {
        self.nodes.stop().await;
        self.containerd.stop().await;
        self.server.stop().await;
    }

    fn make_cgroups(&self, cgroup2: &Path) -> anyhow::Result<Supervisor> {
        self.ledger.add(Item::Cgroup { path: self.paths.cgroup() })?;
        let cgroup = cgroup2.join(self.paths.cgroup()).join(DAEMONS);
        cgroups::create(&cgroup)?;
        Ok(Supervisor { ledger: self.ledger.clone(), cgroup, ended: self.ended.0.clone() })
    }

    /// Directories for the nodes' pins, on the machine's BPF file system or on one mounted now.
    fn mount_bpffs(&self, nodes: u8) -> anyhow::Result<()> {
        let _lock = sweep::lock_bpffs()?;
        let root = Path::new(BPFFS);
        if mounts::on(root).is_none_or(|mount| mount.kind != "bpf") {
            self.ledger.add(Item::Mount { path: root.to_owned() })?;
            mount(Some(sweep::OWN_BPFFS), root, Some("bpf"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("cannot mount a BPF file system on {BPFFS}"))?;
        }
        fairlead_kernel::require_features(&self.paths.bpffs(&node_name(1)))?;
        for index in 1..=nodes {
            let path = self.paths.bpffs(&node_name(index));
            self.ledger.add(Item::Pins { path: path.clone() })?;
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    /// The control plane's sockets, those of the fabric first. They outlive it, so that its clients wait while it is
    /// restarted.
    async fn bind(&self, host: &TcpListener) -> anyhow::Result<Vec<(String, OwnedFd)>> {
        let bind = || -> anyhow::Result<Vec<(String, OwnedFd)>> {
            let mut bound = Vec::new();
            for (name, port) in [("api", children::API_PORT), ("feed", children::FEED_PORT)] {
                let addresses = [SocketAddr::from((FABRIC_V4, port)), SocketAddr::from((FABRIC_V6, port))];
                let sockets = listen::bind(&addresses, "--name")?;
                bound.extend(sockets.into_iter().map(|socket| (name.to_owned(), socket.into())));
            }
            Ok(bound)
        };
        let mut sockets = netns::inside(&self.paths.netns(FABRIC), bind).await?;
        sockets.push(("api".to_owned(), host.try_clone()?.into()));
        Ok(sockets)
    }

    /// The sockets of a node's DNS server. Questions wait in them while it is restarted.
    async fn bind_dns(&self, index: u8) -> anyhow::Result<Vec<(String, OwnedFd)>> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let open = move || {
            let mut sockets = Vec::new();
            for address in topology::node_addresses(index) {
                let opened = fairlead_dns::open_sockets((address, children::DNS_PORT).into(), workers)?;
                sockets.extend(opened.into_iter().map(|socket| ("dns".to_owned(), socket)));
            }
            Ok(sockets)
        };
        netns::inside(&self.paths.netns(&node_name(index)), open).await
    }
}

fn keep(tier: &mut Tier, supervisor: &Supervisor, spec: ChildSpec) {
    tier.children.spawn(supervisor.clone().keep(spec, tier.stop.clone()));
}

fn tell(report: Report, ended: &Ended) {
    let why = ended.complaint.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let then = match ended.restart_in {
        Duration::ZERO => "restarted".to_owned(),
        later => format!("restarting in {}", crate::output::duration(later)),
    };
    report.note(&format!("{} {}{why}; {then}", ended.role, ended.how));
}

fn hopeless(ended: &Ended, paths: &ClusterPaths) -> anyhow::Error {
    match &ended.complaint {
        Some(complaint) => anyhow!("{} cannot run: {complaint}", ended.role),
        None => anyhow!("{} {}; see {}", ended.role, ended.how, paths.state.join("logs").display()),
    }
}
