//! Which endpoints a service port uses on this node.
//!
//! The rules are kube-proxy's (`pkg/proxy/topology.go`, `CategorizeEndpoints`; KEP-1669, KEP-2433, KEP-3015): ready
//! endpoints while there is one, else those that still serve while terminating, decided for each traffic policy by
//! itself; topology hints only when every ready endpoint has them and one is meant for this place; hints never narrow a
//! Local policy. Every proxy mode starts from a [`Selection`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_model::{Endpoint, EndpointSlice, ServicePort, View};

/// Where the node that plans is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Its zone; empty when it has none.
    pub zone: &'a str,
    /// Addresses of all nodes, see [`node_addresses`].
    pub node_addresses: &'a BTreeSet<IpAddr>,
}

/// The addresses of all nodes: an endpoint that has one of them shares its node's network.
pub fn node_addresses(view: &View) -> BTreeSet<IpAddr> {
    view.nodes().flat_map(|node| node.addresses.iter().copied()).collect()
}

/// An endpoint's address and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Port, host order.
    pub port: u16,
}

/// An endpoint that serves, and what it may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Serving {
    /// Address and port.
    pub target: Target,
    /// New connections under the policy Cluster may choose it.
    pub cluster: bool,
    /// New connections under the policy Local may choose it.
    pub local: bool,
    /// It is on this node.
    pub here: bool,
    /// Its address is a node's, not a pod's.
    pub host: bool,
}

/// The endpoints of one service port and one family.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// All that serve, sorted; those that neither policy chooses go on with what has begun.
    pub serving: Vec<Serving>,
    /// An endpoint that new connections may use exists somewhere, though perhaps not under the policy in question: then
    /// a connection without a backend is dropped, else it is refused (kube-proxy's `hasAnyEndpoints`).
    pub exists: bool,
}

impl Selection {
    /// What new connections under the policy Cluster may choose from.
    pub fn cluster(&self) -> impl Iterator<Item = &Serving> {
        self.serving.iter().filter(|serving| serving.cluster)
    }

    /// What new connections under the policy Local may choose from.
    pub fn local(&self) -> impl Iterator<Item = &Serving> {
        self.serving.iter().filter(|serving| serving.local)
    }
}

/// Selects among the endpoints of `slices` for one port of a service and one address family.
pub fn select<'a>(
    port: &ServicePort,
    v4: bool,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    place: Place<'_>,
) -> Selection {
    let endpoints = join(port, v4, slices);
    let here = |endpoint: &Endpoint| !endpoint.node.is_empty() && *endpoint.node == *place.node;
    let some_ready = endpoints.values().any(|endpoint| endpoint.ready);
    let some_ready_here = endpoints.values().any(|endpoint| endpoint.ready && here(endpoint));
    let topology = Topology::from_hints(&endpoints, place);

    let mut selection = Selection::default();
    for (target, endpoint) in endpoints {
        let draining = drains(endpoint);
        selection.exists |= endpoint.ready || draining;
        if !endpoint.ready && !endpoint.serving {
            continue;
        }
        let here = here(endpoint);
        selection.serving.push(Serving {
            target,
            cluster: if some_ready { endpoint.ready && topology.admits(endpoint, place) } else { draining },
            local: here && if some_ready_here { endpoint.ready } else { draining },
            here,
            host: place.node_addresses.contains(&target.address),
        });
    }
    selection
}

/// Serves while it terminates: what new connections get when nobody is ready.
fn drains(endpoint: &Endpoint) -> bool {
    !endpoint.ready && endpoint.serving && endpoint.terminating
}

/// The endpoints that have the port, by address and number. An address that several slices carry (as they do while
/// endpoints migrate between slices) counts once; the one that is not terminating wins.
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
            for endpoint in
                slice.endpoints.iter().filter(|e| is_usable(e.address) && e.address.is_ipv4() == v4)
            {
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

/// Whether a packet can be sent to the address at all; the API refuses the others for endpoints, too.
pub(crate) fn is_usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
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
