//! A real agent in a node's namespace.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use fairlead_agent::{Agent, Config, FeedEndpoint, ProxyMode, ServiceConfig};
use fairlead_kernel::remove_node;
use fairlead_kubelet::network::{Attachment, PodIdentity, PodNetwork};
use fairlead_testkit::{Node, netns::run_in, topology::UPLINK};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

const HEALTH_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// How long tasks may take to notice that their runtime ends.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Removes everything when it is dropped.
pub(crate) struct RunningAgent {
    netns: PathBuf,
    pub(crate) config: Config,
    runtime: Runtime,
    running: Option<Running>,
}

struct Running {
    network: Arc<dyn PodNetwork>,
    ready: watch::Receiver<bool>,
    cgroup: PathBuf,
}

/// A runtime whose threads are in the node's namespace.
pub(crate) fn runtime_in(netns: &Path) -> Runtime {
    run_in(netns, || {
        let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        builder.expect("a runtime")
    })
}

impl RunningAgent {
    pub(crate) fn start(name: &str, node: &Node, feed: FeedEndpoint, directory: &Path) -> Self {
        let id = format!("fltest-agent-{}", process::id());
        let config = Config {
            node_name: name.into(),
            feed: feed.into(),
            pod_network: true,
            bpffs_dir: Path::new("/sys/fs/bpf").join(&id).join(name),
            cgroup_dir: Path::new(&id).join(name),
            netns_dir: directory.join(name).join("netns"),
            netns_prefix: "pod-".into(),
            uplink: UPLINK.into(),
            state_dir: directory.join(name).join("state"),
            proxy_mode: ProxyMode::Ebpf,
            services: ServiceConfig::default(),
            flow_events: true,
            admin_socket: directory.join(name).join("admin.sock"),
            dns_heartbeat: None,
            health_listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTH_PORT))],
            metrics_listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))],
        };
        let mut agent =
            Self { netns: node.netns.path(), config, runtime: runtime_in(&node.netns.path()), running: None };
        agent.launch();
        agent
    }

    fn launch(&mut self) {
        let config = self.config.clone();
        let agent = self.block_on(Agent::new(config)).unwrap_or_else(|error| panic!("{error}"));
        let (network, ready) = (agent.network(), agent.ready());
        let cgroup = agent.cgroup().to_owned();
        self.runtime.spawn(agent.run(CancellationToken::new()));
        self.running = Some(Running { network, ready, cgroup });
    }

    /// Ends the agent without giving it a chance to do anything, and starts another.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.launch();
    }

    pub(crate) fn kill(&mut self) {
        let runtime = std::mem::replace(&mut self.runtime, runtime_in(&self.netns));
        // With the runtime all tasks go, and with them all sockets and locks.
        runtime.shutdown_timeout(SHUTDOWN);
        self.running = None;
    }

    pub(crate) fn wait_ready(&self) {
        let mut ready = self.running().ready.clone();
        self.block_on(async { ready.wait_for(|ready| *ready).await.map(|ready| *ready) }).expect("runs");
    }

    pub(crate) fn attach(&self, name: &str) -> Attachment {
        self.attach_all(&[name]).remove(0)
    }

    /// At the same time, as a kubelet does after a start.
    pub(crate) fn attach_all(&self, names: &[impl AsRef<str> + Sync]) -> Vec<Attachment> {
        let network = &self.running().network;
        let attach = |name: &str| {
            let uid = format!("uid-{name}");
            let identity = PodIdentity { namespace: "demo".into(), name: name.into(), uid };
            async move { network.attach(&identity).await }
        };
        let all = futures::future::try_join_all(names.iter().map(|name| attach(name.as_ref())));
        self.block_on(all).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn detach(&self, name: &str) {
        self.block_on(self.running().network.detach(&format!("uid-{name}"))).expect("detaches");
    }

    pub(crate) fn retain(&self, names: &[&str]) {
        let uids: Vec<String> = names.iter().map(|name| format!("uid-{name}")).collect();
        self.block_on(self.running().network.retain(&uids)).expect("retains");
    }

    /// Why another agent with this configuration does not start.
    pub(crate) fn second_instance(&self) -> String {
        let second = self.block_on(Agent::new(self.config.clone()));
        second.err().expect("refused").to_string()
    }

    pub(crate) fn cgroup(&self) -> &Path {
        &self.running().cgroup
    }

    /// Status line and body that the administration endpoint answers.
    pub(crate) fn admin(&self, path: &str) -> (String, String) {
        request(UnixStream::connect(&self.config.admin_socket).expect("listens"), path)
    }

    pub(crate) fn metrics(&self, path: &str) -> (String, String) {
        self.http(METRICS_PORT, path)
    }

    pub(crate) fn health(&self, path: &str) -> (String, String) {
        self.http(HEALTH_PORT, path)
    }

    fn http(&self, port: u16, path: &str) -> (String, String) {
        run_in(&self.netns, || {
            request(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("listens"), path)
        })
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("running")
    }

    fn block_on<F: Future<Output: Send> + Send>(&self, future: F) -> F::Output {
        run_in(&self.netns, || self.runtime.block_on(future))
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        self.kill();
        let failures = remove_node(&self.config.footprint());
        let _ = self.config.bpffs_dir.parent().map(fs::remove_dir);
        let cgroups = fairlead_testkit::cgroup::mount_point();
        let _ = self.config.cgroup_dir.parent().map(|parent| fs::remove_dir(cgroups.join(parent)));
        if !std::thread::panicking() {
            assert!(failures.is_empty(), "{failures:?}");
        }
    }
}

fn request(mut stream: impl Read + Write, path: &str) -> (String, String) {
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}
