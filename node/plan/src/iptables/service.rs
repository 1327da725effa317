//! The rules of one service port.

use std::collections::BTreeMap;

use super::fixed::{EXTERNAL_SERVICES, MARK_MASQ, NODE_PORTS, PROXY_FIREWALL, SERVICES};
use crate::{
    classic::{Config, Family, Port, hash, port::socket, text},
    select::Target,
};

/// What a port adds to the chains that all services share, and its own chains.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Rendered {
    /// Rules of `filter`.
    pub(super) filter: Vec<String>,
    /// Rules of the shared chains of `nat`.
    pub(super) nat: Vec<String>,
    /// The port's own chains, all in `nat`.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// How many endpoints have a chain.
    pub(super) endpoints: usize,
}

/// The chains of a port and how its rules look like.
struct Writer<'a> {
    port: &'a Port,
    config: &'a Config,
    /// The name of the port in comments.
    name: String,
    /// Network of pods.
    pods: Option<String>,
    /// Endpoint rules have comments.
    commented: bool,
    cluster_chain: String,
    local_chain: String,
    external_chain: String,
    firewall_chain: String,
    out: Rendered,
}

impl Rendered {
    pub(super) fn new(port: &Port, config: &Config, family: Family, commented: bool) -> Self {
        let name = port.name();
        let key = hash::short(&format!("{name}{}", port.protocol()), 16);
        let writer = Writer {
            port,
            config,
            pods: config.pod_network(family),
            commented,
            cluster_chain: format!("KUBE-SVC-{key}"),
            local_chain: format!("KUBE-SVL-{key}"),
            external_chain: format!("KUBE-EXT-{key}"),
            firewall_chain: format!("KUBE-FW-{key}"),
            name,
            out: Self::default(),
        };
        writer.render()
    }
}

