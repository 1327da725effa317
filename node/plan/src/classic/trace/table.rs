//! The cluster and the flows that every mode is asked about: who reaches what by which address, and whose address the
//! endpoint sees.

use std::{collections::BTreeSet, net::IpAddr};

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Node as ModelNode, ObjectName, Prefix, Revision, Service,
    ServicePort, TrafficPolicy, Update, View,
};

use super::{End, Node, Packet};
use crate::classic::Config;

/// Name of the node that is asked.
pub(crate) const NODE: &str = "here";
pub(crate) const POD: &str = "10.244.1.9";
pub(crate) const NODE_ADDRESS: &str = "192.0.2.11";
pub(crate) const LOOPBACK: &str = "127.0.0.1";
pub(crate) const OUTSIDE: &str = "203.0.113.77";

/// An address from its text.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A ready endpoint on a node.
pub(crate) fn endpoint(at: &str, node: &str) -> Endpoint {
    Endpoint::ready_at(address(at), node)
}

/// A service `n`: cluster address 10.96.0.n port 80, node port 30000 + n, load balancer 198.51.100.n.
pub(crate) fn service(number: u8) -> Service {
    Service {
        name: ObjectName::new("demo", format!("svc{number}")),
        addresses: vec![IpAddr::from([10, 96, 0, number])],
        ports: vec![ServicePort {
            name: "web".into(),
            port: 80,
            node_port: 30_000 + u16::from(number),
            ..ServicePort::default()
        }],
        load_balancer_addresses: vec![IpAddr::from([198, 51, 100, number])],
        ..Service::default()
    }
}

/// The slice of a service with endpoints at port 8080.
pub(crate) fn slice(number: u8, endpoints: Vec<Endpoint>) -> Change {
    Change::PutSlice(EndpointSlice {
        name: ObjectName::new("demo", format!("svc{number}-a")),
        service: format!("svc{number}"),
        ports: vec![EndpointPort { name: "web".into(), port: 8080, ..EndpointPort::default() }],
        endpoints,
        ..EndpointSlice::default()
    })
}

/// A complete view.
pub(crate) fn view(changes: Vec<Change>) -> View {
    let mut view = View::default();
    let node = Change::PutNode(ModelNode { name: NODE.into(), ..ModelNode::default() });
    let revision = Revision { epoch: 1, sequence: 1 };
    let changes = std::iter::once(node).chain(changes).collect();
    view.apply(Update { revision, snapshot: true, changes });
    view
}

/// svc1 with both policies Cluster, svc2 with an external, svc3 with an internal Local policy; an endpoint of each here
/// (10.244.1.n) and one elsewhere (10.244.2.n).
pub(crate) fn cluster() -> View {
    let mut changes = Vec::new();
    for number in 1..=3 {
        let mut service = service(number);
        if number == 2 {
            service.external_policy = TrafficPolicy::Local;
        }
        if number == 3 {
            service.internal_policy = TrafficPolicy::Local;
        }
        changes.push(Change::PutService(service));
        let here = endpoint(&format!("10.244.1.{number}"), NODE);
        let there = endpoint(&format!("10.244.2.{number}"), "there");
        changes.push(slice(number, vec![here, there]));
    }
    view(changes)
}

/// The node that is asked.
pub(crate) fn node() -> Node {
    Node { local: vec![address(NODE_ADDRESS)] }
}

/// The settings that the tables run with.
pub(crate) fn config(detects_pods: bool, masquerade_all: bool) -> Config {
    let pods = Prefix { address: address("10.244.0.0"), length: 16 };
    Config {
        node: NODE.into(),
        masquerade_all,
        pod_networks: if detects_pods { vec![pods] } else { Vec::new() },
        node_addresses: vec![address(NODE_ADDRESS)],
        local_addresses: vec![address(NODE_ADDRESS)],
        service_networks: vec![Prefix { address: address("10.96.0.0"), length: 16 }],
        ..Config::default()
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Client {
    Pod,
    Node,
    Loopback,
    Outside,
}

/// Which address of a service is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    ClusterAddress,
    NodePort,
    Balancer,
}

/// Which endpoints answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Any.
    All,
    /// The one on this node.
    Here,
    /// None: the packet is not for a service and stays as it is.
    Nobody,
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) service: u8,
    pub(crate) from: Client,
    pub(crate) to: To,
    pub(crate) by: By,
    pub(crate) masqueraded: bool,
}

