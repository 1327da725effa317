//! A node's kernel layer, running in the node's namespace.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process,
    time::Instant,
};

use fairlead_abi::event::FlowEvent;
use fairlead_kernel::{
    Capacities, Collected, Dataplane, DataplaneConfig, Driver, KernelError, NodeFootprint, PodSpec,
    PodTotals, ServiceOptions, State, Timeouts, Xdp, cgroup, remove_node,
};
use fairlead_model::{Prefix, View};
use fairlead_plan::{Changes, LocalNode, Op, Planner, Scope, plan_routes};
use fairlead_testkit::{
    Node,
    netns::{NETNS_DIR, command, run_in},
    topology::UPLINK,
};
use tokio::runtime::Runtime;
use zerocopy::FromBytes;

/// Where the tests' services have their addresses.
const SERVICE_NETWORKS: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), length: 16 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0)), length: 112 },
];

/// How long to wait for a batch of records.
const BATCH: std::time::Duration = std::time::Duration::from_millis(500);

/// True when the machine can run this; a machine that must (`CI=true`) fails instead of skipping.
pub(crate) fn can_run() -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if fairlead_kernel::bpf::object::embedded().is_err() {
        "the eBPF object (cargo xtask build)"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "this test needs {missing}");
    eprintln!("skipped: this test needs {missing}");
    false
}

/// A pod's place.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) spec: PodSpec,
}

impl Pod {
    /// Runs `act` on a thread in the pod's network.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        run_in(&self.spec.netns, act)
    }
}

/// The kernel layer of one node; removes everything when it is dropped.
pub(crate) struct RunningNode {
    name: String,
    netns: PathBuf,
    /// Of its uplink, to masquerade with.
    addresses: Vec<IpAddr>,
    config: DataplaneConfig,
    footprint: NodeFootprint,
    runtime: Runtime,
    dataplane: Option<Dataplane>,
    planner: Option<Planner>,
    started: Instant,
    pods: Vec<Pod>,
}

impl RunningNode {
    pub(crate) fn start(name: &str, node: &Node) -> Self {
        Self::start_with(name, node, ServiceOptions::default())
    }

    /// The same with services carried in another way.
    pub(crate) fn start_with(name: &str, node: &Node, services: ServiceOptions) -> Self {
        Self::start_in(&format!("fltest-{}", process::id()), name, node, services)
    }

    /// The same where its pins and cgroups are in a directory of this name, perhaps another process's.
    pub(crate) fn start_in(id: &str, name: &str, node: &Node, services: ServiceOptions) -> Self {
        let footprint = NodeFootprint {
            bpffs_dir: Path::new("/sys/fs/bpf").join(id).join(name),
            cgroup_dir: Path::new(id).join(name),
            netns_dir: NETNS_DIR.into(),
            netns_prefix: format!("{id}-pod-{name}-"),
        };
        let config = DataplaneConfig {
            bpffs_dir: footprint.bpffs_dir.clone(),
            cgroup_dir: footprint.cgroup_dir.clone(),
            uplink: UPLINK.into(),
            flow_events: true,
            services,
        };
        // A runtime's threads stay in the namespace of the thread that made it.
        let runtime = node.netns.run(|| {
            let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            builder.expect("a runtime")
        });
        let mut running = Self {
            name: name.into(),
            netns: node.netns.path(),
            addresses: node.addresses.clone(),
            config,
            footprint,
            runtime,
            dataplane: None,
            planner: None,
            started: Instant::now(),
            pods: Vec::new(),
        };
        running.restart();
        running
    }

    /// Forgets everything in memory, as `kill -9` would, and starts again.
    pub(crate) fn restart(&mut self) {
        drop(self.dataplane.take());
        self.planner = None;
        let opened = self.block_on(Dataplane::open(&self.config));
        self.dataplane = Some(opened.unwrap_or_else(|error| panic!("node {}: {error}", self.name)));
        for pod in self.pods.clone() {
            self.attach(&pod);
        }
    }

    /// Where a pod would be.
    pub(crate) fn place(&self, slot: u32, addresses: &[&str]) -> Pod {
        let prefix = &self.footprint.netns_prefix;
        Pod {
            spec: PodSpec {
                netns: Path::new(NETNS_DIR).join(format!("{prefix}{slot}")),
                interface: format!("flp{slot}"),
                addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
                slot,
            },
        }
    }

    pub(crate) fn add_pod(&mut self, slot: u32, addresses: &[&str]) -> Pod {
        let pod = self.place(slot, addresses);
        self.attach(&pod);
        self.pods.push(pod.clone());
        pod
    }

    pub(crate) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    pub(crate) fn attach(&self, pod: &Pod) {
        self.try_attach(pod).unwrap_or_else(|error| panic!("node {}: {error}", self.name));
    }

