//! The feed from end to end: API server, feed over mutual TLS, and a reader that loses its connection.

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use fairlead_apiserver::{ApiServer, Config, Pki};
use fairlead_feed::{Feed, FeedConfig, FeedTls, Pods};
use fairlead_model::{ObjectName, Prefix, Update, View};
use fairlead_store::{EmbeddedConfig, EmbeddedStore};
use fairlead_wire::{ConnectionState, FeedEndpoint, FeedSource, Subscription};
use http::{Request, Response};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Service},
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SERVER_NAME: &str = "feed.fairlead";

async fn api_server(directory: &Path) -> Client {
    let store = EmbeddedStore::open(&EmbeddedConfig::new(directory.join("store"))).expect("a store");
    let config = Config {
        state_dir: directory.to_owned(),
        listeners: Vec::new(),
        advertise: vec!["172.29.0.1".parse().expect("an address")],
        shares_store: false,
        server_names: Vec::new(),
        service_networks: vec!["10.96.0.0/16".parse().expect("a network")],
        service_node_ports: fairlead_apiserver::PortRange::default(),
        cluster_domain: "cluster.local".into(),
        cluster_dns: Vec::new(),
        admin_kubeconfig: None,
        admin_server_url: "https://127.0.0.1:6443".into(),
    };
    let api = ApiServer::new(config, Arc::new(store)).await.expect("an API server");
    Client::new(api.in_process(), "default")
}

/// One life of the feed.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(client: &Client, pki: &Pki, listener: TcpListener) -> Self {
        let issued = pki.issue("feed", &[], &[SERVER_NAME.to_owned()]).expect("a certificate");
        let tls = FeedTls {
            cert_pem: issued.cert_pem,
            key_pem: issued.key_pem,
            client_ca_pem: pki.ca_pem().to_owned(),
        };
        let config = FeedConfig { listeners: vec![listener], tls };
        let feed = Feed::new(config, client.clone()).await.expect("a feed");
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { feed.run(stop).await.expect("it serves") });
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("it ends");
    }
}

fn endpoint(pki: &Pki, listener: &TcpListener) -> FeedEndpoint {
    let issued = pki.issue("system:node:n1", &["system:nodes"], &[]).expect("a certificate");
    FeedEndpoint {
        url: format!("https://{}", listener.local_addr().expect("bound")),
        ca_pem: pki.ca_pem().to_owned(),
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
        server_name: SERVER_NAME.to_owned(),
    }
}

async fn create_service(client: &Client, name: &str) {
    let service =
        json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    let service: Service = serde_json::from_value(service).expect("a service");
    let api = Api::<Service>::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &service).await.expect("created");
}

async fn next(subscription: &mut Subscription) -> Update {
    tokio::time::timeout(Duration::from_secs(30), subscription.next()).await.expect("an update")
}

/// Applies updates until the view has the service; returns the kinds of updates that took.
async fn until_service(subscription: &mut Subscription, view: &mut View, name: &str) -> Vec<bool> {
    let name = ObjectName::new("default", name);
    let mut snapshots = Vec::new();
    while view.service(&name).is_none() {
        let update = next(subscription).await;
        snapshots.push(update.snapshot);
        view.apply(update);
    }
    snapshots
}

