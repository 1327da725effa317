use std::{collections::BTreeMap, net::IpAddr};

use fairlead_abi::{Be16, service::ServiceKey};
use fairlead_kernel::{FakeState, LocalState};
use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, HostPort, Node, ObjectName, Pod, Protocol, Revision,
    Service, ServicePort,
};
use tokio::task::JoinHandle;

use super::*;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20));

struct Running {
    kernel: FakeState,
    stats: Arc<Stats>,
    ready: watch::Receiver<bool>,
    networks: watch::Receiver<Vec<Prefix>>,
    signals: Signals,
    stopped: mpsc::UnboundedReceiver<Stopped>,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    sequence: u64,
}

impl Running {
    fn start(kernel: FakeState) -> Self {
        Self::start_with(kernel, often())
    }

    fn start_with(kernel: FakeState, services: ServiceConfig) -> Self {
        let (ready_sender, ready) = watch::channel(false);
        let (networks_sender, networks) = watch::channel(Vec::new());
        let (stopped_sender, stopped) = mpsc::unbounded_channel();
        let stats = Arc::new(Stats::default());
        let outputs = Outputs {
            cluster: Arc::default(),
            stats: Arc::clone(&stats),
            ready: ready_sender,
            networks: networks_sender,
            stopped: stopped_sender,
        };
        let (updates, receiver) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let sync = SyncLoop::new("node-1".into(), kernel.clone(), outputs, services);
        let signals = sync.signals();
        let task = tokio::spawn(sync.run(receiver, stop.clone()));
        Self { kernel, stats, ready, networks, signals, stopped, updates, stop, task, sequence: 0 }
    }

    async fn send(&mut self, snapshot: bool, changes: Vec<Change>) {
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        self.updates.send(Update { revision, snapshot, changes }).await.expect("the loop runs");
    }

    /// Until the last update is in the kernel.
    async fn settled(&self) {
        let mut stats = self.stats.subscribe();
        stats.wait_for(|stats| stats.revision.sequence == self.sequence).await.expect("the loop runs");
    }

    fn backends(&self) -> Option<Vec<u8>> {
        self.backends_of(VIP)
    }

    fn backends_of(&self, address: IpAddr) -> Option<Vec<u8>> {
        let last = |ip: IpAddr| ip.to_string().rsplit('.').next().and_then(|octet| octet.parse().ok());
        Some(
            self.kernel
                .active(&key(address))?
                .iter()
                .filter_map(|backend| last(backend.addr.to_ip()))
                .collect(),
        )
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }
}

/// What others change is looked for all the time.
fn often() -> ServiceConfig {
    ServiceConfig { repair_period: Duration::from_millis(5), ..ServiceConfig::default() }
}

fn key(address: IpAddr) -> ServiceKey {
    ServiceKey { addr: address.into(), port: Be16::new(80), proto: 6, scope: 0 }
}

fn echo(octets: &[u8]) -> Vec<Change> {
    let name = ObjectName::new("demo", "echo");
    let endpoint = |octet: &u8| Endpoint::ready_at(IpAddr::from([10, 244, 0, *octet]), "");
    vec![
        Change::PutService(Service {
            name: name.clone(),
            addresses: vec![VIP],
            ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
            ..Service::default()
        }),
        Change::PutSlice(EndpointSlice {
            name,
            service: "echo".into(),
            ports: vec![EndpointPort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }],
            endpoints: octets.iter().map(endpoint).collect(),
            triggered_unix_ns: 0,
        }),
    ]
}

fn node(name: &str, octet: u8) -> Change {
    Change::PutNode(Node {
        name: name.into(),
        addresses: vec![IpAddr::from([172, 29, 0, octet])],
        pod_networks: vec![Prefix { address: IpAddr::from([10, 244, octet, 0]), length: 24 }],
        ..Node::default()
    })
}

#[tokio::test]
async fn a_snapshot_reaches_the_kernel_and_makes_the_node_ready() {
    let mut running = Running::start(FakeState::default());
    assert!(!*running.ready.borrow());
    let mut changes = echo(&[1, 2]);
    changes.extend([node("node-1", 11), node("node-2", 12)]);
    running.send(true, changes).await;
    running.settled().await;
    running.ready.wait_for(|ready| *ready).await.expect("the loop runs");
    assert_eq!(running.backends(), Some(vec![1, 2]));
    assert_eq!(running.kernel.routes().map.len(), 2, "our pods and the other node's");
    assert_eq!(running.networks.borrow()[0].address, IpAddr::from([10, 244, 11, 0]));
    assert_eq!(running.kernel.completed(), 1, "maps of another layout may go into use");
    running.stop().await;
}

