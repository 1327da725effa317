//! An agent that changes its proxy mode while a pod opens connections. Needs root, the eBPF object, iptables, nftables
//! and conntrack; IPVS and ipset where the kernel has them.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use fairlead_agent::ProxyMode;
use fairlead_testkit::{
    InCgroup, TwoNodes,
    echo::{ask, connect, serve},
    eventually,
    netns::run_in,
};

use crate::{
    cluster::{VIP4, VIP6, endpoints, node, pod, service},
    feed::Feed,
    ipvs::possible,
    running::RunningAgent,
};

#[path = "node_agent/cluster.rs"]
mod cluster;
#[path = "node_agent/feed.rs"]
#[expect(dead_code, reason = "the other test of the agent uses more of it")]
mod feed;
#[path = "node_agent/ipvs.rs"]
mod ipvs;
#[path = "node_agent/running.rs"]
#[expect(dead_code, reason = "the other test of the agent uses more of it")]
mod running;

/// Each mode after one of each other kind.
const MODES: &[ProxyMode] = &[
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
];

#[test]
fn a_live_node_changes_its_mode_without_refusing_anybody_and_leaves_no_trace() {
    if fairlead_kernel::bpf::object::embedded().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "needs the eBPF object");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let topology = TwoNodes::new();
    let nodes = vec![node("a", 1, &topology.a.addresses), node("b", 2, &topology.b.addresses), service()];
    let mut feed = Feed::start(&topology.a, nodes);
    let mut a = RunningAgent::start("a", &topology.a, feed.endpoint.clone(), directory.path());
    let b = RunningAgent::start("b", &topology.b, feed.endpoint.clone(), directory.path());
    a.wait_ready();
    b.wait_ready();
    let (client, near, far) = (a.attach("client"), a.attach("near"), b.attach("far"));
    let _inside = InCgroup::enter(&a.cgroup().join("client"));
    serve(&near.netns, &near.addresses, "near");
    serve(&far.netns, &far.addresses, "far");
    let mut changes = endpoints(&[("a", &near.addresses), ("b", &far.addresses)]);
    changes.extend([pod("client", "a", &client.addresses), pod("near", "a", &near.addresses)]);
    feed.change(changes);

    for address in [VIP4, VIP6] {
        let vip = SocketAddr::new(address, 80);
        eventually("the service answers", || {
            run_in(&client.netns, || connect(vip).and_then(|mut stream| ask(&mut stream)).ok())
        });
    }
    for mode in possible(MODES) {
        let steady: Vec<Steady> =
            [VIP4, VIP6].map(|vip| Steady::start(client.netns.clone(), SocketAddr::new(vip, 80))).into();
        let before = a.config.proxy_mode;
        a.config.proxy_mode = mode;
        a.kill_and_restart();
        a.wait_ready();
        let modes = a.config.state_dir.join("proxy-modes");
        eventually("the mode takes over", || {
            (fs::read_to_string(&modes).ok()? == format!("{mode}\n")).then_some(())
        });
        for client in steady {
            client.more(30);
            let (asked, failed) = client.stop();
            assert!(failed.is_empty(), "{before} to {mode}: {failed:?} of {asked} connections");
        }
        assert_eq!(a.metrics("/proxyMode").1, mode.as_str());
        let expected = Traces {
            iptables: mode == ProxyMode::Iptables || mode == ProxyMode::Ipvs,
            nftables: mode == ProxyMode::Nftables,
            ipvs: mode == ProxyMode::Ipvs,
            ebpf: mode == ProxyMode::Ebpf,
        };
        assert_eq!(Traces::of(&topology, &a), expected, "{before} to {mode}");
        both_endpoints_answer(&client.netns);
    }
}

fn both_endpoints_answer(client: &Path) {
    for address in [VIP4, VIP6] {
        let vip = SocketAddr::new(address, 80);
        for name in ["near", "far"] {
            eventually("each endpoint answers", || {
                let answer = run_in(client, || connect(vip).and_then(|mut stream| ask(&mut stream)));
                (answer.expect("an answer") == name).then_some(())
            });
        }
    }
    let nobody = SocketAddr::new(IpAddr::from([10, 244, 1, 250]), 80);
    let error = run_in(client, || connect(nobody)).expect_err("nobody has the address");
    assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
}

/// Which modes have something in the kernel.
#[derive(PartialEq, Eq, Debug)]
struct Traces {
    iptables: bool,
    nftables: bool,
    ipvs: bool,
    ebpf: bool,
}

impl Traces {
    fn of(topology: &TwoNodes, agent: &RunningAgent) -> Self {
        let saved =
            topology.a.netns.exec("iptables-save", &[]) + &topology.a.netns.exec("ip6tables-save", &[]);
        let tables = topology.a.netns.exec("nft", &["list", "tables"]);
        let links = topology.a.netns.exec("ip", &["-o", "link", "show"]);
        Self {
            ipvs: links.contains("kube-ipvs0") || saved.contains("KUBE-IPVS"),
            iptables: saved.contains("KUBE-"),
            nftables: tables.contains("kube-proxy"),
            ebpf: agent.config.bpffs_dir.join("links/connect4").exists(),
        }
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
