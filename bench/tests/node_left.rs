//! What benchmarks leave: nothing of their own, and everything of others. Needs root, nftables and a `fairlead` with the eBPF
//! programs.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use fairlead_bench::{cluster::binary, feed::ScriptedFeed, proxy::Proxy};
use fairlead_model::{Revision, Update};
use fairlead_testkit::{Netns, TwoNodes, netns::command};
use nix::sched::{CloneFlags, unshare};

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
        host.netns.run(|| {
            let (binary, mode) = (binary().expect("it is built"), ["--proxy-mode", "nftables"]);
            let proxy = Proxy::start(&binary, "a", &topology.a, &mode, directory.path()).expect("it starts");
            proxy.until_applied(1).expect("it applies nothing");
            assert!(tables(&topology.a.netns).contains("table ip kube-proxy"));
        });
        assert_eq!(tables(&topology.a.netns), "");
        assert_eq!(tables(&host.netns), "table ip kube-proxy\n");
        assert_eq!(fs::read_to_string(&host.modes).expect("it is there"), "nftables\n");
    };
    thread::spawn(act).join().expect("it does not panic");
}