#[tokio::test]
async fn an_operation_that_fails_is_followed_by_an_observation_and_a_full_plan() {
    let mut running = Running::start(FakeState::default());
    running.send(true, echo(&[1])).await;
    running.settled().await;
    running.kernel.fail_after(1);
    running.send(false, echo(&[1, 2, 3])).await;
    running.settled().await;
    assert_eq!(running.backends(), Some(vec![1, 2, 3]));
    let stats = running.stats.read();
    assert_eq!((stats.failures, stats.last_error), (1, None));
    running.stop().await;
}

#[tokio::test]
async fn what_somebody_else_removes_comes_back_without_a_failure() {
    let mut running = Running::start(FakeState::default());
    running.send(true, echo(&[1, 2])).await;
    running.settled().await;
    running.kernel.remove(&key(VIP));
    while running.backends().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.backends(), Some(vec![1, 2]));
    let mut stats = running.stats.subscribe();
    let repaired = stats.wait_for(|stats| stats.repairs == 1).await.expect("the loop runs").clone();
    assert_eq!((repaired.failures, repaired.last_error), (0, None));
    running.stop().await;
}

#[tokio::test]
async fn a_restarted_loop_writes_nothing_when_nothing_changed() {
    let kernel = FakeState::default();
    let mut first = Running::start(kernel.clone());
    first.send(true, echo(&[1, 2])).await;
    first.settled().await;
    first.stop().await;
    let applied = kernel.applied();
    let mut second = Running::start(kernel.clone());
    second.send(true, echo(&[1, 2])).await;
    second.settled().await;
    assert_eq!(kernel.applied(), applied);
    second.stop().await;
}

#[tokio::test]
async fn a_host_port_follows_the_addresses_of_the_node() {
    let mut running = Running::start(FakeState::default());
    let address = |last| IpAddr::from([172, 29, 0, last]);
    let local = |last| LocalState {
        addresses: BTreeMap::from([(address(last), true)]),
        mtu: 1500,
        interfaces: Vec::new(),
    };
    running.kernel.set_local(local(11));
    running.send(true, vec![]).await;
    let port = HostPort { address: None, protocol: Protocol::Tcp, port: 80, pod_port: 8080 };
    let pod = Pod {
        name: ObjectName::new("demo", "web-0"),
        node: "node-1".into(),
        addresses: vec![IpAddr::from([10, 244, 11, 5])],
        host_ports: vec![port],
        ..Pod::default()
    };
    running.send(false, vec![Change::PutPod(pod.clone())]).await;
    running.settled().await;
    assert_eq!(running.backends_of(address(11)), Some(vec![5]));

    running.kernel.set_local(local(12));
    running.signals.addresses.notify_one();
    while running.backends_of(address(12)).is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.backends_of(address(11)), None);

    running.send(false, vec![Change::DeletePod(pod.name)]).await;
    running.settled().await;
    assert_eq!(running.backends_of(address(12)), None);
    running.stop().await;
}

#[tokio::test]
async fn what_is_put_right_beside_the_maps_is_counted_and_told() {
    let mut running = Running::start(FakeState::default());
    running.send(true, Vec::new()).await;
    running.settled().await;
    running.kernel.damage("the interface fairlead-vx");
    let mut stats = running.stats.subscribe();
    let told = stats.wait_for(|stats| stats.upkeep == 1).await.expect("the loop runs").last_upkeep.clone();
    assert_eq!(told.as_deref(), Some("the interface fairlead-vx"));
    running.stop().await;
}

#[tokio::test]
async fn what_happens_to_the_uplink_is_a_reason_to_look_at_once() {
    // Nothing else looks within the time that a test takes.
    let mut running = Running::start_with(FakeState::default(), ServiceConfig::default());
    running.send(true, vec![node("node-1", 11), node("node-2", 12)]).await;
    running.settled().await;
    running.kernel.damage("the uplink eth0");
    running.kernel.forget_routes();
    running.signals.uplink.notify_one();
    let mut stats = running.stats.subscribe();
    stats.wait_for(|stats| stats.upkeep == 1).await.expect("the loop runs");
    while running.kernel.routes().kernel.len() != 2 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn the_end_of_a_udp_endpoint_is_told_after_its_commit() {
    let udp = |octets: &[u8]| {
        let mut changes = echo(octets);
        for change in &mut changes {
            match change {
                Change::PutService(service) => service.ports[0].protocol = Protocol::Udp,
                Change::PutSlice(slice) => slice.ports[0].protocol = Protocol::Udp,
                _ => {}
            }
        }
        changes
    };
    let mut running = Running::start(FakeState::default());
    running.send(true, udp(&[1, 2])).await;
    // Else both would be applied together.
    running.settled().await;
    running.send(false, udp(&[2])).await;
    let stopped = running.stopped.recv().await.expect("the loop runs");
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped[0].1.address, IpAddr::from([10, 244, 0, 1]));
    running.stop().await;
}

