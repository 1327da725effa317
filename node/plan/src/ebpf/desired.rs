//! The blocks and frontends that a service or a pod should have.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use fairlead_abi::{
    Addr16, Be16,
    service::{
        SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_EXTERNAL, SERVICE_EXTERNAL_LOCAL, SERVICE_HOST_ALLOWED,
        SERVICE_INSIDE_ONLY, SERVICE_INTERNAL_LOCAL, SERVICE_SOURCE_RANGES, ServiceKey,
    },
};
use fairlead_model::{
    Algorithm, Endpoint, HostPort, ObjectName, Pod, Prefix, Protocol, Service, ServiceKind, ServicePort,
    TrafficPolicy, View,
};

use super::{
    local::{Limits, LocalNode},
    problem::{Owner, Problem},
};
use crate::select::{Place, Selection, Serving, Target, is_usable, select};

/// Which block of an owner.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockName {
    /// Name of the service's port, or what is written for a host port.
    pub port: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Family.
    pub v4: bool,
}

/// A block as it should be.
#[derive(Clone, Debug)]
pub(super) struct DesiredBlock {
    pub(super) name: BlockName,
    /// The frontends and their flags.
    pub(super) frontends: Vec<(ServiceKey, u32)>,
    pub(super) selection: Selection,
    pub(super) affinity_secs: u32,
    pub(super) algorithm: Algorithm,
    pub(super) source_ranges: BTreeSet<Prefix>,
}

/// Everything that one owner should have.
#[derive(Clone, Debug, Default)]
pub(super) struct Desired {
    pub(super) blocks: Vec<DesiredBlock>,
    /// Addresses that are a service's.
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) problems: Vec<Problem>,
}

/// What the node is, as far as it matters to what it serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    pub(super) place: Place<'a>,
    pub(super) local: &'a LocalNode,
    /// Where node ports are, and who is denied cluster addresses.
    pub(super) limits: &'a Limits,
}

/// What an owner should have; nothing when it is gone, not served here, or served by another proxy.
pub(super) fn desired(view: &View, owner: &Owner, here: Here<'_>) -> Desired {
    match owner {
        Owner::Service(name) => {
            let ours = |service: &&Service| service.kind == ServiceKind::ClusterIp && !service.foreign_proxy;
            view.service(name).filter(ours).map_or_else(Desired::default, |service| {
                let reader = Reader { view, owner, here, desired: Desired::default() };
                reader.service(service)
            })
        }
        Owner::Pod(name) => {
            let ours = |pod: &&Pod| pod.node == here.place.node && !pod.host_network;
            view.pod(name)
                .filter(ours)
                .map_or_else(Desired::default, |pod| host_ports(owner, pod, here.local))
        }
        Owner::Node => Desired::default(),
    }
}

/// What cannot be served of a service as it is, whatever else there is on the node and in the cluster.
pub fn problems_of(view: &View, name: &ObjectName) -> Vec<Problem> {
    let (nobody, local) = (BTreeSet::new(), LocalNode::default());
    let place = Place { node: "", zone: "", node_addresses: &nobody };
    let limits = Limits { node_ports: 0..=u16::MAX, ..Limits::default() };
    let here = Here { place, local: &local, limits: &limits };
    desired(view, &Owner::Service(name.clone()), here).problems
}

/// Reads one service.
struct Reader<'a> {
    view: &'a View,
    owner: &'a Owner,
    here: Here<'a>,
    desired: Desired,
}

/// Addresses of one family, each with the flags of its frontends.
type Addresses = BTreeMap<IpAddr, u32>;

