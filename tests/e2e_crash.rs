//! A development cluster and `kill -9`: nothing is refused while a daemon is down, and nothing is left in the end.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// One cluster of the test's own; `down` whatever happens.
struct Cluster {
    name: &'static str,
    port: &'static str,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn new(name: &'static str, port: &'static str) -> Self {
        // Sockets have short paths.
        Self { name, port, dir: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn fairlead(&self, arguments: &[&str]) -> Output {
        let binary = std::env::var_os("FAIRLEAD_BIN").map(PathBuf::from);
        let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_fairlead").into()));
        command.args(arguments).args(["--name", self.name]);
        command.arg("--state-dir").arg(self.state()).arg("--run-dir").arg(self.run());
        command.output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.fairlead(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn up(&self) -> String {
        self.succeed(&["up", "--detach", "--nodes", "1", "--api-port", self.port])
    }

    fn ledger(&self) -> Value {
        let text = fs::read_to_string(self.run().join(format!("{}.json", self.name))).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn kill_supervisor(&self) {
        kill_9(&self.ledger()["supervisor"]["pid"]);
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Whatever of it is still on the machine.
    fn leftovers(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut left: Vec<_> = mounts
            .lines()
            .filter(|line| line.contains(self.dir.path().to_str().unwrap()))
            .map(str::to_owned)
            .collect();
        for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let tree = Path::new(line.split(' ').nth(4).unwrap()).join("fairlead").join(self.name);
            left.extend(tree.exists().then(|| tree.display().to_string()));
        }
        for role in ["fabric", "node-1"] {
            let name = format!("{}-{role}", self.name);
            for path in [Path::new("/run/netns").join(&name), Path::new("/sys/fs/bpf/fairlead").join(&name)] {
                left.extend(path.exists().then(|| path.display().to_string()));
            }
        }
        left.extend(self.run().exists().then(|| self.run().display().to_string()));
        left
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.fairlead(&["down", "--purge"]);
    }
}

fn kill_9(pid: &Value) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The children that a ledger names and that still run as what they were.
fn alive(ledger: &Value) -> Vec<String> {
    let items = ledger["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "process");
    items
        .filter(|item| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", item["id"]["pid"])).unwrap_or_default();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let start = item["id"]["start_ticks"].to_string();
            fields.get(19) == Some(&start.as_str()) && fields.first() != Some(&"Z")
        })
        .map(|item| item["role"].to_string())
        .collect()
}

#[test]
fn a_crashed_cluster_is_removed_by_the_next_up_and_by_down() {
    let cluster = Cluster::new("e2e-crash", "16453");
    cluster.up();
    let first = cluster.ledger();
    cluster.kill_supervisor();
    assert_ne!(alive(&first), Vec::<String>::new(), "a crash of the supervisor took the daemons with it");

    let said = cluster.up();
    assert!(said.contains("cleaned up after a crash"), "{said}");
    assert_eq!(alive(&first), Vec::<String>::new());

    let second = cluster.ledger();
    cluster.kill_supervisor();
    let said = cluster.succeed(&["down"]);
    assert!(said.contains("removed"), "{said}");
    assert_eq!(alive(&second), Vec::<String>::new());
    assert_eq!(cluster.leftovers(), Vec::<String>::new());
    assert!(cluster.state().join("pki/ca.crt").exists(), "what is stored was not kept");

    cluster.succeed(&["down", "--purge"]);
    assert!(!cluster.state().exists());
    cluster.succeed(&["down", "--purge"]);
}

#[test]
fn every_daemon_is_restarted_and_the_api_server_refuses_nobody_meanwhile() {
    let cluster = Cluster::new("e2e-restart", "16454");
    cluster.up();
    let process = |name: &str| {
        let status: Value = serde_json::from_str(&cluster.succeed(&["status", "-o", "json"])).unwrap();
        let found =
            status["processes"].as_array().unwrap().iter().find(|process| process["name"] == name).cloned();
        found.map(|process| process["pid"].clone())
    };
    let server = process("server").unwrap();
    kill_9(&server);
    // Its sockets are open all the time: this waits for the new one and is not refused.
    let status: Value = serde_json::from_str(&cluster.succeed(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["api"]["ready"], true, "{status}");

    for name in ["node-1 agent", "node-1 dns", "containerd"] {
        let before = process(name).unwrap();
        kill_9(&before);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while process(name).is_none_or(|now| now == before) {
            assert!(std::time::Instant::now() < deadline, "{name} was not restarted");
        }
    }
    assert_ne!(process("server").unwrap(), server);
    cluster.succeed(&["down", "--purge"]);
    assert_eq!(cluster.leftovers(), Vec::<String>::new());
}
