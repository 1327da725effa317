//! What one service has in the table.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Element, Value,
    fixed::{
        CLUSTER_IPS, FIREWALL_IPS, HAIRPINS, NO_ENDPOINT_NODE_PORTS, NO_ENDPOINT_SERVICES, REJECT,
        SERVICE_IPS, SERVICE_NODE_PORTS, protocol,
    },
};
use crate::{
    classic::{Config, Family, Port, hash, text},
    select::Target,
};

/// The longest name of a chain (`NFT_NAME_MAXLEN` is 256) less the longest prefix.
const NAME_LEN_MAX: usize = 240;

/// Elements, chains and affinity sets of a service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Rendered {
    pub(super) elements: BTreeMap<Element, Value>,
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// With their timeouts in seconds.
    pub(super) sets: BTreeMap<String, u32>,
}

/// Only names that are made from a service have a slash.
pub(super) fn is_service_chain(chain: &str) -> bool {
    chain.contains('/')
}

pub(super) fn is_affinity_set(set: &str) -> bool {
    set.starts_with("affinity-")
}

impl Rendered {
    pub(super) fn new(ports: &[Port], config: &Config, family: Family) -> Self {
        let mut rendered = Self::default();
        for port in ports {
            Writer { base: base_name(port), port, config, ip: protocol(family), family, out: &mut rendered }
                .render();
        }
        rendered
    }
}

struct Writer<'a> {
    port: &'a Port,
    config: &'a Config,
    family: Family,
    ip: &'static str,
    /// What the names of the port's chains have in common.
    base: String,
    out: &'a mut Rendered,
}

