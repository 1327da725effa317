//! DNS over TLS and over HTTPS, on both sides, and over QUIC.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use fairlead_dns::{Config, Corefile, DnsServer};
use futures::stream;
use hickory_proto::{op::Message, rr::RecordType};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::support::{addresses, query, udp};

const NAME: &str = "dns.example";
const WWW: &str = "www.example.";

/// A server of a Corefile; it ends when this is dropped.
struct Served {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    _running: JoinHandle<()>,
}

impl Served {
    async fn start(text: String) -> Self {
        let corefile = Corefile::Text { name: "Corefile".into(), text };
        let config = Config { corefile, has_cluster: false, workers: 1, ..Config::default() };
        let server = DnsServer::new(config, stream::pending()).await.unwrap();
        let (addresses, stop) = (server.addresses(), CancellationToken::new());
        let running = server.run(stop.clone());
        let running = tokio::spawn(async move { running.await.unwrap() });
        Self { addresses, stop, _running: running }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Writes a certificate and its key into a folder; gives whom to trust.
fn certificate(folder: &Path) -> RootCertStore {
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    fs::write(folder.join("cert"), issued.cert.pem()).unwrap();
    fs::write(folder.join("key"), issued.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    roots
}

/// A server that speaks TLS and HTTPS and knows one name.
async fn secret_server(folder: &Path) -> Served {
    let folder = folder.display();
    let block = |key: &str| {
        format!(
            "{key} {{\n bind 127.0.0.1\n tls {folder}/cert {folder}/key\n hosts {{\n 192.0.2.7 www.example\n }}\n}}\n"
        )
    };
    Served::start(block("tls://.:0") + &block("https://.:0") + &block("quic://.:0")).await
}

fn client_config(roots: RootCertStore, alpn: &[u8]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

async fn connect(server: SocketAddr, roots: RootCertStore, alpn: &[u8]) -> TlsStream<TcpStream> {
    let config = client_config(roots, alpn);
    let stream = TcpStream::connect(server).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_question_goes_to_an_upstream_server_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let upstream = secret_server(folder.path()).await;
    let text = format!(
        ".:0 {{\n bind 127.0.0.1\n forward . tls://{}%{NAME} {{\n tls {}/cert\n }}\n}}\n",
        upstream.addresses[0],
        folder.path().display()
    );
    let server = Served::start(text).await;
    let answer = udp(server.addresses[0], &query(WWW, RecordType::A)).await;
    assert_eq!(addresses(&answer), ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn a_question_is_asked_over_https_in_a_body_or_in_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let roots = certificate(folder.path());
    let server = secret_server(folder.path()).await;
    let stream = connect(server.addresses[1], roots, b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let running = tokio::spawn(connection);
    let question = query(WWW, RecordType::A).to_vec().unwrap();
    let encoded = URL_SAFE_NO_PAD.encode(&question);
    let message = ("content-type", "application/dns-message");
    let post = |path: &str| Request::post(format!("https://{NAME}{path}")).header(message.0, message.1);
    let get = |path: String| Request::get(format!("https://{NAME}{path}")).body(Full::default()).unwrap();
    let rows = [
        (post("/dns-query").body(Full::from(question.clone())).unwrap(), StatusCode::OK),
        (get(format!("/dns-query?dns={encoded}")), StatusCode::OK),
        (get("/dns-query".into()), StatusCode::BAD_REQUEST),
        (get(format!("/elsewhere?dns={encoded}")), StatusCode::NOT_FOUND),
        (post("/dns-query").body(Full::from(vec![0; 5000])).unwrap(), StatusCode::PAYLOAD_TOO_LARGE),
        (
            Request::put(format!("https://{NAME}/dns-query")).body(Full::<Bytes>::default()).unwrap(),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
    ];
    for (request, status) in rows {
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), status);
        if status != StatusCode::OK {
            continue;
        }
        assert_eq!(response.headers()["content-type"], message.1);
        assert_eq!(response.headers()["cache-control"], "max-age=3600", "the TTL of `hosts`");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(addresses(&Message::from_vec(&body).unwrap()).len(), 1);
    }
    running.abort();
}

/// Asks on a stream of its own; what comes back until it ends.
async fn over_quic(connection: &quinn::Connection, bytes: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    receive.read_to_end(65_537).await
}

#[tokio::test]
async fn each_question_over_quic_has_a_stream_and_a_client_that_breaks_the_rules_is_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let roots = certificate(folder.path());
    let server = secret_server(folder.path()).await;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client_config(roots, b"doq")).unwrap();
    let mut client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let mut question = query(WWW, RecordType::A);
    question.metadata.id = 0;
    let message = question.to_vec().unwrap();
    let frame = [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let connection = client.connect(server.addresses[2], NAME).unwrap().await.unwrap();
    for _ in 0..3 {
        let answer = over_quic(&connection, &frame).await.unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([answer[0], answer[1]])), answer.len() - 2);
        assert_eq!(addresses(&Message::from_vec(&answer[2..]).unwrap()).len(), 1);
    }
    let mut with_id = frame.clone();
    with_id[3] = 7;
    let long = [&frame[..], b"x"].concat();
    for wrong in [&with_id[..], &frame[..frame.len() - 1], &long, &[]] {
        let connection = client.connect(server.addresses[2], NAME).unwrap().await.unwrap();
        assert!(over_quic(&connection, wrong).await.is_err());
        let quinn::ConnectionError::ApplicationClosed(reason) = connection.closed().await else {
            panic!("it is closed by the server");
        };
        assert_eq!(reason.error_code, 2_u32.into(), "DOQ_PROTOCOL_ERROR");
    }
}