impl Writer<'_> {
    fn render(mut self) -> Rendered {
        self.cluster_address();
        self.external_addresses();
        self.balancer_addresses();
        self.node_port();
        if self.port.has_internal() {
            self.internal_masquerade();
        }
        if self.port.has_endpoints() && self.port.is_external() {
            self.external_chain();
            if self.port.is_restricted() {
                self.firewall_chain();
            }
        }
        if self.port.uses_cluster() {
            self.balance(&self.cluster_chain.clone(), &self.port.cluster);
        }
        if self.port.uses_local() {
            self.balance(&self.local_chain.clone(), &self.port.local);
        }
        for endpoint in self.port.reachable() {
            self.endpoint_chain(&endpoint);
        }
        self.out
    }

    fn cluster_address(&mut self) {
        let chain = if self.port.internal_local { &self.local_chain } else { &self.cluster_chain };
        let matched = self.to(&self.port.cluster_address.to_string(), self.port.port);
        if self.port.has_internal() {
            let comment = self.comment("cluster IP");
            self.out.nat.push(format!("-A {SERVICES} {comment} {matched} -j {chain}"));
        } else {
            let (comment, verdict) = self.refusal();
            self.out.filter.push(format!("-A {SERVICES} {comment} {matched} -j {verdict}"));
        }
    }

    fn external_addresses(&mut self) {
        for address in &self.port.external_addresses {
            let matched = self.to(&address.to_string(), self.port.port);
            if self.port.has_endpoints() {
                let comment = self.comment("external IP");
                let chain = &self.external_chain;
                self.out.nat.push(format!("-A {SERVICES} {comment} {matched} -j {chain}"));
            }
            self.refuse_external(&matched);
        }
    }

    fn balancer_addresses(&mut self) {
        let restricted = self.port.has_endpoints() && self.port.is_restricted();
        for address in &self.port.balancer_addresses {
            let matched = self.to(&address.to_string(), self.port.port);
            if self.port.has_endpoints() {
                let chain = if restricted { &self.firewall_chain } else { &self.external_chain };
                let comment = self.comment("loadbalancer IP");
                self.out.nat.push(format!("-A {SERVICES} {comment} {matched} -j {chain}"));
            }
            if restricted {
                let comment = self.comment(&format!("traffic not accepted by {}", self.firewall_chain));
                self.out.filter.push(format!("-A {PROXY_FIREWALL} {comment} {matched} -j DROP"));
            }
            self.refuse_external(&matched);
        }
    }

    fn node_port(&mut self) {
        let protocol = self.port.protocol();
        if self.port.node_port != 0 {
            let matched = format!("-m {protocol} -p {protocol} --dport {}", self.port.node_port);
            if self.port.has_endpoints() {
                let (name, chain) = (&self.name, &self.external_chain);
                let comment = format!("-m comment --comment {name}");
                self.out.nat.push(format!("-A {NODE_PORTS} {comment} {matched} -j {chain}"));
            }
            self.refuse_external(&format!("-m addrtype --dst-type LOCAL {matched}"));
        }
        if self.port.health_check_port != 0 {
            let comment = self.comment("health check node port");
            let number = self.port.health_check_port;
            let matched = format!("-m tcp -p tcp --dport {number}");
            self.out.filter.push(format!("-A {NODE_PORTS} {comment} {matched} -j ACCEPT"));
        }
    }

    /// Whoever was not short-circuited and finds no endpoint is refused when there is none at all, dropped when there
    /// are some elsewhere.
    fn refuse_external(&mut self, matched: &str) {
        if !self.port.has_external() {
            let (comment, verdict) = self.refusal();
            self.out.filter.push(format!("-A {EXTERNAL_SERVICES} {comment} {matched} -j {verdict}"));
        }
    }

    /// Clients from outside the cluster reach the cluster address through any node: their packets may leave again for
    /// another node, so the answers must come back here.
    fn internal_masquerade(&mut self) {
        let chain =
            if self.port.internal_local { self.local_chain.clone() } else { self.cluster_chain.clone() };
        let who = match (self.config.masquerade_all, &self.pods) {
            (true, _) => String::new(),
            (false, Some(pods)) => format!(" ! -s {pods}"),
            (false, None) => return,
        };
        let comment = self.comment("cluster IP");
        let matched = self.to(&self.port.cluster_address.to_string(), self.port.port);
        self.own(&chain, &format!("{comment} {matched}{who} -j {MARK_MASQ}"));
    }

    fn external_chain(&mut self) {
        let chain = self.external_chain.clone();
        let (name, cluster) = (self.name.clone(), self.cluster_chain.clone());
        let comment =
            |text: &str| format!("-m comment --comment \"{text} for {name} external destinations\"");
        if !self.port.external_local {
            self.own(&chain, &format!("{} -j {MARK_MASQ}", comment("masquerade traffic")));
        } else if self.port.uses_cluster() {
            if let Some(pods) = self.pods.clone() {
                self.own(&chain, &format!("{} -s {pods} -j {cluster}", comment("pod traffic")));
            }
            let local = "-m addrtype --src-type LOCAL";
            self.own(&chain, &format!("{} {local} -j {MARK_MASQ}", comment("masquerade LOCAL traffic")));
            self.own(&chain, &format!("{} {local} -j {cluster}", comment("route LOCAL traffic")));
        }
        if self.port.has_external() {
            let to = if self.port.external_local { self.local_chain.clone() } else { cluster };
            self.own(&chain, &format!("-j {to}"));
        }
        self.out.chains.entry(chain).or_default();
    }

    fn firewall_chain(&mut self) {
        let (chain, external) = (self.firewall_chain.clone(), self.external_chain.clone());
        let comment = self.comment("loadbalancer IP");
        for range in &self.port.source_ranges {
            self.own(&chain, &format!("{comment} -s {} -j {external}", text(*range)));
        }
        if self.port.admits_node(&self.config.node_addresses) {
            for address in &self.port.balancer_addresses {
                self.own(&chain, &format!("{comment} -s {address} -j {external}"));
            }
        }
        let name = &self.name;
        let comment = format!("\"other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL\"");
        self.own(&chain, &format!("-m comment --comment {comment}"));
    }

    /// Affinity first, then chance: with n endpoints left, one is taken with probability 1/n.
    fn balance(&mut self, chain: &str, endpoints: &[Target]) {
        let secs = self.port.affinity_secs;
        for endpoint in endpoints.iter().filter(|_| secs != 0) {
            let to = self.endpoint_chain_name(endpoint);
            let comment = self.endpoint_comment(endpoint);
            self.own(
                chain,
                &format!("{comment}-m recent --name {to} --rcheck --seconds {secs} --reap -j {to}"),
            );
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let left = endpoints.len() - index;
            let to = self.endpoint_chain_name(endpoint);
            let comment = self.endpoint_comment(endpoint);
            let chance = match left {
                1 => String::new(),
                _ => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            self.own(chain, &format!("{comment}{chance}-j {to}"));
        }
    }

    fn endpoint_chain(&mut self, endpoint: &Target) {
        self.out.endpoints += 1;
        let chain = self.endpoint_chain_name(endpoint);
        let comment = match self.commented {
            true => format!("-m comment --comment {} ", self.name),
            false => String::new(),
        };
        self.own(&chain, &format!("{comment}-s {} -j {MARK_MASQ}", endpoint.address));
        let affinity = match self.port.affinity_secs {
            0 => String::new(),
            _ => format!("-m recent --name {chain} --set "),
        };
        let protocol = self.port.protocol();
        let to = socket(endpoint);
        self.own(
            &chain,
            &format!("{comment}{affinity}-m {protocol} -p {protocol} -j DNAT --to-destination {to}"),
        );
    }

    fn own(&mut self, chain: &str, rule: &str) {
        self.out.chains.entry(chain.to_owned()).or_default().push(format!("-A {chain} {rule}"));
    }

    fn endpoint_chain_name(&self, endpoint: &Target) -> String {
        let key = format!("{}{}{}", self.name, self.port.protocol(), socket(endpoint));
        format!("KUBE-SEP-{}", hash::short(&key, 16))
    }

    fn endpoint_comment(&self, endpoint: &Target) -> String {
        match self.commented {
            true => format!("-m comment --comment \"{} -> {}\" ", self.name, socket(endpoint)),
            false => String::new(),
        }
    }

    fn comment(&self, what: &str) -> String {
        format!("-m comment --comment \"{} {what}\"", self.name)
    }

    fn to(&self, address: &str, port: u16) -> String {
        let protocol = self.port.protocol();
        format!("-m {protocol} -p {protocol} -d {address} --dport {port}")
    }

    /// Comment and target for who finds no endpoint.
    fn refusal(&self) -> (String, &'static str) {
        match self.port.has_endpoints() {
            true => (self.comment("has no local endpoints"), "DROP"),
            false => (self.comment("has no endpoints"), "REJECT"),
        }
    }
}
