//! A kubelet on a private containerd, with an API server in memory, in a network namespace of its own.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use fairlead_kubelet::{
    Capacity, Config, Kubelet, LogDriver, TlsConfig,
    containerd::{self, PrivateContainerd, Running},
    network::{Attachment, NetworkError, PodIdentity, PodNetwork},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{api::Api, image};

pub(crate) const NODE: &str = "n1";

/// Every pod is in the namespace of the test, where there is only loopback.
#[derive(Default)]
pub(crate) struct FakeNetwork {
    pub(crate) netns: PathBuf,
    pub(crate) log: Mutex<Vec<String>>,
}

#[async_trait]
impl PodNetwork for FakeNetwork {
    async fn attach(&self, pod: &PodIdentity) -> Result<Attachment, NetworkError> {
        self.log.lock().unwrap().push(format!("attach {}", pod.name));
        Ok(Attachment { netns: self.netns.clone(), addresses: vec!["127.0.0.1".parse().unwrap()] })
    }

    async fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        self.log.lock().unwrap().push(format!("detach {uid}"));
        Ok(())
    }

    async fn retain(&self, uids: &[String]) -> Result<(), NetworkError> {
        self.log.lock().unwrap().push(format!("retain {}", uids.join(",")));
        Ok(())
    }
}

/// The parts of a test.
pub(crate) struct Bench {
    pub(crate) api: Api,
    pub(crate) network: Arc<FakeNetwork>,
    pub(crate) directory: TempDir,
    pub(crate) cgroup_root: String,
    tls: TlsConfig,
    client: Vec<CertificateDer<'static>>,
    client_key: PrivateKeyDer<'static>,
    ca: CertificateDer<'static>,
    private: PrivateContainerd,
    containerd: Running,
}

/// A kubelet that runs.
pub(crate) struct Node {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) ready: watch::Sender<bool>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Ends the kubelet; containers go on.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// Ends the kubelet in the middle of whatever it does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

impl Bench {
    pub(crate) async fn new(netns: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("fairlead-kubelet-").tempdir().unwrap();
        let images = directory.path().join("images");
        std::fs::create_dir(&images).unwrap();
        image::write(&images.join("busybox.tar")).unwrap();
        let private = PrivateContainerd {
            root: directory.path().join("containerd/root"),
            state: directory.path().join("containerd/state"),
            socket: directory.path().join("containerd/containerd.sock"),
            binary: "containerd".into(),
        };
        let containerd = containerd::spawn(&private).await.unwrap();
        let (tls, ca, client, client_key) = certificates();
        let name = directory.path().file_name().unwrap().to_string_lossy().into_owned();
        Self {
            api: Api::new(),
            network: Arc::new(FakeNetwork { netns: netns.to_owned(), ..FakeNetwork::default() }),
            cgroup_root: format!("{name}/{NODE}"),
            directory,
            tls,
            client,
            client_key,
            ca,
            private,
            containerd,
        }
    }

    pub(crate) async fn start(&self) -> Node {
        let path = |name: &str| self.directory.path().join(name);
        let (ready, network_ready) = watch::channel(false);
        let driver = PathBuf::from(env!("CARGO_BIN_EXE_fairlead-container-log"));
        let config = Config {
            node_name: NODE.into(),
            node_ips: vec!["127.0.0.1".parse().unwrap()],
            containerd_socket: self.containerd.socket.clone(),
            containerd_namespace: NODE.into(),
            state_dir: path("state"),
            run_dir: path("run"),
            log_dir: path("logs"),
            image_dirs: vec![path("images")],
            cgroup_root: self.cgroup_root.clone(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: self.tls.clone(),
            capacity: Capacity { pods: Some(7), ..Capacity::default() },
            labels: [("zone".to_owned(), "z".to_owned())].into(),
            network_ready,
            log_driver: LogDriver { executable: driver, argument: "container-log".into() },
            pids_limit: Some(1000),
        };
        let kubelet = Kubelet::new(config, self.api.client(), self.network.clone()).await.unwrap();
        let address = kubelet.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { kubelet.run(token).await.unwrap() });
        Node { address, ready, shutdown, task }
    }

    /// Creates a pod bound to the node; returns its path.
    pub(crate) fn pod(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        let path = format!("/api/v1/namespaces/demo/pods/{name}");
        self.api.put(
            &path,
            json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "demo", "labels": { "app": name }, "generation": 1 }, "spec": spec }),
        );
        path
    }

    /// GET from the kubelet's server, as text.
    pub(crate) async fn get(&self, node: &Node, path: &str) -> (u16, String) {
        use http_body_util::{BodyExt, Empty};

        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(self.client.clone(), self.client_key.clone_key())
                .unwrap();
        let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request =
            http::Request::get(path).header("host", "n1").body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// Whether a client that shows no certificate gets an answer.
    pub(crate) async fn answers_anybody(&self, node: &Node) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let Ok(mut stream) = connector.connect("127.0.0.1".try_into().unwrap(), stream).await else {
            return false;
        };
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        asked.is_ok() && stream.read_to_end(&mut answer).await.is_ok() && !answer.is_empty()
    }

    /// Kills containerd and starts another one in its place.
    pub(crate) async fn replace_containerd(&mut self) {
        self.containerd.child.kill().await.unwrap();
        self.containerd = containerd::spawn(&self.private).await.unwrap();
    }

    /// Ends everything that was started.
    pub(crate) async fn clean_up(mut self) {
        containerd::remove_all(&self.containerd.socket, NODE).await.unwrap();
        // A second time there is nothing to do.
        containerd::remove_all(&self.containerd.socket, NODE).await.unwrap();
        self.containerd.child.kill().await.unwrap();
        let root = self.cgroup_root.split('/').next().unwrap();
        fairlead_kubelet::remove_cgroups(root).unwrap();
    }
}

fn certificates() -> (TlsConfig, CertificateDer<'static>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)
{
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test");
    let ca = CertifiedIssuer::self_signed(params, key()).unwrap();
    let server_key = key();
    let server =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&server_key, &ca).unwrap();
    let client_key = key();
    let client =
        CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&client_key, &ca).unwrap();
    let tls = TlsConfig {
        certificate_pem: server.pem(),
        key_pem: server_key.serialize_pem(),
        client_ca_pem: ca.pem(),
    };
    let private = PrivateKeyDer::from_pem_slice(client_key.serialize_pem().as_bytes()).unwrap();
    (tls, ca.der().clone(), vec![client.der().clone()], private)
}