impl Reader<'_> {
    fn service(mut self, service: &Service) -> Desired {
        let ports = self.ports(service);
        let families: Vec<bool> = [true, false]
            .into_iter()
            .filter(|v4| service.addresses.iter().any(|address| address.is_ipv4() == *v4))
            .collect();
        let foreign = service.external_addresses.iter().chain(&service.load_balancer_addresses);
        for address in foreign.filter(|address| !families.contains(&address.is_ipv4())) {
            let (owner, address) = (self.owner.clone(), *address);
            self.desired.problems.push(Problem::ForeignFamily { owner, address });
        }
        for v4 in families {
            self.family(service, &ports, v4);
        }
        self.bad_endpoints(service);
        self.desired
    }

    /// Notes endpoints that [`select`] leaves out because they cannot be reached.
    fn bad_endpoints(&mut self, service: &Service) {
        let mut bad = (0, None);
        for slice in self.view.slices_of(&service.name) {
            let without_port = slice.ports.iter().any(|port| port.port == 0);
            let usable = |endpoint: &&Endpoint| !without_port && is_usable(endpoint.address);
            let count = slice.endpoints.len() - slice.endpoints.iter().filter(usable).count();
            if count > 0 {
                bad = (bad.0 + count, Some(&slice.name));
            }
        }
        if let (count, Some(slice)) = bad {
            let (owner, slice) = (self.owner.clone(), slice.clone());
            self.desired.problems.push(Problem::BadEndpoints { owner, count, slice });
        }
    }

    /// The ports that can be served.
    fn ports<'b>(&mut self, service: &'b Service) -> Vec<&'b ServicePort> {
        let mut names = HashSet::new();
        let mut ports = Vec::new();
        for port in &service.ports {
            let (owner, name) = (self.owner.clone(), port.name.clone());
            if port.port == 0 {
                self.desired.problems.push(Problem::PortZero { owner, port: name });
            } else if names.insert((&port.name, port.protocol)) {
                ports.push(port);
            } else {
                self.desired.problems.push(Problem::SamePort { owner, port: name });
            }
        }
        ports
    }

    fn family(&mut self, service: &Service, ports: &[&ServicePort], v4: bool) {
        let (source_ranges, restriction) = self.source_ranges(service, v4);
        let addresses = self.addresses(service, v4, restriction);
        let external = external_flags(service);
        let mut seen = HashSet::new();
        for port in ports {
            let frontend = |address: Addr16, number: u16, scope: u8| ServiceKey {
                addr: address,
                port: Be16::new(number),
                proto: port.protocol.number(),
                scope,
            };
            let mut frontends: Vec<(ServiceKey, u32)> = addresses
                .iter()
                .map(|(address, flags)| (frontend((*address).into(), port.port, SCOPE_ADDRESS), *flags))
                .collect();
            if self.has_node_port(port) {
                let any = if v4 { Addr16::UNSPECIFIED_V4 } else { Addr16::UNSPECIFIED };
                frontends.push((frontend(any, port.node_port, SCOPE_NODE_PORT), external));
            }
            let slices = self.view.slices_of(&service.name);
            let mut selection = select(port, v4, slices, self.here.place);
            if port.protocol == Protocol::Sctp {
                self.keep_ports(port, &mut selection);
            }
            frontends.retain(|(key, _)| {
                let first = seen.insert(*key);
                if !first {
                    let (owner, frontend) = (self.owner.clone(), describe(key));
                    self.desired.problems.push(Problem::Taken { by: owner.clone(), owner, frontend });
                }
                first
            });
            self.desired.blocks.push(DesiredBlock {
                name: BlockName { port: port.name.clone(), protocol: port.protocol, v4 },
                frontends,
                selection,
                affinity_secs: service.affinity_secs,
                algorithm: service.algorithm,
                source_ranges: source_ranges.clone(),
            });
        }
    }

    /// Whether the programs look the port's node port up.
    fn has_node_port(&mut self, port: &ServicePort) -> bool {
        let (number, owner) = (port.node_port, self.owner.clone());
        let protocol = port.protocol.as_str();
        if number == 0 {
            return false;
        }
        if !self.here.limits.node_ports.contains(&number) {
            let range = self.here.limits.node_ports.clone().into_inner();
            self.desired.problems.push(Problem::OutOfRange { owner, port: number, protocol, range });
            return false;
        }
        if port.protocol == Protocol::Sctp && number != port.port {
            let (frontend, to) = (format!("node port {number}"), port.port);
            self.desired.problems.push(Problem::SctpPort { owner, frontend, to });
            return false;
        }
        true
    }

    /// Lets go of endpoints with another port than the service's: the checksum of an SCTP packet is over all of it (RFC 9260
    /// section 6.8), so that a port cannot be changed on the way.
    fn keep_ports(&mut self, port: &ServicePort, selection: &mut Selection) {
        let other = selection.serving.iter().map(|serving| serving.target.port).find(|to| *to != port.port);
        let Some(to) = other else { return };
        selection.serving.retain(|serving| serving.target.port == port.port);
        selection.exists &= !selection.serving.is_empty();
        let (owner, frontend) = (self.owner.clone(), format!("port {}", port.port));
        self.desired.problems.push(Problem::SctpPort { owner, frontend, to });
    }

    /// The service's addresses of a family. One that is of several kinds is of the first kind.
    fn addresses(&mut self, service: &Service, v4: bool, restriction: u32) -> Addresses {
        let internal = match service.internal_policy {
            TrafficPolicy::Cluster => 0,
            TrafficPolicy::Local => SERVICE_INTERNAL_LOCAL,
        };
        let inside_only = if self.here.limits.deny_outside { SERVICE_INSIDE_ONLY } else { 0 };
        let external = external_flags(service);
        let kinds = [
            (&service.addresses, internal | inside_only),
            (&service.external_addresses, external),
            (&service.load_balancer_addresses, external | restriction),
        ];
        let mut addresses = Addresses::new();
        for (list, flags) in kinds {
            for address in list.iter().copied().filter(|address| address.is_ipv4() == v4) {
                let owner = || self.owner.clone();
                let cluster = flags & SERVICE_EXTERNAL == 0;
                if !is_usable(address) {
                    self.desired.problems.push(Problem::BadAddress { owner: owner(), address });
                } else if cluster && self.is_node(address) {
                    self.desired.problems.push(Problem::NodeAddress { owner: owner(), address });
                } else {
                    addresses.entry(address).or_insert(flags);
                }
            }
        }
        self.desired.addresses.extend(addresses.keys());
        addresses
    }

    /// Who may use the load balancer's addresses of a family, and the flags that say so.
    fn source_ranges(&mut self, service: &Service, v4: bool) -> (BTreeSet<Prefix>, u32) {
        let mut balanced = service.load_balancer_addresses.iter().filter(|address| address.is_ipv4() == v4);
        let Some(address) = balanced.next().copied().filter(|_| !service.source_ranges.is_empty()) else {
            return (BTreeSet::new(), 0);
        };
        let mut ranges = BTreeSet::new();
        for range in service.source_ranges.iter().filter(|range| range.address.is_ipv4() == v4) {
            if range.length > if v4 { 32 } else { 128 } {
                self.desired.problems.push(Problem::BadRange { owner: self.owner.clone(), range: *range });
            } else {
                ranges.insert(*range);
            }
        }
        if !service.source_ranges.iter().any(|range| range.address.is_ipv4() == v4) {
            self.desired.problems.push(Problem::Unrestricted { owner: self.owner.clone(), address });
            return (BTreeSet::new(), 0);
        }
        if ranges.iter().any(|range| range.length == 0) {
            return (BTreeSet::new(), 0);
        }
        let host =
            self.here.local.addresses.keys().any(|own| ranges.iter().any(|range| contains(range, *own)));
        (ranges, SERVICE_SOURCE_RANGES | if host { SERVICE_HOST_ALLOWED } else { 0 })
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.here.local.addresses.contains_key(&address) || self.here.place.node_addresses.contains(&address)
    }
}

