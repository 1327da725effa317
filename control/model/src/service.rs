//! Services and their endpoints.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::Prefix;

/// Namespace and name of an object. Copies share the text: every reader of a large cluster holds a name many times over.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name inside the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// From its two parts.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        Self { namespace: namespace.as_ref().into(), name: name.as_ref().into() }
    }

    /// The same with a text of its own.
    pub(crate) fn copied(&self) -> Self {
        Self::new(&self.namespace, &self.name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol of a service port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Protocol {
    /// TCP, the default of the API.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// How a service is reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ServiceKind {
    /// Has cluster addresses.
    #[default]
    ClusterIp,
    /// `clusterIP: None`: only DNS knows it.
    Headless,
    /// An alias for a DNS name.
    ExternalName(String),
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Only endpoints on the node that the client is on, or that it entered the cluster by.
    Local,
}

/// `trafficDistribution`: a preference, never a restriction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrafficDistribution {
    /// No preference.
    #[default]
    Any,
    /// Endpoints of the client's zone (`PreferSameZone`, `PreferClose`).
    SameZone,
    /// Endpoints of the client's node, then of its zone (`PreferSameNode`).
    SameNode,
}

/// How a backend is chosen for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// Any of them, with equal chance.
    #[default]
    Random,
    /// By a hash of the connection, so that every node chooses the same one (Maglev; Eisenbud et al., NSDI 2016).
    Maglev,
}

/// A service without its endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Cluster addresses, primary family first; empty unless `ClusterIp`.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `externalIPs`.
    pub external_addresses: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` whose `ipMode` is not `Proxy`.
    pub load_balancer_addresses: Vec<IpAddr>,
    /// `loadBalancerSourceRanges`: who may use the load balancer's addresses; empty is everybody.
    pub source_ranges: Vec<Prefix>,
    /// `internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `healthCheckNodePort`; 0 is none.
    pub health_check_port: u16,
    /// Annotation `fairlead.io/load-balancing`.
    pub algorithm: Algorithm,
    /// `trafficDistribution`.
    pub distribution: TrafficDistribution,
    /// `sessionAffinity: ClientIP` timeout in seconds; 0 is no affinity.
    pub affinity_secs: u32,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// Labelled `service.kubernetes.io/service-proxy-name` or `service.kubernetes.io/headless`: another proxy carries
    /// its cluster addresses, or none does. The node's dataplane leaves it alone; DNS answers for it all the same.
    pub foreign_proxy: bool,
}

/// A port of a service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServicePort {
    /// Name; empty when the port has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the service's addresses.
    pub port: u16,
    /// Port on every node's addresses; 0 is none.
    pub node_port: u16,
}

/// Up to a hundred endpoints of one service and one address family, as the API groups them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointSlice {
    /// Namespace and name of the slice itself.
    pub name: ObjectName,
    /// Name of the service, in the same namespace.
    pub service: String,
    /// Ports that every endpoint of the slice has.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When the pod or service changed that made this slice what it is, in nanoseconds since the Unix epoch (annotation
    /// `endpoints.kubernetes.io/last-change-trigger-time`); 0 when nobody said.
    pub triggered_unix_ns: u64,
}

/// A port of the endpoints of a slice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointPort {
    /// Name, which joins it with the service's port; empty when the port has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the endpoint.
    pub port: u16,
}

/// One endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The first address; kube-proxy, too, uses no other.
    pub address: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Still answers, ready or terminating.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// Node it runs on; empty when unknown. A view holds each node's name once.
    pub node: Arc<str>,
    /// Zone it runs in; empty when unknown. A view holds each zone's name once.
    pub zone: Arc<str>,
    /// `hostname` of the endpoint for DNS; empty when unset.
    pub hostname: Box<str>,
    /// Name of the pod behind it, in the slice's namespace; empty when it is not a pod.
    pub pod: Box<str>,
    /// Nodes that should prefer this endpoint (`hints.forNodes`).
    pub hint_nodes: Box<[String]>,
    /// Zones that should prefer this endpoint (`hints.forZones`).
    pub hint_zones: Box<[String]>,
}

impl Endpoint {
    /// One that takes connections, on a node; nothing else is known of it.
    pub fn ready_at(address: IpAddr, node: &str) -> Self {
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
            node: node.into(),
            zone: Arc::default(),
            hostname: Box::default(),
            pod: Box::default(),
            hint_nodes: Box::default(),
            hint_zones: Box::default(),
        }
    }
}
