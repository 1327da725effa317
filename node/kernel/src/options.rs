//! How the node carries services.

use std::{ops::RangeInclusive, str::FromStr};

use fairlead_abi::{
    LAYOUT_VERSION,
    names::{self, MapSpec, globals},
};
use fairlead_plan::{Limits, NODE_PORTS};

/// How connections from outside reach backends on other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Forwarding {
    /// Over the overlay with the client's address; the replies come back the same way.
    #[default]
    Encapsulated,
    /// Over the overlay, and the backend's node answers the client directly.
    Direct,
    /// With this node's address in place of the client's; no overlay is needed.
    Masquerade,
    /// Through the host's stack, which masquerades what goes to other nodes: the pods' network is somebody else's. Nobody chooses
    /// it.
    Stack,
}

impl Forwarding {
    /// Those that can be chosen, by name.
    pub const ALL: &[(&str, Self)] =
        &[("encapsulated", Self::Encapsulated), ("direct", Self::Direct), ("masquerade", Self::Masquerade)];

    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Encapsulated => globals::FORWARD_ENCAPSULATED,
            Self::Direct => globals::FORWARD_DIRECT_RETURN,
            Self::Masquerade => globals::FORWARD_MASQUERADED,
            Self::Stack => globals::FORWARD_BY_STACK,
        }
    }

    pub(crate) const fn needs_overlay(self) -> bool {
        matches!(self, Self::Encapsulated | Self::Direct)
    }
}

/// Where the driver's program runs, which sends packets on to other machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Xdp {
    /// In the driver where that serves, else nowhere.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack, at its beginning. It saves nothing there over the programs on links, but needs no driver.
    Generic,
    /// Nowhere.
    Off,
}

impl Xdp {
    /// All of them by name.
    pub const ALL: &[(&str, Self)] =
        &[("auto", Self::Auto), ("native", Self::Native), ("generic", Self::Generic), ("off", Self::Off)];
}

impl FromStr for Forwarding {
    /// Which names there are.
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        one_of(Self::ALL, name)
    }
}

impl FromStr for Xdp {
    /// Which names there are.
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        one_of(Self::ALL, name)
    }
}

fn one_of<T: Copy>(all: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|(known, _)| *known).collect();
        format!("write {}", known.join(" or "))
    })
}

/// How many entries the large maps hold. A change makes new maps, which are filled and then put into use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// Frontends: an entry for each address, port and protocol of a service.
    pub services: u32,
    /// Choices: an entry for each endpoint of each service port, twice over while they change.
    pub slots: u32,
    /// Backends: an entry for each endpoint of each service port.
    pub backends: u32,
    /// Clients of services with session affinity.
    pub affinity: u32,
    /// Connections that the link programs translate, two entries each.
    pub conntrack: u32,
    /// Pod networks of other nodes, and one more.
    pub routes: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            services: names::SERVICES.capacity,
            slots: names::SLOTS.capacity,
            backends: names::BACKENDS.capacity,
            affinity: names::AFFINITY.capacity,
            conntrack: names::CONNTRACK.capacity,
            routes: names::ROUTES.capacity,
        }
    }
}

impl Capacities {
    /// Maps whose capacity is chosen.
    pub(crate) fn chosen(&self) -> [(MapSpec, u32); 6] {
        [
            (names::SERVICES, self.services),
            (names::SLOTS, self.slots),
            (names::BACKENDS, self.backends),
            (names::AFFINITY, self.affinity),
            (names::CONNTRACK, self.conntrack),
            (names::ROUTES, self.routes),
        ]
    }

    /// What pinned maps must look like: the version of the layout and the chosen capacities.
    pub(crate) fn layout(&self) -> String {
        let mut layout = LAYOUT_VERSION.to_string();
        for (map, capacity) in self.chosen().iter().filter(|(map, capacity)| map.capacity != *capacity) {
            layout += &format!("-{}-{capacity}", map.name.to_lowercase());
        }
        layout
    }
}

/// Who carries services.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Carriage {
    /// The programs, by their maps.
    #[default]
    Programs,
    /// The programs, once the maps are filled: until then rules do, and packets of pods go through the host's stack,
    /// where rules translate their addresses ([`crate::Pods::use_shortcuts`]).
    ProgramsSoon,
    /// Rules. No socket program is attached, and packets of pods go through the host's stack.
    Rules,
}

/// How the node carries services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceOptions {
    /// How connections from outside reach backends on other nodes.
    pub forwarding: Forwarding,
    /// UDP port of the overlay.
    pub overlay_port: u16,
    /// Where the driver's program runs.
    pub xdp: Xdp,
    /// The socket hooks translate for the host's namespace only; pods' connections are left to the link programs, so
    /// that a mesh in the pod sees the service's address.
    pub sockets_of_host_only: bool,
    /// Clients outside the cluster are denied cluster addresses.
    pub deny_outside: bool,
    /// Where node ports are.
    pub node_ports: RangeInclusive<u16>,
    /// Ports to masquerade with. They should lie outside `net.ipv4.ip_local_port_range`, and are reserved besides.
    pub masquerade_ports: RangeInclusive<u16>,
    /// With [`Forwarding::Stack`], the bits of a packet's mark that ask the stack to masquerade it.
    pub masquerade_mark: u32,
    /// How large maps are.
    pub capacities: Capacities,
    /// Who carries services.
    pub carriage: Carriage,
}

impl ServiceOptions {
    /// What a planner has to keep to.
    pub fn limits(&self) -> Limits {
        let Capacities { services, slots, backends, routes, .. } = self.capacities;
        let (node_ports, deny_outside) = (self.node_ports.clone(), self.deny_outside);
        Limits { frontends: services, slots, backends, routes, node_ports, deny_outside, ..Limits::default() }
    }
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            forwarding: Forwarding::default(),
            overlay_port: OVERLAY_PORT,
            xdp: Xdp::default(),
            sockets_of_host_only: false,
            deny_outside: false,
            node_ports: NODE_PORTS,
            masquerade_ports: 61_000..=65_535,
            // kube-proxy's.
            masquerade_mark: 1 << 14,
            capacities: Capacities::default(),
            carriage: Carriage::default(),
        }
    }
}

/// VXLAN (IANA).
const OVERLAY_PORT: u16 = 4789;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_names_its_version_and_what_was_chosen() {
        assert_eq!(Capacities::default().layout(), LAYOUT_VERSION.to_string());
        let larger = Capacities { conntrack: 1_000_000, ..Capacities::default() };
        assert_eq!(larger.layout(), format!("{LAYOUT_VERSION}-conntrack-1000000"));
    }
}