    pub(crate) fn try_attach(&self, pod: &Pod) -> Result<(), KernelError> {
        self.block_on(self.dataplane().pods.attach(&pod.spec))
    }

    pub(crate) fn detach(&self, pod: &Pod) {
        self.block_on(self.dataplane().pods.detach(&pod.spec)).expect("detaches");
    }

    /// Starts again with maps of other sizes.
    pub(crate) fn restart_with(&mut self, capacities: Capacities) {
        self.config.services.capacities = capacities;
        self.restart();
    }

    /// Starts again with maps that another version is said to have left.
    pub(crate) fn restart_from_layout(&mut self, layout: &str) {
        drop(self.dataplane.take());
        let note = self.footprint.bpffs_dir.join("layout");
        fs::remove_file(&note).expect("it was noted");
        std::os::unix::fs::symlink(layout, note).expect("notes it");
        self.restart();
    }

    /// Starts again with the driver's program elsewhere; says where it runs then, or why it cannot.
    pub(crate) fn restart_with_xdp(&mut self, xdp: Xdp) -> Result<Driver, KernelError> {
        drop(self.dataplane.take());
        self.config.services.xdp = xdp;
        let opened = self.block_on(Dataplane::open(&self.config))?;
        self.dataplane = Some(opened);
        Ok(self.driver())
    }

    /// Where the driver's program runs, as the node says itself.
    pub(crate) fn driver(&self) -> Driver {
        self.dataplane().uplink.borrow().driver.clone()
    }

    /// Makes the kernel hold what the view asks for; returns how many operations that took.
    pub(crate) fn sync(&mut self, view: &View) -> usize {
        self.sync_scope(view, Scope::All)
    }

    /// The same for a change of the service.
    pub(crate) fn sync_changes(&mut self, view: &View) -> usize {
        let services = view.services().map(|service| service.name.clone()).collect();
        self.sync_scope(view, Scope::Changed(&Changes { services, ..Changes::default() }))
    }

    fn sync_scope(&mut self, view: &View, scope: Scope<'_>) -> usize {
        let (ops, done) = self.sync_some(view, scope, |_| true);
        assert_eq!(ops, done);
        ops
    }

