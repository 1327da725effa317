//! The processes that are measured: the API server, and etcd beside it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::client::ConfigExt;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection to a server.
pub(super) type Connection = TlsStream<TcpStream>;

/// Where servers listen.
pub(super) const HOST: &str = "127.0.0.1";

/// How long a process may take to serve.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(2);
/// How long a server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(4);

/// A running `fairlead server`.
pub(super) struct Server {
    process: Process,
    pub(super) client: Client,
    pub(super) ready_in: Duration,
    port: u16,
    tls: TlsConnector,
}

/// Where a server stores.
#[derive(Clone, Copy)]
pub(super) enum Store<'a> {
    /// In the embedded store, every write synced.
    Embedded,
    /// In the embedded store, with deferred commits.
    Deferred,
    /// In etcd.
    Etcd(&'a Etcd),
}

/// A running etcd.
pub(super) struct Etcd {
    _process: Process,
    url: String,
}

/// A child and its directory; both end with it.
struct Process {
    child: Child,
    dir: PathBuf,
}

impl Process {
    fn start(name: &str, command: impl FnOnce(&Path) -> Command) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("fairlead-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = dir.join("log");
        let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = command(&dir);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, dir })
    }

    fn ended(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            bail!("the process ended ({status}):\n{log}");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is ours and may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Etcd {
    pub(super) fn start() -> Result<Self> {
        let (client, peer) = (free_port()?, free_port()?);
        let url = format!("http://127.0.0.1:{client}");
        let process = Process::start("etcd", |dir| {
            let mut command = Command::new("etcd");
            command.arg(format!("--data-dir={}", dir.join("data").display()));
            command.arg(format!("--listen-client-urls={url}")).arg(format!("--advertise-client-urls={url}"));
            command.arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}")).arg("--log-level=error");
            command
        })?;
        Ok(Self { _process: process, url })
    }
}

impl Server {
    /// Starts a server on a store, and waits until it is ready.
    pub(super) async fn start(store: Store<'_>) -> Result<Self> {
        let binary = std::env::var_os("FAIRLEAD_BIN").unwrap_or_else(|| "fairlead".into());
        let (port, feed) = (free_port()?, free_port()?);
        let clock = Instant::now();
        let mut process = Process::start("server", |dir| {
            let mut command = Command::new(binary);
            command.arg("server").arg("--state-dir").arg(dir).arg("--kubeconfig").arg(dir.join("kubeconfig"));
            command.args(["--listen", &format!("{HOST}:{port}")]);
            command.args(["--feed-listen", &format!("{HOST}:{feed}")]);
            match store {
                Store::Embedded => {}
                Store::Deferred => drop(command.args(["--store-durability", "deferred"])),
                Store::Etcd(etcd) => drop(command.args(["--store", "etcd", "--etcd-endpoints", &etcd.url])),
            }
            command
        })?;
        let kubeconfig = process.dir.join("kubeconfig");
        let ready = async {
            while !kubeconfig.exists() {
                process.ended()?;
                sleep(POLL_EVERY).await;
            }
            let config = config(&kubeconfig).await?;
            let tls = TlsConnector::from(Arc::new(config.rustls_client_config()?));
            let client = Client::try_from(config)?;
            while !is_ready(&client).await {
                process.ended()?;
                sleep(POLL_EVERY).await;
            }
            anyhow::Ok((client, tls))
        };
        let (client, tls) =
            tokio::time::timeout(PATIENCE, ready).await.context("the server is not ready")??;
        let ready_in = clock.elapsed();
        Ok(Self { process, client, ready_in, port, tls })
    }

    /// A connection of its own, as the administrator.
    pub(super) async fn dial(&self) -> Result<Connection> {
        let tcp = TcpStream::connect((HOST, self.port)).await?;
        Ok(self.tls.connect(HOST.try_into()?, tcp).await?)
    }

    /// Resident memory in bytes, when the server has been left alone for a moment.
    pub(super) async fn resident(&self) -> Result<u64> {
        sleep(SETTLE).await;
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
        Ok(kib * 1024)
    }

    /// Processor time that the server has used so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu(&self.process.child.id().to_string())
    }
}

/// Processor time that this process has used so far.
pub(super) fn own_cpu() -> Result<Duration> {
    cpu("self")
}

/// `/proc/<pid>/stat`, in ticks of 10 ms.
fn cpu(pid: &str) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').context("no command in stat")?.1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

async fn config(kubeconfig: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    Ok(config)
}

async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new()).expect("the request is valid");
    client.request_text(request).await.is_ok()
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((HOST, 0))?.local_addr()?.port())
}
