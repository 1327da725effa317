//! A control plane on a directory of its own.

use std::{future::Future, net::TcpListener, sync::Arc, time::Duration};

use fairlead_apiserver::{ApiServer, Config};
use fairlead_controllers::{Controllers, ControllersConfig};
use fairlead_scheduler::Scheduler;
use fairlead_store::{EmbeddedConfig, EmbeddedStore};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kubelet;

/// The administrator's, in the directory.
const KUBECONFIG: &str = "kubeconfig";

/// Everything that runs, until it is dropped.
pub(crate) struct ControlPlane {
    pub(crate) client: Client,
    directory: TempDir,
    _tasks: JoinSet<()>,
}

impl ControlPlane {
    /// Starts everything, with `nodes` Ready nodes.
    pub(crate) async fn start(nodes: usize, config: ControllersConfig) -> Self {
        // RUST_LOG shows what happens; a second test finds the subscriber set.
        let logs = tracing_subscriber::EnvFilter::from_default_env();
        drop(tracing_subscriber::fmt().with_env_filter(logs).with_test_writer().try_init());
        let directory = TempDir::new().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let store = EmbeddedStore::open(&EmbeddedConfig::new(directory.path().join("store")));
        let net = |text: &str| text.parse().expect("a network");
        let api = Config {
            state_dir: directory.path().to_owned(),
            listeners: vec![listener],
            advertise: vec!["172.29.0.1".parse().expect("an address")],
            shares_store: false,
            server_names: Vec::new(),
            service_networks: vec![net("10.96.0.0/16"), net("fd00:96::/112")],
            service_node_ports: fairlead_apiserver::PortRange::default(),
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec!["10.96.0.10".parse().expect("v4"), "fd00:96::a".parse().expect("v6")],
            admin_kubeconfig: Some(directory.path().join(KUBECONFIG)),
            admin_server_url: format!("https://{address}"),
        };
        let api = ApiServer::new(api, Arc::new(store.expect("a store"))).await.expect("an API server");
        let client = Client::new(api.in_process(), "default");
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let stop = shutdown.clone();
        tasks.spawn(async move { api.run(stop).await.expect("it serves") });
        tasks.spawn(Scheduler::new(client.clone()).run(shutdown.clone()));
        let controllers = Controllers::new(client.clone(), config).expect("a valid configuration");
        tasks.spawn(controllers.run(shutdown));
        for number in 1..=nodes {
            kubelet::register(&client, number).await;
        }
        tasks.spawn(kubelet::run(client.clone()));
        Self { client, directory, _tasks: tasks }
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("a valid object");
        self.api(namespace).create(&PostParams::default(), &object).await.expect("created")
    }

    /// What the real kubectl prints when it succeeds.
    pub(crate) async fn kubectl(&self, arguments: &str) -> String {
        let output = tokio::process::Command::new("kubectl")
            .arg(format!("--kubeconfig={}", self.directory.path().join(KUBECONFIG).display()))
            .arg(format!("--cache-dir={}", self.directory.path().join("cache").display()))
            .args(arguments.split(' '))
            .output()
            .await
            .expect("kubectl must be installed: apt-get install kubernetes-client");
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments}\n{text}{errors}");
        text.into_owned()
    }

    pub(crate) async fn create_namespace(&self, name: &str) {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        Api::<k8s_openapi::api::core::v1::Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("created");
    }

    pub(crate) async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        self.api(namespace).list(&ListParams::default()).await.expect("listed").items
    }

    pub(crate) async fn delete<K>(&self, namespace: &str, name: &str, params: DeleteParams)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        self.api::<K>(namespace).delete(name, &params).await.expect("deleted");
    }
}

/// Asks again until there is an answer; fails after a time that no machine needs.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// A Deployment of `echo` pods.
pub(crate) fn deployment(name: &str, replicas: i32) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                 "template": {"metadata": {"labels": {"app": name}},
                              "spec": {"terminationGracePeriodSeconds": 5,
                                       "containers": [{"name": "c", "image": "echo", "ports": [{"containerPort": 8080, "name": "http"}],
                                                       "resources": {"requests": {"cpu": "100m"}}}]}}},
    })
}
