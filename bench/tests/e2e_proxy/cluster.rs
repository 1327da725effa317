//! A cluster of two nodes without pods, and a service that processes of the nodes serve.

use std::net::{IpAddr, SocketAddr};

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node, ObjectName, Protocol, Revision, Service,
    ServicePort, Update,
};
use fairlead_testkit::echo::{TCP_PORT, UDP_PORT};

/// Names of the nodes.
const NODES: [&str; 2] = ["a", "b"];
/// Ports of the service on its cluster addresses.
pub(crate) const HTTP: u16 = 80;
pub(crate) const DNS: u16 = 53;
/// Its node port, for both protocols.
pub(crate) const NODE_PORT: u16 = 30_080;

/// The cluster addresses of the service.
pub(crate) fn addresses(port: u16) -> [SocketAddr; 2] {
    ["10.96.0.20", "fd00:96::20"].map(|address| SocketAddr::new(address.parse().expect("an address"), port))
}

/// What the feed has told.
pub(crate) struct Cluster {
    nodes: [Vec<IpAddr>; 2],
    sequence: u64,
}

impl Cluster {
    pub(crate) fn new(nodes: [Vec<IpAddr>; 2]) -> Self {
        Self { nodes, sequence: 0 }
    }

    /// Number of the last update.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The nodes and the service with a backend on each.
    pub(crate) fn snapshot(&mut self) -> Update {
        let mut changes: Vec<Change> =
            NODES.iter().zip(&self.nodes).map(|(name, own)| node(name, own)).collect();
        changes.push(service());
        changes.extend(self.slices(&[0, 1]));
        self.update(true, changes)
    }

    /// Only these nodes have backends.
    pub(crate) fn set_backends(&mut self, of: &[usize]) -> Update {
        let changes = self.slices(of);
        self.update(false, changes)
    }

    fn update(&mut self, snapshot: bool, changes: Vec<Change>) -> Update {
        self.sequence += 1;
        Update { revision: Revision { epoch: 1, sequence: self.sequence }, snapshot, changes }
    }

    /// One slice of endpoints for each family.
    fn slices(&self, of: &[usize]) -> Vec<Change> {
        let slice = |family: usize| {
            let port = |name: &str, protocol, port| EndpointPort { name: name.into(), protocol, port };
            Change::PutSlice(EndpointSlice {
                name: ObjectName::new("demo", format!("web-{family}")),
                service: "web".into(),
                ports: vec![port("http", Protocol::Tcp, TCP_PORT), port("dns", Protocol::Udp, UDP_PORT)],
                endpoints: of
                    .iter()
                    .map(|node| Endpoint::ready_at(self.nodes[*node][family], NODES[*node]))
                    .collect(),
                triggered_unix_ns: 0,
            })
        };
        vec![slice(0), slice(1)]
    }
}

fn node(name: &str, addresses: &[IpAddr]) -> Change {
    Change::PutNode(Node { name: name.into(), addresses: addresses.to_vec(), ready: true, ..Node::default() })
}

fn service() -> Change {
    let port =
        |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: NODE_PORT };
    Change::PutService(Service {
        name: ObjectName::new("demo", "web"),
        addresses: addresses(HTTP).map(|address| address.ip()).to_vec(),
        ports: vec![port("http", Protocol::Tcp, HTTP), port("dns", Protocol::Udp, DNS)],
        ..Service::default()
    })
}