/// Applies updates until the view has exactly these networks of services.
async fn until_ranges(subscription: &mut Subscription, view: &mut View, expected: &[&str]) {
    let text = |network: &Prefix| format!("{}/{}", network.address, network.length);
    let known = |view: &View| view.service_networks().flat_map(|(_, all)| all).map(text).collect::<Vec<_>>();
    while known(view) != expected {
        view.apply(next(subscription).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_a_snapshot_then_deltas_and_survives_the_feed() {
    let directory = TempDir::new().expect("a directory");
    let client = api_server(directory.path()).await;
    let pki = Pki::open_or_create(&directory.path().join("feed-pki")).expect("an authority");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = endpoint(&pki, &listener);
    let feed = Running::start(&client, &pki, listener.try_clone().expect("a socket")).await;
    let mut subscription = Subscription::new(endpoint, "n1");
    let state = subscription.state();
    let mut view = View::default();

    let first = next(&mut subscription).await;
    assert!(first.snapshot);
    view.apply(first);
    assert!(view.has_namespace("default"));
    assert!(view.service(&ObjectName::new("default", "kubernetes")).is_some());
    assert_eq!(*state.borrow(), ConnectionState::Connected);

    create_service(&client, "one").await;
    assert_eq!(until_service(&mut subscription, &mut view, "one").await, [false], "a delta");
    // What readers do not need makes no update.
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).expect("a map");
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &map).await.expect("created");

    feed.stop().await;
    create_service(&client, "two").await;
    let feed = Running::start(&client, &pki, listener).await;
    let snapshots = until_service(&mut subscription, &mut view, "two").await;
    assert!(snapshots[0], "another life of the feed begins with a snapshot");
    assert!(view.service(&ObjectName::new("default", "one")).is_some());
    drop(subscription);
    feed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_another_authority_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let client = api_server(directory.path()).await;
    let pki = Pki::open_or_create(&directory.path().join("feed-pki")).expect("an authority");
    let other = Pki::open_or_create(&directory.path().join("other-pki")).expect("an authority");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stranger = FeedEndpoint { ca_pem: pki.ca_pem().to_owned(), ..endpoint(&other, &listener) };
    let feed = Running::start(&client, &pki, listener).await;
    let mut subscription = Subscription::new(stranger, "n1");
    let mut state = subscription.state();
    let broken = state.wait_for(|state| matches!(state, ConnectionState::Broken { .. }));
    tokio::select! {
        _ = subscription.next() => panic!("a stranger reads the feed"),
        state = tokio::time::timeout(Duration::from_secs(30), broken) => drop(state.expect("it is told")),
    }
    feed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_on_the_same_machine_reads_from_a_socket_and_of_one_nodes_pods() {
    let directory = TempDir::new().expect("a directory");
    let client = api_server(directory.path()).await;
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    for node in ["n1", "n2"] {
        let pod = json!({
            "metadata": { "name": format!("on-{node}") },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        pods.create(&PostParams::default(), &pod).await.expect("created");
        let status = json!({ "status": { "podIP": "10.244.0.9", "podIPs": [{ "ip": "10.244.0.9" }] } });
        let name = format!("on-{node}");
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("patched");
    }
    let path = directory.path().join("feed.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let api = client.clone();
    let feed = Feed::local(listener, client, Pods::OfNode("n1".into())).expect("a feed");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(feed.run(shutdown.clone()));
    let mut subscription = Subscription::new(FeedSource::Unix(path), "n1");
    let mut view = View::default();
    view.apply(next(&mut subscription).await);
    let names: Vec<_> = view.pods().map(|pod| &*pod.name.name).collect();
    assert_eq!(names, ["on-n1"]);
    assert!(view.service(&ObjectName::new("default", "kubernetes")).is_some());
    // Which ranges there are is told as they come and go.
    let ranges = Api::<ServiceCIDR>::all(api);
    let range = json!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["10.112.0.0/16"] } });
    let range: ServiceCIDR = serde_json::from_value(range).expect("a range");
    ranges.create(&PostParams::default(), &range).await.expect("created");
    until_ranges(&mut subscription, &mut view, &["10.96.0.0/16", "10.112.0.0/16"]).await;
    ranges.delete("more", &DeleteParams::default()).await.expect("deleted");
    until_ranges(&mut subscription, &mut view, &["10.96.0.0/16"]).await;
    drop(subscription);
    shutdown.cancel();
    task.await.expect("no panic").expect("it ends");
}

/// A client that may read what kube-proxy's role (`system:node-proxier`) lets it, and nothing else.
fn as_kube_proxy(client: Client) -> Client {
    const READABLE: [&str; 3] =
        ["/api/v1/nodes", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"];
    let answer = move |request: Request<Body>| {
        let client = client.clone();
        async move {
            if READABLE.contains(&request.uri().path()) {
                return client.send(request).await;
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                                "reason": "Forbidden", "message": format!("{} is forbidden", request.uri())});
            let body = Body::from(status.to_string().into_bytes());
            Ok(Response::builder().status(403).body(body).expect("a response"))
        }
    };
    Client::new(tower::service_fn(answer), "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_proxy_works_with_the_rights_of_kube_proxy() {
    let directory = TempDir::new().expect("a directory");
    let client = api_server(directory.path()).await;
    let path = directory.path().join("feed.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let feed =
        Feed::local(listener, as_kube_proxy(client.clone()), Pods::OfNode("n1".into())).expect("a feed");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(feed.run(shutdown.clone()));
    let mut subscription = Subscription::new(FeedSource::Unix(path), "n1");
    let mut view = View::default();
    let first = next(&mut subscription).await;
    assert!(first.snapshot);
    view.apply(first);
    assert!(view.service(&ObjectName::new("default", "kubernetes")).is_some());
    assert_eq!(view.pods().count(), 0);
    create_service(&client, "one").await;
    assert_eq!(until_service(&mut subscription, &mut view, "one").await, [false], "and goes on");
    drop(subscription);
    shutdown.cancel();
    task.await.expect("no panic").expect("it ends");
}
