//! An agent that changes its proxy mode while a pod opens connections. Needs root, the eBPF object, iptables, nftables
//! and conntrack; IPVS and ipset where the kernel has them.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fairlead_agent::{MODES_FILE, ProxyMode};
use fairlead_model::Change;
use fairlead_testkit::{
    InCgroup, Netns, TwoNodes,
    echo::{ask, connect, serve},
    eventually,
    netns::run_in,
    topology::UPLINK,
};

use crate::{
    cluster::{VIP4, VIP6, endpoints, node, pod, service},
    feed::Feed,
    ipvs::possible,
    router::advertise,
    running::RunningAgent,
    traces::{Traces, kinds},
};

#[path = "node_agent/cluster.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod cluster;
#[path = "node_agent/feed.rs"]
mod feed;
#[path = "node_agent/ipvs.rs"]
mod ipvs;
#[path = "node_agent_modes/router.rs"]
mod router;
#[path = "node_agent/running.rs"]
#[expect(dead_code, reason = "the other test of the agent uses more of it")]
mod running;
#[path = "node_agent_modes/traces.rs"]
mod traces;

/// Each mode after each other one, from the programs and back to them.
const MODES: &[ProxyMode] = &[
    ProxyMode::Ebpf,
    ProxyMode::Nftables,
    ProxyMode::Iptables,
    ProxyMode::Ipvs,
    ProxyMode::Iptables,
    ProxyMode::Ebpf,
    ProxyMode::Ipvs,
    ProxyMode::Ebpf,
    ProxyMode::Iptables,
    ProxyMode::Nftables,
    ProxyMode::Ipvs,
    ProxyMode::Nftables,
    ProxyMode::Ebpf,
];

const VIPS: [SocketAddr; 2] = [SocketAddr::new(VIP4, 80), SocketAddr::new(VIP6, 80)];
/// Pause of a client between two connections: the agent works on the same processors, of which there may be one.
const PACE: Duration = Duration::from_millis(5);

#[test]
fn a_live_node_changes_its_mode_without_refusing_anybody_and_leaves_no_trace() {
    if object_is_missing() {
        return;
    }
    let mut lab = Lab::new(|_| {});
    let mut seen: BTreeMap<ProxyMode, Traces> = BTreeMap::new();
    for mode in possible(MODES) {
        let before = lab.a.config.proxy_mode;
        let change = format!("{before} to {mode}");
        let (lost, clients) = (lab.lost_requests(), lab.steady_clients());
        lab.change_to(mode);
        for client in clients {
            client.more(30);
            let (asked, failed) = client.stop();
            assert!(failed.is_empty(), "{change}: {failed:?} of {asked} connections");
        }
        // The kernel remembers connections of other modes by their ports for two minutes, and may meet one again.
        let lost = lab.lost_requests() - lost;
        assert!(lost <= VIPS.len() as u64, "{change}: {lost} times somebody had to ask again");
        assert_eq!(lab.a.metrics("/proxyMode").1, mode.as_str());
        let localnet = lab.parameter("ipv4/conf/all/route_localnet");
        assert_eq!(
            localnet == "1",
            mode == ProxyMode::Iptables,
            "{change}: it opens loopback to clients outside"
        );
        let mut found = Traces::of(&lab.topology.a.netns, &lab.a.config.bpffs_dir);
        assert_eq!(found.kinds(), kinds(mode), "{change}: {found:?}");
        // Those that the programs carried may be known to conntrack by a half; the rule comes two minutes later.
        let drops_halves = found.take("--ctstate INVALID -j DROP");
        assert_eq!(drops_halves, mode == ProxyMode::Iptables && before != ProxyMode::Ebpf, "{change}");
        // The same, whichever mode was before.
        let first = seen.entry(mode).or_insert_with(|| found.clone());
        assert!(found == *first, "{change}: {:?}", found.difference(first));
        lab.both_endpoints_answer();
    }
}

#[test]
fn a_default_route_that_a_router_has_advertised_stays_when_a_node_begins_in_any_mode() {
    if object_is_missing() {
        return;
    }
    let mut lab = Lab::new(|_| {});
    let route = ["-6", "route", "show", "default"];
    for mode in possible(&MODES[..4]) {
        // As a host is that forwards nothing yet, and nobody is there to mend it.
        lab.a.kill();
        lab.set("ipv6/conf/all/forwarding", "0");
        lab.set(&format!("ipv6/conf/{UPLINK}/accept_ra"), "1");
        let node = &lab.topology.a.netns;
        node.ip(&["-6", "route", "flush", "default"]);
        eventually("a default route", || {
            advertise(&lab.topology.b.netns);
            node.ip(&route).contains("proto ra").then_some(())
        });
        lab.change_to(mode);
        assert_eq!(lab.parameter("ipv6/conf/all/forwarding"), "1", "{mode}");
        let found = lab.topology.a.netns.ip(&route);
        assert!(found.contains("proto ra"), "{mode}: {found}");
    }
}

