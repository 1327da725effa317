//! A feed that says one thing: a cluster of two nodes, with many services.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
};

use anyhow::{Context, Result};
use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Prefix, Protocol, Revision, Service,
    ServicePort, Update,
};
use fairlead_wire::{
    FeedEndpoint,
    proto::{WatchRequest, WatchResponse, feed_server},
    responses,
};
use futures::{Stream, StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use super::traffic::{SERVER_PORT, SERVICE_PORT};

const SERVER_NAME: &str = "feed.bench";
/// The node that is measured, and the other one.
pub(crate) const NODES: [&str; 2] = ["a", "b"];
const EPOCH: u64 = 1;

/// The feed, serving.
pub(crate) struct Feed {
    pub(crate) endpoint: FeedEndpoint,
    updates: watch::Sender<Vec<Update>>,
}

impl Feed {
    /// Listens at `address` on the current runtime and tells of the nodes.
    pub(crate) async fn start(address: SocketAddr, uplinks: [&[IpAddr]; 2]) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await.context("the feed's port is taken")?;
        let (tls, endpoint) = credentials(format!("https://{address}"))?;
        let nodes =
            NODES.iter().zip(1..).zip(uplinks).map(|((name, octet), addresses)| node(name, octet, addresses));
        let revision = Revision { epoch: EPOCH, sequence: 1 };
        let first = Update { revision, snapshot: true, changes: nodes.collect() };
        let (updates, receiver) = watch::channel(vec![first]);
        let service = feed_server::FeedServer::new(Told { updates: receiver });
        let mut server = Server::builder().tls_config(tls)?;
        tokio::spawn(server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { endpoint, updates })
    }

    /// Tells of `count` services; the last one has `server` behind it. Returns the revision.
    pub(crate) fn tell_services(&self, count: u32, server: &[IpAddr]) -> u64 {
        let changes = (0..count).flat_map(|index| service(index, index + 1 == count, server)).collect();
        let sequence = 2;
        let update = Update { revision: Revision { epoch: EPOCH, sequence }, snapshot: false, changes };
        self.updates.send_modify(|updates| updates.push(update));
        sequence
    }
}

/// Address of a service, IPv4 first.
pub(crate) fn service_addresses(index: u32) -> [IpAddr; 2] {
    // 10.96.0.0/16 without its first address, which is nobody's.
    let v4 = u32::from(Ipv4Addr::new(10, 96, 0, 1)) + index;
    let v6 = u128::from(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1)) + u128::from(index);
    [Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()]
}

fn node(name: &str, octet: u8, addresses: &[IpAddr]) -> Change {
    let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, u16::from(octet), 0, 0, 0, 0);
    Change::PutNode(Node {
        name: name.into(),
        addresses: addresses.to_vec(),
        pod_networks: vec![
            Prefix { address: IpAddr::from([10, 244, octet, 0]), length: 24 },
            Prefix { address: v6.into(), length: 64 },
        ],
        ready: true,
        ..Node::default()
    })
}

/// A service of both families and protocols with one backend: the server, or a pod of the other node that is not there.
fn service(index: u32, measured: bool, server: &[IpAddr]) -> Vec<Change> {
    let name = format!("service-{index}");
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let port = |(name, protocol): (&str, Protocol)| ServicePort {
        name: name.into(),
        protocol,
        port: SERVICE_PORT,
        node_port: 0,
    };
    let mut changes = vec![Change::PutService(Service {
        name: ObjectName::new("bench", &name),
        addresses: service_addresses(index).to_vec(),
        ports: protocols.map(port).to_vec(),
        ..Service::default()
    })];
    let low = (index % 250 + 1) as u8;
    let elsewhere: [IpAddr; 2] =
        [[10, 244, 2, low].into(), Ipv6Addr::new(0xfd00, 0x244, 0, 2, 0, 0, 0, u16::from(low)).into()];
    let (node, addresses) = if measured { (NODES[0], server) } else { (NODES[1], &elsewhere[..]) };
    let port =
        |(name, protocol): (&str, Protocol)| EndpointPort { name: name.into(), protocol, port: SERVER_PORT };
    changes.extend(addresses.iter().map(|address| {
        let family = if address.is_ipv4() { 4 } else { 6 };
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("bench", format!("{name}-{family}")),
            service: name.as_str().into(),
            ports: protocols.map(port).to_vec(),
            endpoints: vec![endpoint(node, *address)],
            triggered_unix_ns: 0,
        })
    }));
    changes
}

fn endpoint(node: &str, address: IpAddr) -> Endpoint {
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        node: node.into(),
        zone: "".into(),
        hostname: "".into(),
        pod: "".into(),
        hint_nodes: Box::default(),
        hint_zones: Box::default(),
    }
}

struct Told {
    /// Everything since the beginning; the first is a snapshot.
    updates: watch::Receiver<Vec<Update>>,
}

#[tonic::async_trait]
impl feed_server::Feed for Told {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut sent = 0;
        let batches = WatchStream::new(self.updates.clone()).map(move |updates| {
            let new = updates[sent..].to_vec();
            sent = updates.len();
            stream::iter(new.into_iter().flat_map(responses).map(Ok))
        });
        Ok(Response::new(Box::pin(batches.flatten())))
    }
}

fn credentials(url: String) -> Result<(ServerTlsConfig, FeedEndpoint)> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let issue = |names: Vec<String>| -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let (server_cert, server_key) = issue(vec![SERVER_NAME.to_owned()])?;
    let (cert_pem, key_pem) = issue(Vec::new())?;
    let server = ServerTlsConfig::new()
        .identity(Identity::from_pem(server_cert, server_key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    let server_name = SERVER_NAME.to_owned();
    Ok((server, FeedEndpoint { url, ca_pem: authority.pem(), cert_pem, key_pem, server_name }))
}
