//! Private etcd members: processes of our own, on free ports of the loopback, in a directory that goes away.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};
use fairlead_store::{EtcdConfig, EtcdStore};
use tempfile::TempDir;

/// What `https` needs; paths of PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A cluster of members.
pub(crate) struct Members {
    members: Vec<Member>,
    pub(crate) dir: TempDir,
}

struct Member {
    args: Vec<String>,
    url: String,
    process: Option<Child>,
}

impl Members {
    /// Starts `count` members; they find each other in their own time.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, |_| None)
    }

    pub(crate) fn start_with(count: usize, tls: impl Fn(&Path) -> Option<Tls>) -> Self {
        let dir = TempDir::with_prefix("fairlead-store-etcd-").unwrap();
        let tls = tls(dir.path());
        let ports = free_ports(count * 2);
        let peer = |n: usize| format!("http://127.0.0.1:{}", ports[count + n]);
        let cluster: Vec<_> = (0..count).map(|n| format!("m{n}={}", peer(n))).collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let members = (0..count).map(|n| {
            let url = format!("{scheme}://127.0.0.1:{}", ports[n]);
            let mut args = vec![
                format!("--name=m{n}"),
                format!("--data-dir={}", dir.path().join(format!("m{n}")).display()),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={}", peer(n)),
                format!("--initial-advertise-peer-urls={}", peer(n)),
                format!("--initial-cluster={}", cluster.join(",")),
                "--initial-cluster-state=new".to_owned(),
                "--log-level=error".to_owned(),
            ];
            if let Some(tls) = &tls {
                args.push("--client-cert-auth".to_owned());
                args.push(format!("--trusted-ca-file={}", tls.ca.display()));
                args.push(format!("--cert-file={}", tls.cert.display()));
                args.push(format!("--key-file={}", tls.key.display()));
            }
            Member { args, url, process: None }
        });
        let mut members = Self { members: members.collect(), dir };
        (0..count).for_each(|n| members.restart(n));
        members
    }

    /// Kills one, as a power cut would.
    pub(crate) fn kill(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn restart(&mut self, n: usize) {
        let member = &mut self.members[n];
        let mut command = Command::new("etcd");
        command.args(&member.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        member.process = Some(command.spawn().expect("etcd is installed (Debian package etcd-server)"));
    }

    /// A configuration whose keys are below the prefix `/name`.
    pub(crate) fn config(&self, name: &str) -> EtcdConfig {
        let endpoints = self.members.iter().map(|member| member.url.clone()).collect();
        let (root, prefix) = (String::new(), format!("/{name}"));
        EtcdConfig { root, prefix, ..EtcdConfig::new(endpoints) }
    }

    pub(crate) async fn store(&self, name: &str) -> EtcdStore {
        EtcdStore::connect(&self.config(name)).await.unwrap()
    }

    /// A store whose watchers may read everything at the end.
    pub(crate) async fn connect_roomy(&self, name: &str) -> EtcdStore {
        let config = EtcdConfig { watch_queue_len_max: 1 << 20, ..self.config(name) };
        EtcdStore::connect(&config).await.unwrap()
    }

    /// The position of the leader; waits for an election.
    pub(crate) async fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            for (n, member) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some())
            {
                let options = ConnectOptions::new().with_timeout(Duration::from_secs(1));
                let mut client = Client::connect([&member.url], Some(options)).await.unwrap();
                let Ok(status) = client.status().await else { continue };
                if status.leader() != 0 && status.leader() == status.header().unwrap().member_id() {
                    return n;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no leader was elected");
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|n| self.kill(n));
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}
