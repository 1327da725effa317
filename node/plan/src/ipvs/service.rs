//! What one service has in IPVS and in the ipsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_model::{Prefix, Protocol};

use super::{
    AffinitySecs, Server,
    sets::{
        CLUSTER_IP, EXTERNAL_IP, EXTERNAL_IP_LOCAL, HEALTH_CHECK, LOAD_BALANCER, LOAD_BALANCER_FW,
        LOAD_BALANCER_LOCAL, LOOP_BACK, NODE_PORT_LOCAL_SCTP, NODE_PORT_LOCAL_TCP, NODE_PORT_LOCAL_UDP,
        NODE_PORT_SCTP, NODE_PORT_TCP, NODE_PORT_UDP, SOURCE_CIDR, SOURCE_IP,
    },
};
use crate::{
    classic::{Config, Family, Port, text},
    select::Target,
};

/// Virtual servers, addresses and members of sets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Rendered {
    pub(super) servers: BTreeMap<Server, (AffinitySecs, BTreeSet<Target>)>,
    pub(super) bound: BTreeSet<IpAddr>,
    pub(super) members: BTreeSet<(&'static str, String)>,
    pub(super) blocked: BTreeSet<Server>,
}

impl Rendered {
    pub(super) fn new(ports: &[Port], config: &Config, family: Family) -> Self {
        let mut rendered = Self::default();
        for port in ports {
            rendered.port(port, config, family);
        }
        rendered
    }

    fn port(&mut self, port: &Port, config: &Config, family: Family) {
        let protocol = port.protocol();
        for Target { address, port } in &port.here {
            self.member(LOOP_BACK, format!("{address},{protocol}:{port},{address}"));
        }
        self.member(CLUSTER_IP, format!("{},{protocol}:{}", port.cluster_address, port.port));
        self.server(port, port.cluster_address, port.port, port.internal_local);
        self.bound.insert(port.cluster_address);
        for address in &port.external_addresses {
            let set = if port.external_local { EXTERNAL_IP_LOCAL } else { EXTERNAL_IP };
            self.member(set, format!("{address},{protocol}:{}", port.port));
            self.external(port, *address, config);
        }
        for address in &port.balancer_addresses {
            self.balancer(port, *address, config);
        }
        if port.node_port != 0 {
            self.node_port(port, config, family);
        }
        if port.health_check_port != 0 {
            self.member(HEALTH_CHECK, port.health_check_port.to_string());
        }
    }

    fn balancer(&mut self, port: &Port, address: IpAddr, config: &Config) {
        let (protocol, number) = (port.protocol(), port.port);
        let member = format!("{address},{protocol}:{number}");
        self.member(LOAD_BALANCER, member.clone());
        if port.external_local {
            self.member(LOAD_BALANCER_LOCAL, member.clone());
        }
        if !port.source_ranges.is_empty() {
            self.member(LOAD_BALANCER_FW, member.clone());
            for range in &port.source_ranges {
                self.member(SOURCE_CIDR, format!("{member},{}", network(*range)));
            }
            // The address is on the dummy interface, so the node would use it as its own source.
            if port.admits_node(&config.node_addresses) {
                self.member(SOURCE_IP, format!("{member},{address}"));
            } else {
                self.blocked.insert(Server { address, port: number, protocol: port.protocol });
            }
        }
        self.external(port, address, config);
    }

    fn node_port(&mut self, port: &Port, config: &Config, family: Family) {
        let addresses: Vec<IpAddr> = match config.selected_node_ports(family) {
            Some(addresses) => addresses,
            None => family.only(&config.local_addresses).collect(),
        };
        let (all, local) = match port.protocol {
            Protocol::Tcp => (NODE_PORT_TCP, NODE_PORT_LOCAL_TCP),
            Protocol::Udp => (NODE_PORT_UDP, NODE_PORT_LOCAL_UDP),
            Protocol::Sctp => (NODE_PORT_SCTP, NODE_PORT_LOCAL_SCTP),
        };
        for address in addresses.into_iter().filter(|address| !address.is_loopback()) {
            let member = match port.protocol {
                Protocol::Sctp => format!("{address},sctp:{}", port.node_port),
                _ => port.node_port.to_string(),
            };
            self.member(all, member.clone());
            if port.external_local {
                self.member(local, member);
            }
            self.server(port, address, port.node_port, port.external_local);
        }
    }

    /// An external address is bound unless the node has it already.
    fn external(&mut self, port: &Port, address: IpAddr, config: &Config) {
        self.server(port, address, port.port, port.external_local);
        if !config.local_addresses.contains(&address) {
            self.bound.insert(address);
        }
    }

    fn server(&mut self, port: &Port, address: IpAddr, number: u16, local_only: bool) {
        // kube-proxy falls back to all endpoints here, where it has looked for them: nothing asks for them when the one
        // address that there is leads to local ones.
        let endpoints = match local_only && !(port.local.is_empty() && port.uses_cluster()) {
            true => &port.local,
            false => &port.cluster,
        };
        let server = Server { address, port: number, protocol: port.protocol };
        self.servers.insert(server, (port.affinity_secs, endpoints.iter().copied().collect()));
    }

    fn member(&mut self, set: &'static str, member: String) {
        self.members.insert((set, member));
    }
}

/// As `ipset save` prints it: one address has no length.
fn network(range: Prefix) -> String {
    let bits = if range.address.is_ipv4() { 32 } else { 128 };
    if range.length == bits { range.address.to_string() } else { text(range) }
}
