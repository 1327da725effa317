//! What benchmarks leave: nothing of their own, and everything of others. Needs root, nftables and a `fairlead` with the eBPF
//! programs.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use fairlead_bench::{cluster::binary, feed::ScriptedFeed, proxy::Proxy};
use fairlead_model::{Revision, Update};
use fairlead_testkit::{Netns, TwoNodes, cgroup::mount_point, eventually, netns::command};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// Where the machine's own proxies have their state, unless they are told.
const STATE: &str = "/var/lib/fairlead/nodes";

/// What a proxy of the machine has: rules, and a note of them.
struct Host {
    netns: Netns,
    modes: PathBuf,
}

impl Host {
    /// A namespace for the machine's, and a state directory that this thread alone sees, with what it starts.
    fn pretended() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("root may have mounts of its own");
        command("mount", &["--make-rslave", "/"]);
        command("mount", &["-t", "tmpfs", "tmpfs", "/var/lib"]);
        let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
        let agent = Path::new(STATE).join(name.trim()).join("agent");
        let modes = agent.join("proxy-modes");
        fs::create_dir_all(agent).expect("it is empty");
        fs::write(&modes, "nftables\n").expect("a file");
        let netns = Netns::new("host");
        netns.exec("nft", &["add", "table", "ip", "kube-proxy"]);
        Self { netns, modes }
    }
}

#[test]
fn a_proxy_of_a_benchmark_takes_its_rules_along_and_leaves_those_of_the_machine() {
    let act = || {
        let (host, topology) = (Host::pretended(), TwoNodes::new());
        let directory = tempfile::tempdir().expect("a directory");
        let revision = Revision { epoch: 1, sequence: 1 };
        let nothing = Update { revision, snapshot: true, changes: Vec::new() };
        let _feed = ScriptedFeed::start(&directory.path().join("feed.sock"), nothing).expect("a feed");
        let tables = |netns: &Netns| netns.exec("nft", &["list", "tables"]);
        let cgroup = host.netns.run(|| {
            let (binary, mode) = (binary().expect("it is built"), ["--proxy-mode", "nftables"]);
            let proxy = Proxy::start(&binary, "a", &topology.a, &mode, directory.path()).expect("it starts");
            proxy.until_applied(1).expect("it applies nothing");
            fs::create_dir_all(proxy.cgroup().join("clients")).expect("root may make a cgroup");
            assert!(tables(&topology.a.netns).contains("table ip kube-proxy"));
            proxy.cgroup().to_owned()
        });
        assert!(tables(&topology.a.netns).is_empty() && !cgroup.exists(), "{}", cgroup.display());
        assert_eq!(tables(&host.netns), "table ip kube-proxy\n");
        assert_eq!(fs::read_to_string(&host.modes).expect("it is there"), "nftables\n");
    };
    thread::spawn(act).join().expect("it does not panic");
}

/// A benchmark, and the file that is there when its agent has begun and is not ready.
const INTERRUPTED: [(&[&str], &str); 2] = [
    (&["programming", "--mode=ebpf", "--services-max=100"], "/sys/fs/bpf/flbench-proxy-"),
    (&["throughput", "--mode=ebpf", "--quick"], "/sys/fs/bpf/cost-"),
];

/// Names of what a process has made where namespaces, pins, cgroups and directories of agents are.
fn left_by(process: u32) -> Vec<String> {
    let places = ["/run/netns".into(), "/sys/fs/bpf".into(), "/run".into(), mount_point()];
    let entries = places.into_iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let names = entries.map(|entry| entry.path().display().to_string());
    names.filter(|name| name.split('-').any(|part| part == process.to_string())).collect()
}

/// Starts a benchmark and waits until its agent has begun.
fn begin((arguments, begun): (&[&str], &str)) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-bench"));
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut benchmark = command.spawn().expect("it is there");
    eventually("the agent has begun", || {
        assert_eq!(benchmark.try_wait().expect("it is ours"), None);
        left_by(benchmark.id()).iter().any(|name| name.starts_with(begun)).then_some(())
    });
    benchmark
}

/// It fails, says this, and leaves nothing.
fn assert_gone(benchmark: Child, sentence: &str) {
    let id = benchmark.id();
    let output = benchmark.wait_with_output().expect("it is ours");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(sentence), "{said}");
    assert_eq!(left_by(id), Vec::<String>::new(), "{said}");
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}

#[test]
fn a_benchmark_that_is_interrupted_while_its_agent_starts_leaves_nothing() {
    for benchmark in INTERRUPTED {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let benchmark = begin(benchmark);
            // As Ctrl-C does: to all that are in its group.
            killpg(pid(benchmark.id()), signal).expect("it runs");
            assert_gone(benchmark, "interrupted");
        }
    }
}

#[test]
fn a_benchmark_whose_agent_dies_before_it_is_ready_leaves_nothing() {
    let benchmark = begin(INTERRUPTED[1]);
    let id = benchmark.id();
    let is_agent = |process: &u32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
        read("status").contains(&format!("PPid:\t{id}\n")) && read("cmdline").contains("cost-agent")
    };
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    kill(pid(numbers.find(is_agent).expect("the agent has begun")), Signal::SIGKILL).expect("it runs");
    assert_gone(benchmark, "it ended before it was ready");
}
