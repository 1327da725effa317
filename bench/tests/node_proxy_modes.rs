//! `fairlead proxy` in the modes with rules: what it says when it cannot start or go on, that its rules come back, and what it
//! leaves. Needs root, iptables, nftables, ipset, conntrack and a `fairlead` with the eBPF programs; IPVS where the kernel has
//! it.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{Ipv6Addr, TcpListener},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use fairlead_bench::{admin::Admin, cluster::binary, feed::ScriptedFeed};
use fairlead_testkit::{
    TwoNodes,
    cgroup::mount_point,
    echo::{self, ask, connect},
    eventually, eventually_within,
    netns::run_in,
    topology::UPLINK,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::cluster::{Cluster, HTTP, addresses};

#[path = "e2e_proxy/cluster.rs"]
#[expect(dead_code, reason = "shared with a test that changes backends")]
mod cluster;

/// How long is waited for what the agent looks at every 30 seconds, and for what waits for a lock.
const PATIENCE: Duration = Duration::from_secs(90);

/// A mode with rules, and how somebody takes some of them away.
const MODES: &[(&str, &[&str])] = &[
    ("iptables", &["iptables", "-t", "nat", "-F", "KUBE-SERVICES"]),
    ("nftables", &["nft", "flush", "map", "ip", "kube-proxy", "service-ips"]),
    ("ipvs", &["ip", "link", "delete", "kube-ipvs0"]),
];

/// Where virtual servers are listed, in every namespace of a kernel that has IPVS.
const SERVERS: &str = "/proc/thread-self/net/ip_vs";
/// Set where the kernel must have IPVS: a machine that was made for it.
const NEEDS_IPVS: &str = "FAIRLEAD_NEEDS_IPVS";

/// Rules of somebody else, with names that begin like ours.
const FOREIGN: &[&[&str]] = &[
    &["iptables", "-t", "nat", "-N", "KUBE-HOUSE"],
    &["iptables", "-t", "nat", "-A", "KUBE-HOUSE", "-s", "192.0.2.1", "-j", "ACCEPT"],
    &["iptables", "-t", "nat", "-A", "OUTPUT", "-j", "KUBE-HOUSE"],
    &["nft", "add", "table", "inet", "kube-proxy"],
    &["nft", "add", "chain", "inet", "kube-proxy", "services"],
];

/// What a kube-proxy leaves when it is stopped, in names that are ours as well.
const OF_KUBE_PROXY: &[&[&str]] = &[
    &["iptables", "-t", "nat", "-N", "KUBE-SERVICES"],
    &["iptables", "-t", "nat", "-A", "OUTPUT", "-j", "KUBE-SERVICES"],
    &["nft", "add", "table", "ip", "kube-proxy"],
];

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// A node on which the proxy is started, beside one with a server.
struct Machine {
    topology: TwoNodes,
    directory: tempfile::TempDir,
    /// Of the cgroup and of the directory of pins.
    id: String,
    _feed: ScriptedFeed,
}

impl Machine {
    fn new(name: &str) -> Self {
        let topology = TwoNodes::new();
        let directory = tempfile::tempdir().expect("a directory");
        let nodes = [&topology.a, &topology.b].map(|node| node.addresses.clone());
        let snapshot = Cluster::new(nodes).snapshot();
        let feed = ScriptedFeed::start(&directory.path().join("feed.sock"), snapshot).expect("a feed");
        echo::serve(&topology.b.netns.path(), &topology.b.addresses, "far");
        echo::serve(&topology.a.netns.path(), &topology.a.addresses, "near");
        // A node finds its way to services as with any default route.
        topology.a.netns.ip(&["route", "add", "10.96.0.0/16", "dev", UPLINK]);
        topology.a.netns.ip(&["route", "add", "fd00:96::/112", "dev", UPLINK]);
        Self { topology, directory, id: format!("fltest-{name}-{}", std::process::id()), _feed: feed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bpffs(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.id)
    }

    fn exec(&self, command: &[&str]) -> String {
        self.topology.a.netns.exec(command[0], &command[1..])
    }

    /// A command of the proxy.
    fn fairlead(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary().expect("it is built"));
        command.args(["proxy", "--node", "a"]).args(arguments).stdin(Stdio::null());
        command.arg("--bpffs").arg(self.bpffs()).arg("--state-dir").arg(self.path("state"));
        command
    }

    fn start(&self, mode: &str, environment: &[(&str, &Path)]) -> Process {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = self.fairlead(&["--proxy-mode", mode, "--uplink", UPLINK, "--cgroup", &self.id]);
        command.arg("--feed-socket").arg(self.path("feed.sock")).arg("--run-dir").arg(self.path("run"));
        for address in &self.topology.a.addresses {
            command.arg("--node-ip").arg(address.to_string());
        }
        command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(log);
        Process(run_in(&self.topology.a.netns.path(), || command.spawn()).expect("it is there"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What it says when it does not start.
    fn refuses(&self, mode: &str) -> String {
        let before = self.log().len();
        let mut process = self.start(mode, &[]);
        let status = eventually("it ends", || process.0.try_wait().expect("it is ours"));
        assert!(!status.success());
        self.log()[before..].to_owned()
    }

    /// What it says, or why it does nothing.
    fn try_clean_up(&self) -> Result<String, String> {
        let mut command = self.fairlead(&["--cleanup"]);
        let output = run_in(&self.topology.a.netns.path(), || command.output()).expect("it is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn clean_up(&self) -> String {
        self.try_clean_up().unwrap_or_else(|error| panic!("{error}"))
    }

    fn status(&self) -> Option<Value> {
        Admin::new(self.path("run/admin.sock")).status().ok()
    }

    fn wait_applied(&self) {
        eventually("the services are applied", || {
            self.status().filter(|status| status["sequence"].as_u64() == Some(1))
        });
    }

    /// The service answers on the node.
    fn assert_serves(&self) {
        for to in addresses(HTTP) {
            let answer = run_in(&self.topology.a.netns.path(), || connect(to).and_then(|mut s| ask(&mut s)));
            let answer = answer.unwrap_or_else(|error| panic!("{to}: {error}\n{}", self.log()));
            assert!(["near", "far"].contains(&answer.as_str()), "{answer}");
        }
    }

    /// How much there is of everybody's.
    fn lines(&self) -> usize {
        let lists: [&[&str]; 3] = [&["nft", "list", "ruleset"], &["iptables-save"], &["ip", "-o", "address"]];
        lists.iter().map(|list| self.exec(list).lines().count()).sum()
    }

    /// Chains, rules, tables, sets, virtual servers and addresses for them of everybody, but for the tables that iptables
    /// makes when it is asked.
    fn traces(&self) -> BTreeSet<String> {
        let of_program = |program: &'static str| {
            let saved = self.exec(&[program]);
            let told = |line: &&str| line.starts_with("-A") || line.ends_with("- [0:0]");
            saved.lines().filter(told).map(|line| format!("{program} {line}")).collect::<Vec<_>>()
        };
        let iptables = ["iptables-save", "ip6tables-save"].into_iter().flat_map(of_program);
        let tables = self.exec(&["nft", "list", "tables"]);
        let of_iptables =
            |line: &&str| ["filter", "nat", "mangle"].contains(&line.rsplit(' ').next().unwrap_or_default());
        let (sets, addresses) =
            (self.exec(&["ipset", "list", "-name"]), self.exec(&["ip", "-brief", "address"]));
        let of_services = |line: &&str| line.starts_with("kube-ipvs0");
        let servers = self.topology.a.netns.run(|| fs::read_to_string(SERVERS).unwrap_or_default());
        let is_server = |line: &&str| line.starts_with("TCP ") || line.starts_with("UDP ");
        let others = [
            tables.lines().filter(|line| !of_iptables(line)).collect(),
            sets.lines().collect(),
            addresses.lines().filter(of_services).collect(),
            servers.lines().filter(is_server).collect::<Vec<_>>(),
        ];
        iptables.chain(others.concat().into_iter().map(str::to_owned)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
        let mut command = self.fairlead(&["--cleanup"]);
        let _removed = run_in(&self.topology.a.netns.path(), || command.output());
        let _removed = fs::remove_dir(mount_point().join(&self.id));
    }
}

#[test]
fn a_mode_that_the_kernel_cannot_do_is_refused_in_a_sentence_and_never_counts_as_used() {
    if Path::new("/proc/net/ip_vs").exists() {
        let _told = writeln!(std::io::stderr(), "this kernel has IPVS, so no mode is impossible here");
        return;
    }
    let machine = Machine::new("impossible");
    OF_KUBE_PROXY.iter().for_each(|command| drop(machine.exec(command)));
    let before = machine.traces();
    let said = machine.refuses("ipvs");
    let sentence =
        "this kernel lacks IPVS: load its modules (`modprobe ip_vs_rr`), or use another --proxy-mode";
    assert_eq!(said.trim(), format!("error: {sentence}"));
    let removed = machine.clean_up();
    assert!(removed.starts_with("there is nothing of a proxy"), "{removed}");
    assert_eq!(machine.traces(), before);
}

#[test]
fn a_kube_proxy_that_runs_is_named_and_keeps_its_rules() {
    let machine = Machine::new("conflict");
    OF_KUBE_PROXY.iter().for_each(|command| drop(machine.exec(command)));
    let before = machine.traces();
    let program = machine.path("kube-proxy");
    fs::copy("/bin/sleep", &program).expect("coreutils");
    let mut command = Command::new(&program);
    let other =
        Process(run_in(&machine.topology.a.netns.path(), || command.arg("600").spawn()).expect("starts"));
    let named = format!("kube-proxy (process {}) runs on this node", other.0.id());
    // It has its port as well, but what matters is said first.
    let port =
        run_in(&machine.topology.a.netns.path(), || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 10_256)));
    for (mode, _) in MODES {
        let said = machine.refuses(mode);
        assert!(said.contains(&named) && said.contains("stop it first"), "{mode}: {said}");
    }
    let removed = machine.clean_up();
    assert!(removed.starts_with("there is nothing of a proxy"), "{removed}");
    // Nor does a cleanup take them, if the mode was used here before it.
    let modes = machine.path("state/agent/proxy-modes");
    fs::write(&modes, "iptables\nnftables\n").expect("the directory is there");
    let refused = machine.try_clean_up().expect_err("they are somebody's");
    assert!(refused.contains(&named), "{refused}");
    assert_eq!(machine.traces(), before);
    fs::remove_file(modes).expect("it is still there");

    // Beside the programs it may run, on other ports.
    let said = machine.refuses("ebpf");
    let holder =
        format!("(process {}) listens there: stop it, or choose another address", std::process::id());
    assert!(said.contains("[::]:10256") && said.contains(&holder), "{said}");
    drop((port, other));
}

#[test]
fn who_holds_the_lock_of_xtables_is_named_and_waited_for() {
    let machine = Machine::new("lock");
    // The variant that has a lock, with one of our own.
    let (tools, lock) = (machine.path("tools"), machine.path("xtables.lock"));
    fs::create_dir(&tools).expect("a directory");
    for name in ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"] {
        symlink("/usr/sbin/xtables-legacy-multi", tools.join(name)).expect("a link");
    }
    let held = fs::File::create(&lock).expect("a file");
    held.lock().expect("nobody has it");
    let process = machine.start("iptables", &[("PATH", &tools), ("XTABLES_LOCKFILE", &lock)]);
    let named =
        format!("(process {}) has held the xtables lock for 5 s; it is tried again", std::process::id());
    eventually_within(PATIENCE, "the holder is named", || machine.log().contains(&named).then_some(()));
    held.unlock().expect("it was held");
    eventually_within(PATIENCE, "it goes on", || {
        machine.status().filter(|status| status["sequence"].as_u64() == Some(1))
    });
    machine.assert_serves();
    drop(process);
}

#[test]
fn a_program_that_hangs_does_not_keep_the_proxy_from_ending() {
    let machine = Machine::new("hang");
    let tools = machine.path("tools");
    fs::create_dir(&tools).expect("a directory");
    // It lists, and never ends to write.
    let script = "#!/bin/sh\n[ \"$1\" = -f ] && exec /bin/sleep 600\nexec /usr/sbin/nft \"$@\"\n";
    fs::write(tools.join("nft"), script).expect("writes");
    fs::set_permissions(tools.join("nft"), fs::Permissions::from_mode(0o755)).expect("ours");
    let mut process = machine.start("nftables", &[("PATH", &tools)]);
    eventually("it is about to write", || {
        machine.status().filter(|status| status["feed"] == "connected" && status["syncs"] == 0)
    });
    let pid = Pid::from_raw(process.0.id().cast_signed());
    kill(pid, Signal::SIGTERM).expect("it runs");
    let status = eventually_within(PATIENCE, "it ends", || process.0.try_wait().expect("it is ours"));
    assert!(status.success() && machine.log().contains("stopping all the same"), "{}", machine.log());
}

#[test]
fn rules_that_somebody_removes_come_back_and_a_cleanup_leaves_those_of_others() {
    let has_ipvs = Path::new(SERVERS).exists();
    assert!(has_ipvs || std::env::var_os(NEEDS_IPVS).is_none(), "the kernel has no IPVS");
    thread::scope(|scope| {
        for (mode, vandalise) in MODES.iter().filter(|(mode, _)| has_ipvs || *mode != "ipvs") {
            scope.spawn(|| come_back_and_go(mode, vandalise));
        }
    });
}

fn come_back_and_go(mode: &str, vandalise: &[&str]) {
    let machine = Machine::new(mode);
    FOREIGN.iter().for_each(|command| drop(machine.exec(command)));
    let before = machine.traces();
    let process = machine.start(mode, &[]);
    machine.wait_applied();
    machine.assert_serves();
    let (whole, lines) = (machine.traces(), machine.lines());
    assert!(whole.is_superset(&before) && whole.len() > before.len(), "{whole:?}");
    let refused = machine.try_clean_up().expect_err("it runs");
    assert!(refused.contains("another agent runs"), "{refused}");
    assert_eq!(machine.traces(), whole);
    machine.exec(vandalise);
    assert!(machine.lines() < lines, "nothing was removed");
    eventually_within(PATIENCE, "all rules are back", || (machine.lines() == lines).then_some(()));
    machine.assert_serves();
    assert!(machine.log().contains("somebody has removed rules of this proxy"), "{}", machine.log());
    drop(process);
    let removed = machine.clean_up();
    assert!(removed.contains(&format!("removed the rules of the {mode} mode")), "{removed}");
    assert_eq!(machine.traces(), before);
    assert!(!machine.bpffs().exists());
    let again = machine.clean_up();
    assert!(again.starts_with("there is nothing of a proxy"), "{again}");
}
