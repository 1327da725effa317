//! Two API servers on one etcd: what one gives away the other does not, and what one writes the other sees.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "api/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod support;

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::Server;
use tempfile::TempDir;
use tokio::task::JoinSet;

use fairlead_store::{EtcdConfig, EtcdStore};

/// A private etcd, which ends with the test.
struct Etcd {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl Etcd {
    fn start() -> Self {
        let dir = TempDir::with_prefix("fairlead-two-servers-").unwrap();
        let [client, peer] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = [client, peer].map(|socket| socket.local_addr().unwrap().port());
        let url = format!("http://127.0.0.1:{client}");
        let child = Command::new("etcd")
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .arg("--log-level=error")
            .stdout(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian package etcd-server)");
        Self { child, url, _dir: dir }
    }

    /// A server with a connection of its own.
    async fn server(&self) -> Server {
        let store = EtcdStore::connect(&EtcdConfig::new(vec![self.url.clone()])).await.unwrap();
        Server::start_on(TempDir::new().unwrap(), Arc::new(store)).await
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_etcd_are_consistent() {
    let etcd = Etcd::start();
    let servers = [etcd.server().await, etcd.server().await];
    let clients = [servers[0].client(), servers[1].client()];
    let create = PostParams::default();

    // A quota made on one server holds on both at once.
    let quotas: Api<ResourceQuota> = Api::default_namespaced(clients[0].clone());
    let quota = from(json!({ "metadata": { "name": "q" }, "spec": { "hard": { "pods": "10" } } }));
    quotas.create(&create, &quota).await.unwrap();
    let mut writers = JoinSet::new();
    for n in 0..64 {
        let pods: Api<Pod> = Api::default_namespaced(clients[n % 2].clone());
        let containers = json!([{ "name": "c", "image": "i" }]);
        let pod: Pod =
            from(json!({ "metadata": { "name": format!("p{n}") }, "spec": { "containers": containers } }));
        writers.spawn(async move { pods.create(&PostParams::default(), &pod).await.is_ok() });
    }
    let made = writers.join_all().await.into_iter().filter(|made| *made).count();
    assert_eq!(made, 10);
    for client in &clients {
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 10);
    }

    // Addresses and node ports are handed out once.
    let mut writers = JoinSet::new();
    for n in 0..30 {
        let services: Api<Service> = Api::default_namespaced(clients[n % 2].clone());
        let spec = json!({ "type": "NodePort", "ports": [{ "port": 80 }] });
        let service: Service = from(json!({ "metadata": { "name": format!("s{n}") }, "spec": spec }));
        writers.spawn(async move { services.create(&PostParams::default(), &service).await.unwrap() });
    }
    assert_eq!(writers.join_all().await.len(), 30);
    let services: Api<Service> = Api::default_namespaced(clients[1].clone());
    let mut given = HashSet::new();
    for service in services.list(&ListParams::default()).await.unwrap() {
        let spec = service.spec.unwrap();
        assert!(given.insert(spec.cluster_ip.unwrap()));
        let ports = spec.ports.unwrap();
        assert!(ports[0].node_port.is_none_or(|port| given.insert(port.to_string())));
    }

    // A watch on one server sees what is written through the other, in order.
    let [here, there]: [Api<ConfigMap>; 2] = clients.clone().map(Api::default_namespaced);
    let from_here = here.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = std::pin::pin!(here.watch(&WatchParams::default(), &from_here).await.unwrap());
    for name in ["a", "b"] {
        there.create(&create, &from(json!({ "metadata": { "name": name } }))).await.unwrap();
    }
    there.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => format!("+{}", map.metadata.name.unwrap()),
            WatchEvent::Deleted(map) => format!("-{}", map.metadata.name.unwrap()),
            _ => continue,
        });
    }
    assert_eq!(seen, ["+a", "+b", "-a"]);
    for server in servers {
        server.stop().await;
    }
}