#[test]
fn addresses_that_a_kube_proxy_has_left_on_its_interface_are_not_the_node_s_own() {
    if object_is_missing() {
        return;
    }
    let lab = Lab::new(|node| {
        node.ip(&["link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "nowhere"]);
        for vip in VIPS {
            node.ip(&["address", "add", &vip.ip().to_string(), "dev", "kube-ipvs0"]);
        }
    });
    lab.both_endpoints_answer();
}

fn object_is_missing() -> bool {
    let is_missing = fairlead_kernel::bpf::object::embedded().is_err();
    assert!(!is_missing || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "needs the eBPF object");
    is_missing
}

/// A service with an endpoint on each of two nodes, and a client on the one that changes its mode.
struct Lab {
    client: PathBuf,
    _inside: InCgroup,
    a: RunningAgent,
    _b: RunningAgent,
    _feed: Feed,
    topology: TwoNodes,
    _directory: tempfile::TempDir,
}

impl Lab {
    /// `prepare` does something to the node before there is an agent.
    fn new(prepare: impl FnOnce(&Netns)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let topology = TwoNodes::new();
        prepare(&topology.a.netns);
        // A kernel complains to one address six times a second, at most. Connections that have ended with a mode use that up.
        let limit = "/proc/sys/net/ipv4/icmp_ratelimit";
        topology.a.netns.run(|| fs::write(limit, "0")).expect("every namespace has it");
        let mut service = service();
        if let Change::PutService(service) = &mut service {
            // Of an address that the node has anyway, and of a range that is not the default one.
            service.ports[0].node_port = 20_080;
        }
        let nodes = vec![node("a", 1, &topology.a.addresses), node("b", 2, &topology.b.addresses), service];
        let mut feed = Feed::start(&topology.a, nodes);
        let a = RunningAgent::start("a", &topology.a, feed.endpoint.clone(), directory.path());
        let b = RunningAgent::start("b", &topology.b, feed.endpoint.clone(), directory.path());
        a.wait_ready();
        b.wait_ready();
        let (client, near, far) = (a.attach("client"), a.attach("near"), b.attach("far"));
        let inside = InCgroup::enter(&a.cgroup().join("client"));
        serve(&near.netns, &near.addresses, "near");
        serve(&far.netns, &far.addresses, "far");
        let mut changes = endpoints(&[("a", &near.addresses), ("b", &far.addresses)]);
        changes.extend([pod("client", "a", &client.addresses), pod("near", "a", &near.addresses)]);
        feed.change(changes);
        for vip in VIPS {
            eventually("the service answers", || {
                run_in(&client.netns, || connect(vip).and_then(|mut stream| ask(&mut stream)).ok())
            });
        }
        let (client, _b, _directory) = (client.netns, b, directory);
        Self { client, _inside: inside, _feed: feed, a, _b, topology, _directory }
    }

    /// Starts the agent anew in this mode, and waits until it has removed what the one before left.
    fn change_to(&mut self, mode: ProxyMode) {
        self.a.config.proxy_mode = mode;
        self.a.kill_and_restart();
        self.a.wait_ready();
        let modes = self.a.config.state_dir.join(MODES_FILE);
        eventually("the mode takes over", || {
            (fs::read_to_string(&modes).ok()? == format!("{mode}\n")).then_some(())
        });
    }

    fn set(&self, parameter: &str, value: &str) {
        let path = format!("/proc/sys/net/{parameter}");
        self.topology.a.netns.run(|| fs::write(&path, value)).expect("every namespace has it");
    }

    fn parameter(&self, name: &str) -> String {
        let path = format!("/proc/sys/net/{name}");
        let value = self.topology.a.netns.run(|| fs::read_to_string(&path));
        value.expect("every namespace has it").trim().to_owned()
    }

    fn steady_clients(&self) -> Vec<Steady> {
        VIPS.map(|vip| Steady::start(self.client.clone(), vip)).into()
    }

    /// How often the client's kernel has asked for a connection once more, because nobody had answered.
    fn lost_requests(&self) -> u64 {
        let counters = "/proc/thread-self/net/netstat";
        let text = run_in(&self.client, || fs::read_to_string(counters)).expect("every namespace has it");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let value = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "TCPSynRetrans");
        value.and_then(|(_, value)| value.parse().ok()).expect("every kernel since 3.15 counts it")
    }

    fn both_endpoints_answer(&self) {
        for vip in VIPS {
            for name in ["near", "far"] {
                eventually("each endpoint answers", || {
                    let answer =
                        run_in(&self.client, || connect(vip).and_then(|mut stream| ask(&mut stream)));
                    (answer.expect("an answer") == name).then_some(())
                });
            }
        }
        let nobody = SocketAddr::new(IpAddr::from([10, 244, 1, 250]), 80);
        let error = run_in(&self.client, || connect(nobody)).expect_err("nobody has the address");
        assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
}

/// A client that opens connections one after the other.
struct Steady {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Steady {
    fn start(netns: PathBuf, vip: SocketAddr) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let failed = Arc::new(Mutex::new(Vec::new()));
        let thread = {
            let (stop, asked, failed) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
            thread::spawn(move || {
                run_in(&netns, || {
                    while !stop.load(Ordering::Relaxed) {
                        // A connection that was open when its mode went may end; only opening one must not fail.
                        if let Err(error) = connect(vip) {
                            failed.lock().expect("no panic").push(error.to_string());
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(PACE);
                    }
                });
            })
        };
        let client = Self { stop, asked, failed, thread };
        client.more(5);
        client
    }

    fn more(&self, times: usize) {
        let goal = self.asked.load(Ordering::Relaxed) + times;
        eventually("more connections", || (self.asked.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        (self.asked.load(Ordering::Relaxed), self.failed.lock().expect("no panic").clone())
    }
}