    /// The same, but it goes no further than to the first operation that is not wanted, as if it had died there. Returns how
    /// many operations there are, and how many are done.
    pub(crate) fn sync_some(
        &mut self,
        view: &View,
        scope: Scope<'_>,
        wanted: fn(&Op) -> bool,
    ) -> (usize, usize) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).expect("a test is short");
        let Self { dataplane, planner, name, runtime, netns, config, addresses, .. } = self;
        let tables = &mut dataplane.as_mut().expect("running").tables;
        run_in(netns, || {
            runtime.block_on(async {
                let local = tables.observe_local().await.expect("observes");
                let local = LocalNode {
                    addresses: local.addresses.keys().map(|address| (*address, true)).collect(),
                    masquerade: addresses.clone(),
                    mtu: local.mtu,
                };
                if planner.is_none() {
                    let observed = tables.observe_services().expect("observes");
                    let limits = config.services.limits();
                    *planner = Some(Planner::adopt(name.as_str(), limits, &observed, now_ms));
                }
                let planner = planner.as_mut().expect("it was made");
                let mut ops = planner.plan(view, &local, scope, now_ms).ops;
                if matches!(scope, Scope::All) {
                    let routes = tables.observe_routes().await.expect("observes");
                    let capacity = config.services.capacities.routes;
                    ops.extend(plan_routes(view, name, &routes, capacity).0);
                }
                let done = ops.iter().take_while(|op| wanted(op)).count();
                tables.apply(&ops[..done]).await.expect("applies");
                if done == ops.len() {
                    tables.complete().expect("the programs are replaced");
                    tables.set_service_networks(&SERVICE_NETWORKS).expect("it is a map of ours");
                }
                (ops.len(), done)
            })
        })
    }

    pub(crate) fn counters(&self, pod: &Pod) -> PodTotals {
        self.dataplane().counters.pod(pod.spec.slot).expect("reads")
    }

    /// Records that wait in the ring buffer.
    pub(crate) fn take_events(&mut self) -> Vec<FlowEvent> {
        let mut records = Vec::new();
        let events = &mut self.dataplane.as_mut().expect("running").events;
        let read = events.read(|bytes| records.push(FlowEvent::read_from_prefix(bytes).expect("a record").0));
        let runtime = &self.runtime;
        // None within that time is an answer, too.
        let _ = run_in(&self.netns, || runtime.block_on(async { tokio::time::timeout(BATCH, read).await }));
        records
    }

    /// Id and program of every pinned link, by the pin's name.
    pub(crate) fn links(&self) -> BTreeMap<String, (u64, u64)> {
        let directory = self.footprint.bpffs_dir.join("links");
        let pins = fs::read_dir(directory).expect("pins").map(|entry| entry.expect("an entry"));
        // Before TCX the interfaces have filters, of which there is only a note.
        pins.filter(|pin| fs::read_link(pin.path()).is_err())
            .map(|pin| {
                let path = pin.path().display().to_string();
                let shown = command("bpftool", &["-j", "link", "show", "pinned", &path]);
                let number = |field: &str| {
                    let (_, rest) = shown.split_once(&format!("\"{field}\":")).expect("a field");
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    digits.parse().expect("a number")
                };
                (pin.file_name().to_string_lossy().into_owned(), (number("id"), number("prog_id")))
            })
            .collect()
    }

    /// A map that does not hold what was planned; from then on what the kernel holds is observed anew.
    pub(crate) fn audit(&mut self) -> Option<&'static str> {
        let observed = self.dataplane.as_mut().expect("running").tables.observe_services().expect("observes");
        let differs = self.planner.as_ref().expect("it has planned").map_that_differs(&observed);
        if differs.is_some() {
            self.planner = None;
        }
        differs
    }

    /// Puts right what others have changed beside the maps; returns what that was.
    pub(crate) fn repair(&mut self) -> Vec<String> {
        let Self { dataplane, runtime, netns, .. } = self;
        let tables = &mut dataplane.as_mut().expect("running").tables;
        run_in(netns, || runtime.block_on(tables.repair())).expect("repairs")
    }

    /// Takes a program from its hook, as somebody who knows nothing of us.
    pub(crate) fn take_away(&self, link: &str) {
        let pin = self.footprint.bpffs_dir.join("links").join(link);
        let Ok(note) = fs::read_link(&pin) else {
            command("bpftool", &["link", "detach", "pinned", &pin.display().to_string()]);
            return;
        };
        let note = note.to_string_lossy().into_owned();
        let [_, side, interface] = note.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{note}") };
        run_in(&self.netns, || command("tc", &["filter", "delete", "dev", interface, side]));
    }

    /// Where a map is pinned.
    pub(crate) fn pinned(&self, map: &str) -> PathBuf {
        self.footprint.bpffs_dir.join("maps").join(map)
    }

    /// Drops by slot and reason.
    pub(crate) fn drops(&self) -> BTreeMap<(u32, u32), u64> {
        self.dataplane().counters.drops().expect("reads")
    }

    /// Removes what has expired at a time of the programs' clock.
    pub(crate) fn collect(&mut self, now_ns: u64, timeouts: &Timeouts) -> Collected {
        let garbage = &mut self.dataplane.as_mut().expect("running").garbage;
        garbage.collect(now_ns, timeouts).expect("collects")
    }

    /// The map of routes.
    pub(crate) fn route_map(&mut self) -> BTreeMap<Prefix, Option<IpAddr>> {
        let Self { dataplane, runtime, netns, .. } = self;
        let tables = &mut dataplane.as_mut().expect("running").tables;
        run_in(netns, || runtime.block_on(tables.observe_routes())).expect("observes").map
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        self.dataplane().cgroup.clone()
    }

    pub(crate) fn netns_links(&self) -> Vec<String> {
        self.block_on(self.dataplane().pods.interfaces("")).expect("lists")
    }

    fn dataplane(&self) -> &Dataplane {
        self.dataplane.as_ref().expect("running")
    }

    /// Runs a future on the runtime, from a thread in the node's namespace.
    fn block_on<F: Future<Output: Send> + Send>(&self, future: F) -> F::Output {
        run_in(&self.netns, || self.runtime.block_on(future))
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        drop(self.dataplane.take());
        // As on a machine that is a node: in its own network namespace.
        let failures = run_in(&self.netns, || remove_node(&self.footprint));
        let links = run_in(&self.netns, || command("ip", &["-o", "link", "show"]));
        assert!(std::thread::panicking() || !links.contains("fairlead-vx"), "the overlay is left: {links}");
        let parent = self.footprint.bpffs_dir.parent().map(fs::remove_dir);
        drop(parent);
        if let (Ok(mount), Some(parent)) = (cgroup::mount_point(), self.footprint.cgroup_dir.parent()) {
            let _ = fs::remove_dir(mount.join(parent));
        }
        if !std::thread::panicking() {
            assert!(failures.is_empty(), "{failures:?}");
            assert!(!self.footprint.bpffs_dir.exists());
            assert!(remove_node(&self.footprint).is_empty(), "a second removal has nothing to do");
        }
    }
}