const fn row(service: u8, from: Client, to: To, by: By, masqueraded: bool) -> Row {
    Row { service, from, to, by, masqueraded }
}

/// Thirty flows, with pods known by their network. Masqueraded is what may leave this node for another one without
/// having come from a pod, and what node ports and balancers take in for endpoints anywhere.
pub(crate) const FLOWS: [Row; 30] = {
    use By::{All, Here};
    use Client::{Loopback, Node, Outside, Pod};
    use To::{Balancer, ClusterAddress, NodePort};
    [
        row(1, Pod, ClusterAddress, All, false),
        row(1, Pod, NodePort, All, true),
        row(1, Pod, Balancer, All, true),
        row(1, Node, ClusterAddress, All, true),
        row(1, Node, NodePort, All, true),
        row(1, Loopback, NodePort, All, true),
        row(1, Node, Balancer, All, true),
        row(1, Outside, ClusterAddress, All, true),
        row(1, Outside, NodePort, All, true),
        row(1, Outside, Balancer, All, true),
        // An external Local policy keeps the client's address, and does not concern clients of this node.
        row(2, Pod, ClusterAddress, All, false),
        row(2, Pod, NodePort, All, false),
        row(2, Pod, Balancer, All, false),
        row(2, Node, ClusterAddress, All, true),
        row(2, Node, NodePort, All, true),
        row(2, Loopback, NodePort, All, true),
        row(2, Node, Balancer, All, true),
        row(2, Outside, ClusterAddress, All, true),
        row(2, Outside, NodePort, Here, false),
        row(2, Outside, Balancer, Here, false),
        // An internal Local policy concerns the cluster address and nothing else.
        row(3, Pod, ClusterAddress, Here, false),
        row(3, Pod, NodePort, All, true),
        row(3, Pod, Balancer, All, true),
        row(3, Node, ClusterAddress, Here, true),
        row(3, Node, NodePort, All, true),
        row(3, Loopback, NodePort, All, true),
        row(3, Node, Balancer, All, true),
        row(3, Outside, ClusterAddress, Here, true),
        row(3, Outside, NodePort, All, true),
        row(3, Outside, Balancer, All, true),
    ]
};

/// The four configurations: (pods are known, masquerade all).
pub(crate) const CONFIGURATIONS: [(bool, bool); 4] =
    [(true, false), (false, false), (true, true), (false, true)];

impl Row {
    /// How the row reads under a configuration.
    pub(crate) fn under(mut self, detects_pods: bool, masquerade_all: bool) -> Self {
        if self.to == To::ClusterAddress {
            // Without knowing who is a pod, nobody is masqueraded; or everybody is, by order.
            self.masqueraded = masquerade_all || self.masqueraded && detects_pods;
        } else if !detects_pods && self.from == Client::Pod && self.service == 2 {
            // A pod is then a client like one from outside.
            self.by = By::Here;
        }
        self
    }

    pub(crate) fn packet(&self) -> Packet {
        let src = match self.from {
            Client::Pod => POD,
            Client::Node => NODE_ADDRESS,
            Client::Loopback => LOOPBACK,
            Client::Outside => OUTSIDE,
        };
        let number = self.service;
        let (dst, port) = match self.to {
            To::ClusterAddress => (IpAddr::from([10, 96, 0, number]), 80),
            To::Balancer => (IpAddr::from([198, 51, 100, number]), 80),
            To::NodePort if self.from == Client::Loopback => (address(LOOPBACK), 30_000 + u16::from(number)),
            To::NodePort => (address(NODE_ADDRESS), 30_000 + u16::from(number)),
        };
        Packet { src: address(src), dst, protocol: "tcp", port }
    }

    pub(crate) fn ends(&self) -> BTreeSet<End> {
        let arrives = |to| End::Arrives { to, masqueraded: self.masqueraded };
        let here = (IpAddr::from([10, 244, 1, self.service]), 8080);
        let there = (IpAddr::from([10, 244, 2, self.service]), 8080);
        match self.by {
            By::All => BTreeSet::from([arrives(here), arrives(there)]),
            By::Here => BTreeSet::from([arrives(here)]),
            By::Nobody => {
                let packet = self.packet();
                BTreeSet::from([End::Arrives { to: (packet.dst, packet.port), masqueraded: false }])
            }
        }
    }
}