#[tokio::test]
async fn a_cluster_that_does_not_fit_is_served_in_part_and_the_loop_goes_on() {
    let mut services = often();
    services.options.capacities.backends = 2;
    let mut running = Running::start_with(FakeState::default(), services);
    running.send(true, echo(&[1, 2])).await;
    running.settled().await;
    let other = |octets: &[u8]| {
        let mut changes = echo(octets);
        for change in &mut changes {
            match change {
                Change::PutService(service) => {
                    service.name = ObjectName::new("demo", "other");
                    service.addresses = vec![IpAddr::from([10, 96, 0, 21])];
                }
                Change::PutSlice(slice) => {
                    slice.name = ObjectName::new("demo", "other");
                    slice.service = "other".into();
                }
                _ => {}
            }
        }
        changes
    };
    running.send(false, other(&[3])).await;
    running.settled().await;
    running.ready.wait_for(|ready| *ready).await.expect("the loop runs");
    let stats = running.stats.read();
    assert_eq!((stats.usage.refused, stats.failures), (1, 0), "{stats:?}");
    assert!(stats.problems[0].contains("service demo/other") && stats.problems[0].contains("BACKENDS"));
    assert_eq!(running.backends(), Some(vec![1, 2]), "what is there stays");
    // Room comes; nobody has to tell of the other service again.
    running.send(false, echo(&[1])).await;
    let served = || running.backends_of(IpAddr::from([10, 96, 0, 21])) == Some(vec![3]);
    let mut stats = running.stats.subscribe();
    stats.wait_for(|stats| stats.usage.refused == 0 && served()).await.expect("the loop runs");
    running.stop().await;
}

#[tokio::test]
async fn networks_of_services_follow_the_cluster_while_it_runs() {
    let network = |octet: u8| Prefix { address: IpAddr::from([10, octet, 0, 0]), length: 16 };
    let put = |name: &str, octet: u8| Change::PutServiceNetworks {
        name: name.into(),
        networks: vec![network(octet)],
    };
    let delete = |name: &str| Change::DeleteServiceNetworks(name.into());
    let steps = [
        (vec![put("kubernetes", 96)], vec![network(96)]),
        (vec![put("a", 112)], vec![network(96)]),
        (vec![delete("kubernetes")], vec![network(112)]),
        // Pods of a node are in the first one.
        (vec![node("node-2", 12), put("a", 244), put("b", 113)], vec![network(113)]),
        (vec![delete("a"), delete("b")], vec![]),
    ];
    let mut running = Running::start(FakeState::default());
    running.send(true, echo(&[1])).await;
    running.settled().await;
    assert_eq!(running.kernel.service_networks(), []);
    for (changes, expected) in steps {
        let what = format!("{changes:?}");
        running.send(false, changes).await;
        running.settled().await;
        assert_eq!(running.kernel.service_networks(), expected, "{what}");
    }
    running.stop().await;
    let services = ServiceConfig { service_networks: vec![network(97)], ..ServiceConfig::default() };
    let mut running = Running::start_with(FakeState::default(), services);
    running.send(true, vec![put("kubernetes", 96)]).await;
    running.settled().await;
    assert_eq!(running.kernel.service_networks(), [network(97)], "the flag has the last word");
    running.stop().await;
}

#[tokio::test]
async fn pod_networks_that_have_no_place_are_told_and_keep_nothing_else_waiting() {
    let mut services = ServiceConfig::default();
    // The last entry stays free.
    services.options.capacities.routes = 3;
    let kernel = FakeState::default();
    let mut running = Running::start_with(kernel.clone(), services);
    let mut changes = echo(&[1]);
    changes.extend([node("node-1", 1), node("node-2", 2), node("node-3", 3)]);
    running.send(true, changes).await;
    running.settled().await;
    running.ready.wait_for(|ready| *ready).await.expect("the loop runs");
    let stats = running.stats.read();
    assert_eq!((stats.routes, stats.routes_refused, stats.failures), (2, 1, 0), "{stats:?}");
    assert!(stats.problems.iter().any(|problem| problem.contains("10.244.3.0/24")), "{stats:?}");
    assert_eq!((running.backends(), kernel.routes().kernel.len()), (Some(vec![1]), 3), "all else is there");
    // What has nothing to do with it does not end it.
    running.send(false, echo(&[1, 2])).await;
    running.settled().await;
    assert_eq!(running.stats.read().problems.len(), 1);
    // Room comes.
    running.send(false, vec![Change::DeleteNode("node-2".into())]).await;
    running.settled().await;
    let stats = running.stats.read();
    assert_eq!((stats.routes, stats.routes_refused, stats.problems.len()), (2, 0, 0), "{stats:?}");
    let other = Prefix { address: IpAddr::from([10, 244, 3, 0]), length: 24 };
    assert!(kernel.routes().map.contains_key(&other));
    running.stop().await;
}
