//! The processes: the API server, the resolver that is measured, unbound.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{load, population::Population};
use crate::cluster::{binary, succeed};

/// How long a server may take to be of use.
const PATIENCE: Duration = Duration::from_secs(60);
/// The processor of the servers that are measured; the load runs on the others.
const SERVER_CPU: &str = "0";

/// A server that ends with this value.
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
}

/// The API server and its feed.
pub(super) struct ControlPlane {
    process: Process,
    feed: SocketAddr,
    state: PathBuf,
}

/// The resolver.
pub(super) struct Resolver {
    pub(super) process: Process,
}

/// The server to compare with.
pub(super) struct Unbound {
    pub(super) process: Process,
}

impl Process {
    fn spawn(command: &mut Command, log: &Path, address: SocketAddr) -> Result<Self> {
        let log = fs::File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, address })
    }

    /// Seconds of processor time that its threads have used.
    pub(super) fn cpu_secs(&self) -> Result<f64> {
        let file = format!("/proc/{}/stat", self.pid()?);
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let (_, fields) = stat.rsplit_once(") ").with_context(|| format!("{file} is unreadable"))?;
        let ticks: Vec<u64> =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        // USER_HZ has been 100 for every process that looks since Linux 2.4.
        Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
    }

    /// Resident memory.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let file = format!("/proc/{}/status", self.pid()?);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().next().context("no VmRSS")?.parse()?;
        Ok(kib * 1024)
    }

    fn pid(&self) -> Result<u32> {
        self.child.id().context("a server ended by itself")
    }
}

impl ControlPlane {
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let state = folder.join("state");
        let (api, feed) = (free_address()?, free_address()?);
        let mut command = Command::new(binary()?);
        command.args(["server", "--listen", &api.to_string(), "--feed-listen", &feed.to_string()]);
        command.arg("--state-dir").arg(&state).arg("--kubeconfig-server").arg(format!("https://{api}"));
        let process = Process::spawn(&mut command, &folder.join("server.log"), api)?;
        let control = Self { process, feed, state };
        eventually("the API server answers", async || {
            let client = control.client().await?;
            client.apiserver_version().await.context("no answer").map(drop)
        })
        .await?;
        Ok(control)
    }

    /// A client with an administrator's rights.
    pub(super) async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.state.join("admin.kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }
}

impl Resolver {
    /// One worker that follows the API server and forwards to `upstream`.
    pub(super) async fn start(folder: &Path, control: &ControlPlane, upstream: SocketAddr) -> Result<Self> {
        let kubeconfig = folder.join("node.kubeconfig");
        let url = format!("https://{}", control.process.address);
        let mut issue = Command::new(binary()?);
        issue
            .args(["kubeconfig", "--node", "bench", "--server", &url])
            .arg("--state-dir")
            .arg(&control.state);
        fs::write(&kubeconfig, succeed(&mut issue).await?)?;
        let address = free_address()?;
        let mut command = pinned(binary()?);
        command.args(["dns", "--workers", "1", "--metrics", "none", "--ready", "none"]);
        command.args(["--feed", &format!("https://{}", control.feed)]).arg("--kubeconfig").arg(&kubeconfig);
        command.args(["--listen", &address.to_string(), "--forward", &upstream.to_string()]);
        let process = Process::spawn(&mut command, &folder.join("dns.log"), address)?;
        let resolver = Self { process };
        // Of the names that every cluster has.
        resolver.wait_for("kubernetes.default.svc.cluster.local").await?;
        Ok(resolver)
    }

    /// Waits until a name has an address.
    pub(super) async fn wait_for(&self, name: &str) -> Result<()> {
        eventually(&format!("{name} is answered"), async || {
            ensure!(load::ask(self.process.address, name)? > 0, "it has no address");
            Ok(())
        })
        .await
    }
}

impl Unbound {
    /// One thread with the same names.
    pub(super) async fn start(folder: &Path, population: &Population, upstream: SocketAddr) -> Result<Self> {
        let address = free_address()?;
        let mut text = format!(
            "server:\n  interface: 127.0.0.1\n  port: {}\n  num-threads: 1\n  username: \"\"\n  chroot: \"\"\n  \
             directory: \"{}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  do-not-query-localhost: no\n  \
             module-config: \"iterator\"\n  qname-minimisation: no\n  so-reuseport: yes\n  so-rcvbuf: 4m\n  \
             msg-cache-size: 64m\n  rrset-cache-size: 128m\n  num-queries-per-thread: 4096\n  outgoing-range: 8192\n  \
             local-zone: \"cluster.local.\" static\n",
            address.port(),
            folder.display()
        );
        for (name, ip) in population.addresses() {
            text.push_str(&format!("  local-data: \"{name}. 5 IN A {ip}\"\n"));
        }
        text.push_str(&format!(
            "forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\nremote-control:\n  control-enable: no\n",
            upstream.ip(),
            upstream.port()
        ));
        let file = folder.join("unbound.conf");
        fs::write(&file, text)?;
        let mut command = pinned("unbound".into());
        command.args(["-d", "-c"]).arg(&file);
        let process = Process::spawn(&mut command, &folder.join("unbound.log"), address)?;
        let name = population.last_name();
        eventually("unbound answers", async || {
            ensure!(load::ask(address, &name)? > 0, "no address");
            Ok(())
        })
        .await?;
        Ok(Self { process })
    }
}

/// A command on the servers' processor.
fn pinned(program: PathBuf) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", SERVER_CPU]).arg(program);
    command
}

/// A command on the other processors, so that a server is not interrupted by those that ask it.
pub(super) fn beside(program: &str) -> Result<Command> {
    let processors = std::thread::available_parallelism()?.get();
    ensure!(processors > 1, "the load needs a processor besides the servers'");
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &format!("1-{}", processors - 1)]).arg(program);
    Ok(command)
}

/// A port of the loopback address that nobody uses, UDP and TCP.
fn free_address() -> Result<SocketAddr> {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = tcp.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

/// Tries until it succeeds; the last failure is told.
async fn eventually(what: &str, mut attempt: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not within {PATIENCE:?}: {what}")));
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