fn external_flags(service: &Service) -> u32 {
    SERVICE_EXTERNAL
        | match service.external_policy {
            TrafficPolicy::Cluster => 0,
            TrafficPolicy::Local => SERVICE_EXTERNAL_LOCAL,
        }
}

/// One block for each host port and family of a pod.
fn host_ports(owner: &Owner, pod: &Pod, local: &LocalNode) -> Desired {
    let mut desired = Desired::default();
    let mut seen = HashSet::new();
    for port in &pod.host_ports {
        let name = host_port_name(port);
        if port.port == 0 || port.pod_port == 0 {
            desired.problems.push(Problem::PortZero { owner: owner.clone(), port: name });
            continue;
        }
        for address in &pod.addresses {
            let v4 = address.is_ipv4();
            let on = |own: &IpAddr| match port.address {
                Some(only) if !only.is_unspecified() => *own == only,
                Some(any) => any.is_ipv4() == v4,
                None => true,
            };
            let served = local.addresses.iter().filter(|(own, serves)| **serves && own.is_ipv4() == v4);
            let frontends = served.map(|(own, _)| own).filter(|own| on(own)).map(|own| ServiceKey {
                addr: (*own).into(),
                port: Be16::new(port.port),
                proto: port.protocol.number(),
                scope: SCOPE_ADDRESS,
            });
            let frontends: Vec<_> =
                frontends.filter(|key| seen.insert(*key)).map(|key| (key, SERVICE_EXTERNAL)).collect();
            if frontends.is_empty() {
                continue;
            }
            let serving = Serving {
                target: Target { address: *address, port: port.pod_port },
                cluster: true,
                local: true,
                here: true,
                host: false,
            };
            desired.blocks.push(DesiredBlock {
                name: BlockName { port: name.clone(), protocol: port.protocol, v4 },
                frontends,
                selection: Selection { serving: vec![serving], exists: true },
                affinity_secs: 0,
                algorithm: Algorithm::Random,
                source_ranges: BTreeSet::new(),
            });
        }
    }
    desired
}

fn host_port_name(port: &HostPort) -> String {
    match port.address {
        Some(address) => format!("host port {} of {address}", port.port),
        None => format!("host port {}", port.port),
    }
}

/// A frontend for a person.
pub(super) fn describe(key: &ServiceKey) -> String {
    let protocol = match key.proto {
        fairlead_abi::service::TCP => "TCP",
        fairlead_abi::service::UDP => "UDP",
        _ => "SCTP",
    };
    match key.scope {
        SCOPE_NODE_PORT => format!("node port {}/{protocol}", key.port.get()),
        _ => format!("{}/{protocol}", std::net::SocketAddr::new(key.addr.to_ip(), key.port.get())),
    }
}

/// Whether the prefix has the address.
pub fn contains(range: &Prefix, address: IpAddr) -> bool {
    let shift = |bits: u32| bits.saturating_sub(u32::from(range.length));
    match (range.address, address) {
        (IpAddr::V4(net), IpAddr::V4(v4)) => {
            (net.to_bits() ^ v4.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(v6)) => {
            (net.to_bits() ^ v6.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}
