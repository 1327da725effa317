//! The server on etcd, on a full disk, and what moves objects between stores. etcd is a private one, on the loopback.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A process of ours, killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Process {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One member of etcd and the directory of everything in a test.
struct Etcd {
    dir: TempDir,
    url: String,
    peer: String,
}

impl Etcd {
    fn new() -> Self {
        let url = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        Self { dir: TempDir::with_prefix("fairlead-store-").unwrap(), url, peer }
    }

    fn start(&self) -> Process {
        spawn(
            Command::new("etcd")
                .arg(format!("--data-dir={}", self.path("etcd").display()))
                .args(["--name=m0", "--log-level=error"])
                .arg(format!("--listen-client-urls={}", self.url))
                .arg(format!("--advertise-client-urls={}", self.url))
                .arg(format!("--listen-peer-urls={}", self.peer))
                .arg(format!("--initial-advertise-peer-urls={}", self.peer))
                .arg(format!("--initial-cluster=m0={}", self.peer)),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A server without nodes.
struct Server {
    _process: Process,
    kubeconfig: PathBuf,
}

impl Server {
    fn start(state_dir: &Path, flags: &[&str]) -> Self {
        let kubeconfig = state_dir.join("admin.kubeconfig");
        let process = spawn(
            Command::new(env!("CARGO_BIN_EXE_fairlead"))
                .arg("server")
                .arg(format!("--state-dir={}", state_dir.display()))
                .arg(format!("--listen=127.0.0.1:{}", free_port()))
                .arg(format!("--feed-listen=127.0.0.1:{}", free_port()))
                .args(flags),
        );
        let server = Self { _process: process, kubeconfig };
        server.eventually_says("/readyz", "ok");
        server
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("kubectl");
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display())).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn eventually_says(&self, path: &str, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.kubectl(&["get", "--raw", path]);
            let said = text(&output.stdout) + &text(&output.stderr);
            if said.contains(part) {
                return;
            }
            assert!(Instant::now() < deadline, "{path} does not say {part:?}: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_server_on_etcd_is_ready_when_etcd_is() {
    let etcd = Etcd::new();
    let member = etcd.start();
    let flags = ["--store=etcd", &format!("--etcd-endpoints={}", etcd.url), "--etcd-prefix=/blue"];
    let server = Server::start(&etcd.path("server"), &flags);
    server.must(&["create", "configmap", "kept", "--from-literal=a=1"]);
    let list = ["get", "--prefix", "--keys-only", "/blue/configmaps/default/kept"];
    let mut etcdctl = Command::new("etcdctl");
    etcdctl.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", etcd.url)).args(list);
    assert_eq!(text(&etcdctl.output().unwrap().stdout).trim(), "/blue/configmaps/default/kept");

    drop(member);
    server.eventually_says("/readyz", "[-]store failed");
    let refused = server.kubectl(&["create", "configmap", "lost", "--from-literal=a=1"]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("etcd at"), "{refused:?}");
    let _member = etcd.start();
    server.eventually_says("/readyz", "ok");
    assert_eq!(server.must(&["get", "configmap", "kept", "-o=jsonpath={.data.a}"]), "1");
}

fn store(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fairlead")).arg("store").args(arguments).output().unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn must(arguments: &[&str]) -> String {
    let (code, said) = store(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

fn refused(arguments: &[&str], part: &str) {
    let (code, said) = store(arguments);
    assert!(code == Some(1) && said.contains(part), "{arguments:?} exits with {code:?}: {said}");
}

#[test]
fn objects_move_between_stores_and_nothing_else_changes() {
    const MAPS: [&str; 4] = ["get", "configmaps", "-A", "-o=jsonpath={.items[*].data.a}"];
    const VERSION: [&str; 4] = ["get", "configmap", "moved", "-o=jsonpath={.metadata.resourceVersion}"];
    let etcd = Etcd::new();
    let _member = etcd.start();
    let dir = |name: &str| format!("--state-dir={}", etcd.path(name).display());
    let endpoints = format!("--etcd-endpoints={}", etcd.url);
    let file = etcd.path("objects.snapshot").display().to_string();

    refused(&["snapshot", &file, &dir("absent")], "has no store; check --state-dir");
    let server = Server::start(&etcd.path("first"), &[]);
    server.must(&["create", "configmap", "moved", "--from-literal=a=moved-with-care"]);
    let (maps, version) = (server.must(&MAPS), server.must(&VERSION));
    refused(&["snapshot", &file, &dir("first")], "the server must be stopped for this");
    drop(server);

    let said = must(&["snapshot", &file, &dir("first")]);
    assert!(said.contains("read again and equal, SHA-256"), "{said}");
    let digest = said.split("SHA-256 ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert!(must(&["restore", &file, &dir("second")]).contains(&digest));
    refused(&["restore", &file, &dir("second")], "copy into a new directory");
    let server = Server::start(&etcd.path("second"), &[]);
    assert_eq!((server.must(&MAPS), server.must(&VERSION)), (maps.clone(), version));
    drop(server);

    let to_etcd = ["migrate", "--from=embedded", "--to=etcd", &endpoints];
    assert!(must(&[&to_etcd[..], &[&dir("first")]].concat()).contains(&digest));
    refused(&[&to_etcd[..], &[&dir("first")]].concat(), "copy into an empty store");
    let server = Server::start(&etcd.path("third"), &["--store=etcd", &endpoints]);
    assert_eq!(server.must(&MAPS), maps);
    let version = server.must(&VERSION);
    drop(server);

    must(&["migrate", "--from=etcd", "--to=embedded", &endpoints, &dir("fourth")]);
    let server = Server::start(&etcd.path("fourth"), &[]);
    assert_eq!((server.must(&MAPS), server.must(&VERSION)), (maps, version));
    drop(server);

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    refused(&["restore", &file, &dir("fifth")], "is damaged");
    assert!(!etcd.path("fifth").exists());
}

/// A small file system of its own.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let dir = TempDir::with_prefix("fairlead-store-disk-").unwrap();
        let options = Some("size=80m,mode=0700");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::MS_NOSUID, options).expect("root can mount");
        Self(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_server_on_a_full_disk_says_so_and_goes_on_when_there_is_space() {
    const CREATES_MAX: usize = 40;
    let disk = Disk::new();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 40 << 20]).unwrap();
    let elsewhere = TempDir::new().unwrap();
    let payload = elsewhere.path().join("payload");
    std::fs::write(&payload, vec![b'x'; 900 << 10]).unwrap();
    let server = Server::start(&disk.0.path().join("state"), &[]);
    let from_file = format!("--from-file={}", payload.display());
    let mut stored = 0;
    let refusal = loop {
        let output = server.kubectl(&["create", "configmap", &format!("large-{stored}"), &from_file]);
        if !output.status.success() {
            break text(&output.stderr);
        }
        stored += 1;
        assert!(stored < CREATES_MAX, "the disk does not fill up");
    };
    assert!(refusal.contains("accepts no writes") && refusal.contains("free some space"), "{refusal}");
    assert!(stored > 0);
    server.eventually_says("/readyz", "[-]store failed");
    assert_eq!(server.must(&["get", "--raw", "/livez"]), "ok");
    server.must(&["get", "configmap", "large-0", "-o=name"]);
    std::fs::remove_file(&ballast).unwrap();
    server.eventually_says("/readyz", "ok");
    server.must(&["create", "configmap", "after", &from_file]);
    server.must(&["get", "configmap", &format!("large-{}", stored - 1), "-o=name"]);
}
