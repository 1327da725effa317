//! Two `fairlead server` processes on one etcd: many clients of both, and then one server is killed.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::HashSet,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Node, Pod, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(90);
const CREATORS: usize = 64;
/// What the quota allows.
const PODS: usize = 40;
const SERVICES_PER_CREATOR: usize = 3;
/// Where others are told that they reach the servers.
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// What each Service gets: addresses of two families, a node port, and a port for health checks.
const CLAIMS_PER_SERVICE: usize = 4;

/// A process of ours, killed with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Process {
    /// An orderly end.
    fn stop(mut self) {
        signal::kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn etcd(dir: &Path, url: &str) -> Process {
    Process::start(
        Command::new("etcd")
            .arg(format!("--data-dir={}", dir.display()))
            .arg("--log-level=error")
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", free_port())),
    )
}

fn server(state: &Path, etcd: &str, address: &str) -> Process {
    let port = free_port();
    Process::start(
        Command::new(env!("CARGO_BIN_EXE_fairlead"))
            .arg("server")
            .arg(format!("--state-dir={}", state.display()))
            .arg(format!("--advertise-address={address}"))
            .arg(format!("--kubeconfig-server=https://127.0.0.1:{port}"))
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--feed-listen=127.0.0.1:{}", free_port()))
            .args(["--store=etcd", &format!("--etcd-endpoints={etcd}")]),
    )
}

/// A client of a server, when that is ready.
async fn client(state: &Path) -> Client {
    let file: PathBuf = state.join("admin.kubeconfig");
    eventually("the server is ready", async || {
        let kubeconfig = Kubeconfig::read_from(&file).ok()?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.ok()?;
        let client = Client::try_from(config).ok()?;
        let own = Api::<Service>::default_namespaced(client.clone()).get("kubernetes").await;
        own.is_ok().then_some(client)
    })
    .await
}

async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str) -> Pod {
    let containers = json!([{ "name": "c", "image": "i" }]);
    from(json!({ "metadata": { "name": name }, "spec": { "containers": containers } }))
}

/// What only one Service may have.
fn claims(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref().unwrap();
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let ports = ports.chain(spec.health_check_node_port).map(|port| port.to_string());
    spec.cluster_ips.iter().flatten().filter(|ip| *ip != "None").cloned().chain(ports).collect()
}

/// What a watch from the beginning of the test says until it has said so many times that something was added.
async fn order(pods: Api<Pod>, since: String, adds: usize) -> Vec<String> {
    let mut said = Vec::new();
    let mut events = std::pin::pin!(pods.watch(&WatchParams::default(), &since).await.unwrap());
    while said.iter().filter(|line: &&String| line.starts_with('+')).count() < adds {
        let (sign, pod) = match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(pod) => ('+', pod),
            WatchEvent::Modified(pod) => ('~', pod),
            WatchEvent::Deleted(pod) => ('-', pod),
            _ => continue,
        };
        let meta = pod.metadata;
        said.push(format!("{sign}{}@{}", meta.name.unwrap(), meta.resource_version.unwrap()));
    }
    said
}

/// Many clients create pods until the quota says no, change and delete some, and create Services.
async fn create_all(clients: &[Client; 2]) -> usize {
    let mut creators = JoinSet::new();
    for n in 0..CREATORS {
        let [client, other] = [clients[n % 2].clone(), clients[(n + 1) % 2].clone()];
        creators.spawn(async move {
            let pods: Api<Pod> = Api::default_namespaced(client.clone());
            let elsewhere: Api<Pod> = Api::default_namespaced(other);
            let name = format!("p{n}");
            let is_made = pods.create(&PostParams::default(), &pod(&name)).await.is_ok();
            if is_made {
                let label = Patch::Merge(json!({ "metadata": { "labels": { "by": "the-other" } } }));
                elsewhere.patch(&name, &PatchParams::default(), &label).await.unwrap();
            }
            let services: Api<Service> = Api::default_namespaced(client);
            for m in 0..SERVICES_PER_CREATOR {
                let spec = json!({
                    "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                    "ipFamilyPolicy": "RequireDualStack", "ports": [{ "port": 80 }],
                });
                let service = from(json!({ "metadata": { "name": format!("s{n}-{m}") }, "spec": spec }));
                let service: Service = services.create(&PostParams::default(), &service).await.unwrap();
                assert_eq!(claims(&service).len(), CLAIMS_PER_SERVICE, "{service:?}");
            }
            usize::from(is_made)
        });
    }
    creators.join_all().await.into_iter().sum()
}

