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
    /// The last update's.
    sequence: u64,
    /// How many services it was told of.
    told: u32,
}

impl Feed {
    /// Listens at `address` on the current runtime and tells of the nodes.
    pub(crate) async fn start(address: SocketAddr, uplinks: [&[IpAddr]; 2]) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await.context("the feed's port is taken")?;
        let (tls, endpoint) = credentials(format!("https://{address}"))?;
        let nodes =
            NODES.iter().zip(1..).zip(uplinks).map(|((name, octet), addresses)| node(name, octet, addresses));
        let sequence = 1;
        let revision = Revision { epoch: EPOCH, sequence };
        let first = Update { revision, snapshot: true, changes: nodes.collect() };
        let (updates, receiver) = watch::channel(vec![first]);
        let service = feed_server::FeedServer::new(Told { updates: receiver });
        let mut server = Server::builder().tls_config(tls)?;
        tokio::spawn(server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { endpoint, updates, sequence, told: 0 })
    }

    /// Tells of `count` services, which are more than before; the last one and a random one have `server` behind them. With a
    /// server on the other node as well there are node ports. Returns the revision.
    pub(crate) fn tell_services(&mut self, count: u32, server: &[IpAddr], remote: Option<&[IpAddr]>) -> u64 {
        let targets = |count: u32| [count.checked_sub(1), random_target(count)];
        let asked = targets(count);
        let behind = |index| asked.contains(&Some(index)).then_some((NODES[0], server));
        let no_longer = targets(self.told).into_iter().flatten().filter(|index| *index < self.told);
        let mut changes: Vec<_> =
            no_longer.chain(self.told..count).flat_map(|index| service(index, behind(index), 0)).collect();
        self.told = count;
        if let Some(remote) = remote {
            let servers = [(NODES[0], server), (NODES[1], remote)];
            let more = servers.into_iter().zip(NODE_PORTS).zip(count..);
            changes.extend(more.flat_map(|((behind, port), index)| service(index, Some(behind), port)));
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let update = Update { revision: Revision { epoch: EPOCH, sequence }, snapshot: false, changes };
        self.updates.send_modify(|updates| updates.push(update));
        sequence
    }
}

/// Node ports of the services with the server on the node that is asked, and on the other.
pub(crate) const NODE_PORTS: [u16; 2] = [30_001, 30_002];

/// A service in no particular place; none where there are so few that it would be the last.
pub(crate) fn random_target(count: u32) -> Option<u32> {
    (count >= 10).then_some(count * 37 / 100)
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

/// A service of both families with one backend: what is `behind` it, of which node, by both protocols; or by TCP a pod of
/// the other node that is not there.
fn service(index: u32, behind: Option<(&str, &[IpAddr])>, node_port: u16) -> Vec<Change> {
    // In the order of their names, which is that of rules.
    let name = format!("service-{index:05}");
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocols = if behind.is_some() { &protocols[..] } else { &protocols[..1] };
    let port = |(name, protocol): &(&str, Protocol)| ServicePort {
        name: (*name).into(),
        protocol: *protocol,
        port: SERVICE_PORT,
        node_port,
    };
    let mut changes = vec![Change::PutService(Service {
        name: ObjectName::new("bench", &name),
        addresses: service_addresses(index).to_vec(),
        ports: protocols.iter().map(port).collect(),
        ..Service::default()
    })];
    let low = (index % 250 + 1) as u8;
    let elsewhere: [IpAddr; 2] =
        [[10, 244, 2, low].into(), Ipv6Addr::new(0xfd00, 0x244, 0, 2, 0, 0, 0, u16::from(low)).into()];
    let (node, addresses) = behind.unwrap_or((NODES[1], &elsewhere));
    let port = |(name, protocol): &(&str, Protocol)| EndpointPort {
        name: (*name).into(),
        protocol: *protocol,
        port: SERVER_PORT,
    };
    changes.extend(addresses.iter().map(|address| {
        let family = if address.is_ipv4() { 4 } else { 6 };
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("bench", format!("{name}-{family}")),
            service: name.as_str().into(),
            ports: protocols.iter().map(port).collect(),
            endpoints: vec![Endpoint::ready_at(*address, node)],
            triggered_unix_ns: 0,
        })
    }));
    changes
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
