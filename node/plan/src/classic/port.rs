//! One port of a service in one family, with everything that rules are made from.

use std::net::IpAddr;

use fairlead_model::{ObjectName, Prefix, Protocol, Service, ServiceKind, ServicePort, TrafficPolicy, View};

use super::{Family, contains, masked};
use crate::select::{Place, Selection, Serving, Target, is_usable, select};

/// A service port of one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Whose it is.
    pub service: ObjectName,
    /// Name of the port; empty when it has none.
    pub port_name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// The service's cluster address of this family.
    pub cluster_address: IpAddr,
    /// Port on that and on the external addresses.
    pub port: u16,
    /// Port on the node's addresses; 0 is none.
    pub node_port: u16,
    /// `externalIPs` of this family.
    pub external_addresses: Vec<IpAddr>,
    /// Load balancer addresses of this family.
    pub balancer_addresses: Vec<IpAddr>,
    /// Who may use the load balancer addresses; empty is everybody. The bits behind each prefix are zero.
    pub source_ranges: Vec<Prefix>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Session affinity timeout; 0 is none.
    pub affinity_secs: u32,
    /// `healthCheckNodePort`; 0 is none.
    pub health_check_port: u16,
    /// Endpoints for new connections under the Cluster policy.
    pub cluster: Vec<Target>,
    /// Endpoints for new connections under the Local policy.
    pub local: Vec<Target>,
    /// Endpoints on this node, whatever the policy picks.
    pub here: Vec<Target>,
    /// Endpoints that still answer, ready or terminating, wherever they are.
    pub serving: Vec<Target>,
    /// An endpoint that new connections may use exists somewhere, if not for this node.
    pub exists: bool,
}

impl Port {
    /// The ports of a service that this family has; none when it is gone, has no cluster address, or is another
    /// proxy's.
    pub fn all(view: &View, name: &ObjectName, family: Family, place: Place<'_>) -> Vec<Self> {
        let ours = |service: &&Service| service.kind == ServiceKind::ClusterIp && !service.foreign_proxy;
        let Some(service) = view.service(name).filter(ours) else { return Vec::new() };
        let Some(address) = usable(family, &service.addresses).next() else { return Vec::new() };
        service.ports.iter().map(|port| Self::new(view, service, port, address, place)).collect()
    }

    fn new(view: &View, service: &Service, port: &ServicePort, address: IpAddr, place: Place<'_>) -> Self {
        let family = Family::of(&address);
        let endpoints = select(port, family == Family::V4, view.slices_of(&service.name), place);
        Self {
            service: service.name.clone(),
            port_name: port.name.clone(),
            protocol: port.protocol,
            cluster_address: address,
            port: port.port,
            node_port: port.node_port,
            external_addresses: usable(family, &service.external_addresses).collect(),
            balancer_addresses: usable(family, &service.load_balancer_addresses).collect(),
            source_ranges: source_ranges(service, family),
            internal_local: service.internal_policy == TrafficPolicy::Local,
            external_local: service.external_policy == TrafficPolicy::Local,
            affinity_secs: service.affinity_secs,
            health_check_port: service.health_check_port,
            cluster: targets(&endpoints, |serving| serving.cluster),
            local: targets(&endpoints, |serving| serving.local),
            here: targets(&endpoints, |serving| serving.here),
            serving: targets(&endpoints, |_| true),
            exists: endpoints.exists,
        }
    }

    /// `namespace/name:port`, without the colon for a port that has no name.
    pub fn name(&self) -> String {
        match self.port_name.as_str() {
            "" => self.service.to_string(),
            port => format!("{}:{port}", self.service),
        }
    }

    /// `tcp`, `udp`, `sctp`.
    pub const fn protocol(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// It can be reached by something other than its cluster address.
    pub fn is_external(&self) -> bool {
        self.node_port != 0 || !self.external_addresses.is_empty() || !self.balancer_addresses.is_empty()
    }

    /// There is an endpoint that somebody could reach, if not from here.
    pub fn has_endpoints(&self) -> bool {
        self.exists
    }

    /// The cluster address leads to an endpoint from here.
    pub fn has_internal(&self) -> bool {
        if self.internal_local { !self.local.is_empty() } else { !self.cluster.is_empty() }
    }

    /// External addresses lead to an endpoint from here, also for those who are not short-circuited.
    pub fn has_external(&self) -> bool {
        if self.external_local { !self.local.is_empty() } else { !self.cluster.is_empty() }
    }

    /// Endpoints of the Cluster policy are needed: for the cluster address, for external addresses, or for local
    /// clients of external addresses, whom a Local policy does not concern.
    pub fn uses_cluster(&self) -> bool {
        (!self.internal_local || self.is_external()) && !self.cluster.is_empty()
    }

    /// Endpoints of the Local policy are needed.
    pub fn uses_local(&self) -> bool {
        (self.internal_local || self.external_local && self.is_external()) && !self.local.is_empty()
    }

    /// Every endpoint that a rule leads to.
    pub fn reachable(&self) -> Vec<Target> {
        let cluster = self.cluster.iter().filter(|_| self.uses_cluster());
        let local = self.local.iter().filter(|_| self.uses_local());
        let mut all: Vec<Target> = cluster.chain(local).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Source ranges restrict the load balancer addresses.
    pub fn is_restricted(&self) -> bool {
        !self.balancer_addresses.is_empty() && !self.source_ranges.is_empty()
    }

    /// The node's own address is in a source range. A node that holds the load balancer's address as its own is then
    /// let in as well: it would use that very address as its source.
    pub fn admits_node(&self, node_addresses: &[IpAddr]) -> bool {
        let admits = |range: &Prefix| node_addresses.iter().any(|address| contains(*range, *address));
        self.source_ranges.iter().any(admits)
    }
}

/// Those of a family, without those that no packet can be sent to.
fn usable(family: Family, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
    family.only(addresses).filter(|address| is_usable(*address))
}

/// None when one of them is everybody: `ipset` knows no range of length 0, and it restricts nobody.
fn source_ranges(service: &Service, family: Family) -> Vec<Prefix> {
    let ranges: Vec<Prefix> = family.only_prefixes(&service.source_ranges).map(masked).collect();
    if ranges.iter().any(|range| range.length == 0) { Vec::new() } else { ranges }
}

/// `address:port`, with brackets for IPv6.
pub(crate) fn socket(target: &Target) -> String {
    match target.address {
        IpAddr::V4(address) => format!("{address}:{}", target.port),
        IpAddr::V6(address) => format!("[{address}]:{}", target.port),
    }
}

fn targets(selection: &Selection, which: impl Fn(&Serving) -> bool) -> Vec<Target> {
    selection.serving.iter().filter(|serving| which(serving)).map(|serving| serving.target).collect()
}
