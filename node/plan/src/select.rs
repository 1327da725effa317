//! Which endpoints a service port uses on this node.
//!
//! The rules are kube-proxy's (`pkg/proxy/topology.go`, `CategorizeEndpoints`; KEP-1669, KEP-2433, KEP-3015): ready
//! endpoints while there is one, else those that still serve while terminating; topology hints only when every ready
//! endpoint has them and one is meant for this place; hints never narrow a Local policy.

use std::{collections::BTreeMap, net::IpAddr};

use fairlead_model::{Endpoint, EndpointSlice, Service, ServicePort, TrafficPolicy};

/// Where the node that plans is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Its zone; empty when it has none.
    pub zone: &'a str,
}

/// An endpoint's address and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Port, host order.
    pub port: u16,
}

/// The endpoints of one service port and one family, in the order the maps want them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// For new connections, on this node. Sorted.
    pub local: Vec<Target>,
    /// For new connections, elsewhere. Sorted.
    pub remote: Vec<Target>,
    /// For connections that exist. Sorted.
    pub terminating: Vec<Target>,
    /// New connections may use `local` only.
    pub local_only: bool,
}

impl Selection {
    /// How many endpoints new connections may choose from, were the policy Cluster.
    pub fn active(&self) -> usize {
        self.local.len() + self.remote.len()
    }

    /// All of them: local, remote, terminating.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.local.iter().chain(&self.remote).chain(&self.terminating).copied()
    }
}

/// Selects among the endpoints of `slices` for one port of a service and one address family.
pub fn select<'a>(
    service: &Service,
    port: &ServicePort,
    v4: bool,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    place: Place<'_>,
) -> Selection {
    let endpoints = join(port, v4, slices);
    let local_only = service.internal_policy == TrafficPolicy::Local;
    let is_local = |endpoint: &Endpoint| !endpoint.node.is_empty() && endpoint.node == place.node;
    let any = |test: &dyn Fn(&Endpoint) -> bool| endpoints.values().any(|endpoint| test(endpoint));

    let some_ready = any(&|e| e.ready);
    let some_local_ready = any(&|e| e.ready && is_local(e));
    let topology = if local_only { Topology::Anywhere } else { Topology::from_hints(&endpoints, place) };
    let mut selection = Selection { local_only, ..Selection::default() };
    for (target, endpoint) in &endpoints {
        let local = is_local(endpoint);
        // A Local policy decides among the local endpoints alone.
        let prefer_ready = if local_only && local { some_local_ready } else { some_ready };
        let chosen = if prefer_ready {
            endpoint.ready && topology.admits(endpoint, place)
        } else {
            serves_while_terminating(endpoint)
        };
        match (chosen, local) {
            (true, true) => selection.local.push(*target),
            (true, false) => selection.remote.push(*target),
            (false, _) if serves_while_terminating(endpoint) => selection.terminating.push(*target),
            (false, _) => {}
        }
    }
    selection
}

fn serves_while_terminating(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// The endpoints that have the port, by what they would be in a map. An address that several slices carry (as they do
/// while endpoints migrate between slices) counts once; the one that is not terminating wins.
fn join<'a>(
    port: &ServicePort,
    v4: bool,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeMap<Target, &'a Endpoint> {
    let rank = |endpoint: &Endpoint| (!endpoint.terminating, endpoint.ready);
    let mut endpoints: BTreeMap<Target, &'a Endpoint> = BTreeMap::new();
    for slice in slices {
        let same = |p: &&fairlead_model::EndpointPort| p.name == port.name && p.protocol == port.protocol;
        for number in slice.ports.iter().filter(same).map(|p| p.port).filter(|number| *number != 0) {
            for endpoint in slice.endpoints.iter().filter(|e| e.address.is_ipv4() == v4) {
                let known =
                    endpoints.entry(Target { address: endpoint.address, port: number }).or_insert(endpoint);
                if rank(endpoint) > rank(known) {
                    *known = endpoint;
                }
            }
        }
    }
    endpoints
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topology {
    Anywhere,
    Node,
    Zone,
}

impl Topology {
    fn from_hints(endpoints: &BTreeMap<Target, &Endpoint>, place: Place<'_>) -> Self {
        let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
        let all_have_nodes = ready().all(|endpoint| !endpoint.hint_nodes.is_empty());
        if all_have_nodes && ready().any(|endpoint| Self::Node.admits(endpoint, place)) {
            return Self::Node;
        }
        let all_have_zones = ready().all(|endpoint| !endpoint.hint_zones.is_empty());
        if !place.zone.is_empty() && all_have_zones && ready().any(|e| Self::Zone.admits(e, place)) {
            return Self::Zone;
        }
        Self::Anywhere
    }

    fn admits(self, endpoint: &Endpoint, place: Place<'_>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Node => endpoint.hint_nodes.iter().any(|node| node == place.node),
            Self::Zone => endpoint.hint_zones.iter().any(|zone| zone == place.zone),
        }
    }
}

#[cfg(test)]
mod tests;
