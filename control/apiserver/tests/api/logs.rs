//! `pods/log` through a kubelet that the test plays.

use std::net::Ipv4Addr;
use std::sync::Arc;

use fairlead_apiserver::Pki;
use futures::{AsyncReadExt as _, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, LogParams, Patch, PatchParams, PostParams};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::Server;

/// A kubelet that demands a certificate of the cluster's authority.
struct Kubelet {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Kubelet {
    async fn new(server: &Server) -> Self {
        let pki = Pki::open_or_create(&server.dir.path().join("pki")).unwrap();
        let issued = pki.issue("system:node:n1", &["system:nodes"], &["127.0.0.1".to_owned()]).unwrap();
        let (chain, key) = issued.to_der().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next request's line and the stream to answer it on.
    async fn request(&self) -> (String, BufReader<TlsStream<TcpStream>>) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = BufReader::new(self.acceptor.accept(stream).await.unwrap());
        let mut first = String::new();
        stream.read_line(&mut first).await.unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        (first, stream)
    }
}

async fn pod_on(server: &Server, port: u16) -> Api<Pod> {
    let nodes: Api<Node> = Api::all(server.client());
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "n1" },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        },
    }))
    .unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] },
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    pods
}

#[tokio::test]
async fn logs_stream_as_the_kubelet_writes_them() {
    let server = Server::start().await;
    let kubelet = Kubelet::new(&server).await;
    let pods = pod_on(&server, kubelet.port()).await;
    let params = LogParams { follow: true, tail_lines: Some(5), ..LogParams::default() };
    let (logs, (line, mut kubelet)) = tokio::join!(pods.log_stream("p", &params), async {
        let (line, mut stream) = kubelet.request().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        stream.write_all(b"4\r\none\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        (line, stream)
    });
    assert_eq!(line, "GET /containerLogs/default/p/c?follow=true&tailLines=5 HTTP/1.1\r\n");
    let mut logs = std::pin::pin!(logs.unwrap());
    let mut first = [0; 4];
    logs.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"one\n", "the line comes before the stream ends");
    kubelet.write_all(b"4\r\ntwo\n\r\n0\r\n\r\n").await.unwrap();
    kubelet.flush().await.unwrap();
    let mut rest = String::new();
    logs.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "two\n");
}

/// What the API makes of a kubelet's refusal.
async fn refused(kubelet: &Kubelet, pods: &Api<Pod>, head: &str, text: &str) -> (u16, String) {
    let params = LogParams::default();
    let (logs, _open) = tokio::join!(pods.logs("p", &params), async {
        let (_, mut stream) = kubelet.request().await;
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    let kube::Error::Api(status) = logs.unwrap_err() else { panic!("not an answer of the API") };
    (status.code, status.message)
}

#[tokio::test]
async fn a_kubelets_refusal_is_passed_on() {
    let server = Server::start().await;
    let kubelet = Kubelet::new(&server).await;
    let pods = pod_on(&server, kubelet.port()).await;
    let text = "container \"c\" in pod \"p\" is waiting to start: image can't be pulled";
    let (code, message) = refused(&kubelet, &pods, "400 Bad Request", text).await;
    assert_eq!(code, 400);
    assert!(message.contains(text), "{message}");
}

#[tokio::test]
async fn a_pod_that_its_kubelet_has_not_seen_yet_is_waiting_to_start() {
    let server = Server::start().await;
    let kubelet = Kubelet::new(&server).await;
    let pods = pod_on(&server, kubelet.port()).await;
    let (head, text) = ("404 Not Found", "pod default/p is not on this node");
    let answer = refused(&kubelet, &pods, head, text).await;
    let waiting = "container \"c\" in pod \"p\" is waiting to start: ContainerCreating";
    assert_eq!(answer, (400, waiting.to_owned()));
    let running = json!({ "status": { "phase": "Running" } });
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
    let (code, message) = refused(&kubelet, &pods, head, text).await;
    assert_eq!(code, 404, "a kubelet that has lost a running pod says so");
    assert!(message.contains(text), "{message}");
}

#[tokio::test]
async fn an_unreachable_kubelet_is_named() {
    let server = Server::start().await;
    // A port that was free a moment ago: nobody listens there.
    let port = Kubelet::new(&server).await.port();
    let pods = pod_on(&server, port).await;
    let kube::Error::Api(status) = pods.logs("p", &LogParams::default()).await.unwrap_err() else {
        panic!("not an answer of the API")
    };
    assert_eq!(status.code, 503);
    assert!(status.message.contains("the kubelet of node \"n1\""), "{}", status.message);
}

#[tokio::test]
async fn a_followed_log_does_not_hold_up_a_stop() {
    let server = Server::start().await;
    let kubelet = Kubelet::new(&server).await;
    let pods = pod_on(&server, kubelet.port()).await;
    let params = LogParams { follow: true, ..LogParams::default() };
    let (logs, (_, _stream)) = tokio::join!(pods.log_stream("p", &params), async {
        let (line, mut stream) = kubelet.request().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        (line, stream)
    });
    let stop = server.stop();
    let lines: Vec<String> = {
        use futures::AsyncBufReadExt;
        let (lines, _) = tokio::join!(logs.unwrap().lines().try_collect::<Vec<String>>(), stop);
        lines.unwrap()
    };
    assert!(lines.is_empty());
}