impl Writer<'_> {
    fn render(&mut self) {
        let (cluster, local) = (format!("service-{}", self.base), format!("local-{}", self.base));
        let internal = if self.port.internal_local { &local } else { &cluster };
        self.put(CLUSTER_IPS, self.port.cluster_address.to_string(), String::new());
        let key = self.key(self.port.cluster_address);
        match self.port.has_internal() {
            true => self.put(SERVICE_IPS, key, format!("goto {internal}")),
            false => self.put(NO_ENDPOINT_SERVICES, key, self.refusal()),
        }
        let external = format!("external-{}", self.base);
        let addresses = self.port.external_addresses.iter().chain(&self.port.balancer_addresses);
        for address in addresses.copied().collect::<Vec<_>>() {
            self.external(SERVICE_IPS, NO_ENDPOINT_SERVICES, self.key(address), &external);
        }
        if self.port.node_port != 0 {
            let key = format!("{} . {}", self.port.protocol(), self.port.node_port);
            self.external(SERVICE_NODE_PORTS, NO_ENDPOINT_NODE_PORTS, key, &external);
        }
        if self.port.has_endpoints() && self.port.is_external() {
            self.external_chain(&external, &cluster, &local);
        }
        if self.port.is_restricted() {
            self.firewall();
        }
        if self.port.uses_cluster() {
            self.balance(&cluster, &self.port.cluster.clone());
        }
        if self.port.uses_local() {
            self.balance(&local, &self.port.local.clone());
        }
        self.endpoints();
    }

    /// An external address or node port leads to the external chain, for the sake of those who are short-circuited
    /// there; whoever comes back from it untranslated is refused or dropped.
    fn external(&mut self, to: &'static str, refused: &'static str, key: String, chain: &str) {
        if self.port.has_endpoints() {
            self.put(to, key.clone(), format!("goto {chain}"));
        }
        if !self.port.has_external() {
            self.put(refused, key, self.refusal());
        }
    }

    fn external_chain(&mut self, chain: &str, cluster: &str, local: &str) {
        let (ip, mark) = (self.ip, self.config.mark());
        let set_mark = format!("meta mark set meta mark or {mark}");
        let mut rules = Vec::new();
        if !self.port.external_local {
            rules.push(set_mark);
        } else if self.port.uses_cluster() {
            if let Some(pods) = self.config.pod_network(self.family) {
                rules.push(format!("{ip} saddr {pods} goto {cluster} comment \"short-circuit pod traffic\""));
            }
            rules.push(format!("fib saddr type local {set_mark} comment \"masquerade local traffic\""));
            rules
                .push(format!("fib saddr type local goto {cluster} comment \"short-circuit local traffic\""));
        }
        if self.port.has_external() {
            rules.push(format!("goto {}", if self.port.external_local { local } else { cluster }));
        }
        self.out.chains.insert(chain.to_owned(), rules);
    }

    fn firewall(&mut self) {
        let chain = format!("firewall-{}", self.base);
        let mut sources: Vec<String> = self.port.source_ranges.iter().copied().map(text).collect();
        if self.port.admits_node(&self.config.node_addresses) {
            sources.extend(self.port.balancer_addresses.iter().map(ToString::to_string));
        }
        let rule = format!("{} saddr != {{ {} }} drop", self.ip, sources.join(", "));
        self.out.chains.insert(chain.clone(), vec![rule]);
        for address in self.port.balancer_addresses.clone() {
            self.put(FIREWALL_IPS, self.key(address), format!("goto {chain}"));
        }
    }

    /// Without affinity one rule translates; with it each endpoint has a chain that remembers who was sent there.
    fn balance(&mut self, chain: &str, endpoints: &[Target]) {
        let (ip, protocol, count) = (self.ip, self.port.protocol(), endpoints.len());
        let list = |value: &dyn Fn(&Target) -> String| {
            let entries = endpoints.iter().enumerate();
            let entries: Vec<String> = entries.map(|(index, e)| format!("{index} : {}", value(e))).collect();
            entries.join(", ")
        };
        let mut rules = Vec::new();
        if self.port.affinity_secs == 0 {
            let targets = list(&|e| format!("{} . {}", e.address, e.port));
            rules.push(format!(
                "meta l4proto {protocol} dnat {ip} to numgen random mod {count} map {{ {targets} }}"
            ));
        } else {
            for name in endpoints.iter().map(|endpoint| self.endpoint_name(endpoint)) {
                rules.push(format!("{ip} saddr @affinity-{name} goto endpoint-{name}"));
            }
            let targets = list(&|e| format!("goto endpoint-{}", self.endpoint_name(e)));
            rules.push(format!("numgen random mod {count} vmap {{ {targets} }}"));
        }
        self.out.chains.insert(chain.to_owned(), rules);
    }

    fn endpoints(&mut self) {
        let (ip, protocol) = (self.ip, self.port.protocol());
        for endpoint in self.port.reachable() {
            let (address, port) = (endpoint.address, endpoint.port);
            // Only a pod of this node can be sent to itself.
            if self.port.here.contains(&endpoint) {
                self.put(HAIRPINS, format!("{address} . {address} . {protocol} . {port}"), String::new());
            }
            if self.port.affinity_secs != 0 {
                let name = self.endpoint_name(&endpoint);
                let to = match address {
                    IpAddr::V4(address) => format!("{address}:{port}"),
                    IpAddr::V6(address) => format!("[{address}]:{port}"),
                };
                let rules = vec![
                    format!("update @affinity-{name} {{ {ip} saddr }}"),
                    format!("meta l4proto {protocol} dnat to {to}"),
                ];
                self.out.chains.insert(format!("endpoint-{name}"), rules);
                self.out.sets.insert(format!("affinity-{name}"), self.port.affinity_secs);
            }
        }
    }

    fn put(&mut self, container: &'static str, key: String, value: Value) {
        self.out.elements.insert((container, key), value);
    }

    fn key(&self, address: IpAddr) -> String {
        format!("{address} . {} . {}", self.port.protocol(), self.port.port)
    }

    fn refusal(&self) -> Value {
        if self.port.has_endpoints() { "drop".to_owned() } else { format!("goto {REJECT}") }
    }

    /// `HASH-namespace/name/protocol/port__address/port`.
    fn endpoint_name(&self, endpoint: &Target) -> String {
        let address = endpoint.address.to_string().replace(':', ".");
        hashed(&format!("{}__{address}/{}", full_name(self.port), endpoint.port))
    }
}

fn base_name(port: &Port) -> String {
    hashed(&full_name(port))
}

fn full_name(port: &Port) -> String {
    let service = &port.service;
    format!("{}/{}/{}/{}", service.namespace, service.name, port.protocol(), port.port_name)
}

fn hashed(name: &str) -> String {
    let mut hashed = format!("{}-{name}", hash::short(name, 8));
    if hashed.len() > NAME_LEN_MAX {
        hashed.truncate(NAME_LEN_MAX - 3);
        hashed.push_str("...");
    }
    hashed
}