async fn used(client: &Client) -> String {
    let quotas: Api<ResourceQuota> = Api::default_namespaced(client.clone());
    quotas.get("q").await.unwrap().status.unwrap().used.unwrap()["pods"].0.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_hand_nothing_out_twice_and_one_goes_on_without_the_other() {
    let dir = TempDir::with_prefix("fairlead-two-servers-").unwrap();
    let url = format!("http://127.0.0.1:{}", free_port());
    let _etcd = etcd(&dir.path().join("etcd"), &url);
    let states = ["one", "two"].map(|name| dir.path().join(name));
    let first = server(&states[0], &url, ADDRESSES[0]);
    let one = client(&states[0]).await;
    // All servers of a cluster have one authority.
    std::fs::create_dir_all(states[1].join("pki")).unwrap();
    for name in ["ca.crt", "ca.key"] {
        std::fs::copy(states[0].join("pki").join(name), states[1].join("pki").join(name)).unwrap();
    }
    let _second = server(&states[1], &url, ADDRESSES[1]);
    let clients = [one, client(&states[1]).await];
    api_is_at(&clients[0], &ADDRESSES).await;

    let quotas: Api<ResourceQuota> = Api::default_namespaced(clients[0].clone());
    let hard = json!({ "pods": PODS.to_string() });
    let quota = from(json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } }));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let pods = clients.clone().map(Api::<Pod>::default_namespaced);
    let since = pods[0].list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let orders = pods.clone().map(|pods| tokio::spawn(order(pods, since.clone(), PODS)));

    assert_eq!(create_all(&clients).await, PODS);
    let mut given = HashSet::new();
    for service in Api::<Service>::all(clients[1].clone()).list(&ListParams::default()).await.unwrap() {
        for claim in claims(&service) {
            assert!(
                given.insert(claim.clone()),
                "{claim} is given twice, again to {:?}",
                service.metadata.name
            );
        }
    }
    assert!(given.len() >= CREATORS * SERVICES_PER_CREATOR * CLAIMS_PER_SERVICE);
    let [here, there] = orders.map(async |order| order.await.unwrap());
    assert_eq!(here.await, there.await, "both servers tell the same in the same order");
    for client in &clients {
        assert_eq!(used(client).await, PODS.to_string());
    }

    // One of them holds the leases of the control loops; it is the one that is killed.
    let leases = clients.clone().map(|client| Api::<Lease>::namespaced(client, "kube-system"));
    let holder = async |lease: &str| {
        let found = leases[1].get(lease).await.ok()?;
        found.spec?.holder_identity.filter(|holder| !holder.is_empty())
    };
    let names = ["kube-controller-manager", "kube-scheduler"];
    let before = [holder(names[0]).await.unwrap(), holder(names[1]).await.unwrap()];
    drop(first);
    assert_eq!(used(&clients[1]).await, PODS.to_string());
    pods[1].delete("nobody", &DeleteParams::default()).await.unwrap_err();
    assert!(pods[1].create(&PostParams::default(), &pod("over")).await.is_err(), "the quota holds");
    quotas_off(&clients[1]).await;
    take_over(&clients[1], names, &before, holder).await;
    api_is_at(&clients[1], &ADDRESSES[1..]).await;

    // One that comes back is there, and one that is stopped takes leave before it ends.
    let again = server(&states[0], &url, ADDRESSES[0]);
    api_is_at(&clients[1], &ADDRESSES).await;
    again.stop();
    assert_eq!(endpoints(&clients[1]).await, ADDRESSES[1..]);
}

async fn endpoints(client: &Client) -> Vec<String> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let endpoints = slices.get("kubernetes").await.unwrap().endpoints.unwrap_or_default();
    endpoints.into_iter().flat_map(|endpoint| endpoint.addresses).collect()
}

/// The endpoints of the Service `kubernetes` become these.
async fn api_is_at(client: &Client, expected: &[&str]) {
    eventually("the API is at the servers that there are", async || {
        (endpoints(client).await == expected).then_some(())
    })
    .await;
}

async fn quotas_off(client: &Client) {
    let quotas: Api<ResourceQuota> = Api::default_namespaced(client.clone());
    quotas.delete("q", &DeleteParams::default()).await.unwrap();
}

/// The other server takes the leases, and then makes pods of a Deployment and binds them, each once.
async fn take_over(
    client: &Client,
    names: [&str; 2],
    before: &[String; 2],
    holder: impl AsyncFn(&str) -> Option<String>,
) {
    let node = json!({
        "metadata": { "name": "n1" },
        "status": { "allocatable": { "cpu": "8", "memory": "8Gi", "pods": "110" },
                    "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &from(node.clone())).await.unwrap();
    let status = Patch::Merge(json!({ "status": node["status"] }));
    nodes.patch_status("n1", &PatchParams::default(), &status).await.unwrap();
    let labels = json!({ "app": "web" });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod("x").spec });
    let spec = json!({ "replicas": 3, "selector": { "matchLabels": labels }, "template": template });
    let deployment: Deployment = from(json!({ "metadata": { "name": "web" }, "spec": spec }));
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    for (name, before) in names.into_iter().zip(before) {
        eventually("the other server holds the lease", async || {
            holder(name).await.filter(|holder| holder != before)
        })
        .await;
    }
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let bound = eventually("three pods are bound", async || {
        let web = pods.list(&ListParams::default().labels("app=web")).await.ok()?.items;
        let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        (web.iter().filter(|pod| is_bound(pod)).count() == 3).then_some(web)
    })
    .await;
    assert_eq!(bound.len(), 3);
}
