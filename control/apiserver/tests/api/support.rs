//! A running API server on a free port of the loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_apiserver::{ApiServer, Config, InProcess, Limits, PortRange};
use fairlead_store::{EmbeddedConfig, EmbeddedStore, Store, StoreError};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server that stops when it is told to, and whose directory goes with it.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) in_process: InProcess,
    pub(crate) store: Arc<dyn Store>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    pub(crate) async fn start_in(dir: TempDir) -> Self {
        Self::start_with(dir, Limits::default()).await
    }

    pub(crate) async fn start_with(dir: TempDir, limits: Limits) -> Self {
        let store: Arc<dyn Store> = Arc::new(open_store(&dir).await);
        let server = Self::serve(dir, store, limits).await;
        // Tests count the config maps of this namespace, and begin at none.
        let _ = server.store.delete("/registry/configmaps/default/kube-root-ca.crt", None).await;
        server
    }

    /// Another server with the same store and the same authority, which knows nothing else of this one.
    pub(crate) async fn twin(&self) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("pki")).unwrap();
        for file in std::fs::read_dir(self.dir.path().join("pki")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join("pki").join(file.file_name())).unwrap();
        }
        Self::start_on(dir, self.store.clone()).await
    }

    /// A server on a store that others may use too.
    pub(crate) async fn start_on(dir: TempDir, store: Arc<dyn Store>) -> Self {
        Self::serve(dir, store, Limits::default()).await
    }

    async fn serve(dir: TempDir, store: Arc<dyn Store>, limits: Limits) -> Self {
        Self::serve_at(dir, store, limits, 0).await
    }

    async fn serve_at(dir: TempDir, store: Arc<dyn Store>, limits: Limits, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let config = Config {
            state_dir: dir.path().to_owned(),
            listeners: vec![listener],
            advertise: vec!["172.29.0.1".parse().unwrap(), "fd00:29::1".parse().unwrap()],
            shares_store: false,
            server_names: vec!["fairlead".to_owned()],
            service_networks: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            service_node_ports: PortRange::default(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
            admin_kubeconfig: Some(dir.path().join("admin.kubeconfig")),
            admin_server_url: url,
        };
        let server = ApiServer::with_limits(config, store.clone(), limits).await.unwrap();
        let in_process = server.in_process();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let running = tokio::spawn(async move { server.run(stop).await.unwrap() });
        Self { dir, in_process, store, shutdown, running }
    }

    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(self.in_process.clone(), "default")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// Stops the server, and starts another with its state at its address.
    pub(crate) async fn restart(self) -> Self {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let url = kubeconfig.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        let dir = self.stop().await;
        let store = Arc::new(open_store(&dir).await);
        Self::serve_at(dir, store, Limits::default(), port).await
    }

    /// Stops the server and gives back its directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        self.running.await.unwrap();
        drop((self.in_process, self.store));
        self.dir
    }
}

/// Opens the store when the last client of a stopped server has let go of it.
async fn open_store(dir: &TempDir) -> EmbeddedStore {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match EmbeddedStore::open(&EmbeddedConfig::new(dir.path().join("store"))) {
            Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            outcome => return outcome.unwrap(),
        }
    }
}
