//! The table, its base chains, sets and maps, and the rules that do not depend on services.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::classic::{Config, Family, text};

/// Name of our table in the families `ip` and `ip6`.
pub const TABLE: &str = "kube-proxy";

pub(super) const SERVICE_IPS: &str = "service-ips";
pub(super) const SERVICE_NODE_PORTS: &str = "service-nodeports";
pub(super) const NO_ENDPOINT_SERVICES: &str = "no-endpoint-services";
pub(super) const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
pub(super) const FIREWALL_IPS: &str = "firewall-ips";
pub(super) const CLUSTER_IPS: &str = "cluster-ips";
pub(super) const HAIRPINS: &str = "hairpin-connections";
pub(super) const REJECT: &str = "reject-chain";
const NODE_PORT_IPS: &str = "nodeport-ips";

/// Base chains: name, type, hook, priority. The first two see a packet before, the others after its destination was
/// translated (`dstnat` is -100, `srcnat` 100).
const BASE_CHAINS: &[(&str, &str, &str, i32)] = &[
    ("filter-prerouting-pre-dnat", "filter", "prerouting", -110),
    ("filter-output-pre-dnat", "filter", "output", -110),
    ("filter-input", "filter", "input", 0),
    ("filter-forward", "filter", "forward", 0),
    ("filter-output", "filter", "output", 0),
    ("nat-prerouting", "nat", "prerouting", -100),
    ("nat-output", "nat", "output", -100),
    ("nat-postrouting", "nat", "postrouting", 100),
];

/// Jumps from base chains; the middle says for which packets.
const JUMPS: &[(&str, &str, &str)] = &[
    ("filter-input", "ct state new ", "nodeport-endpoints-check"),
    ("filter-input", "ct state new ", "service-endpoints-check"),
    ("filter-forward", "ct state new ", "service-endpoints-check"),
    ("filter-output", "ct state new ", "service-endpoints-check"),
    ("filter-prerouting-pre-dnat", "ct state new ", "firewall-check"),
    ("filter-output-pre-dnat", "ct state new ", "firewall-check"),
    ("filter-forward", "ct state new ", "cluster-ips-check"),
    ("filter-output", "ct state new ", "cluster-ips-check"),
    ("nat-output", "", "services"),
    ("nat-prerouting", "", "services"),
    ("nat-postrouting", "", "masquerading"),
];

/// Chains that are jumped to.
const CHAINS: &[&str] = &[
    "services",
    "masquerading",
    "firewall-check",
    "service-endpoints-check",
    "nodeport-endpoints-check",
    "cluster-ips-check",
    REJECT,
];

/// Maps and sets: kind, name, key behind the address, what it is for. A key of `-` begins without the address.
const CONTAINERS: &[(&str, &str, &str, &str)] = &[
    (
        "map",
        SERVICE_IPS,
        " . inet_proto . inet_service : verdict",
        "ClusterIP, ExternalIP and LoadBalancer IP traffic",
    ),
    ("map", SERVICE_NODE_PORTS, "-inet_proto . inet_service : verdict", "NodePort traffic"),
    (
        "map",
        NO_ENDPOINT_SERVICES,
        " . inet_proto . inet_service : verdict",
        "vmap to drop or reject packets to services with no endpoints",
    ),
    (
        "map",
        NO_ENDPOINT_NODE_PORTS,
        "-inet_proto . inet_service : verdict",
        "vmap to drop or reject packets to service nodeports with no endpoints",
    ),
    (
        "map",
        FIREWALL_IPS,
        " . inet_proto . inet_service : verdict",
        "destinations that are subject to LoadBalancerSourceRanges",
    ),
    ("set", CLUSTER_IPS, "", "Active ClusterIPs"),
    ("set", HAIRPINS, " . ADDRESS . inet_proto . inet_service", "service hairpin connections"),
    ("set", NODE_PORT_IPS, "", "IPs that accept NodePort traffic"),
];

/// `ip kube-proxy` or `ip6 kube-proxy`.
pub fn table(family: Family) -> String {
    format!("{} {TABLE}", protocol(family))
}

/// Name of the family, which is also the name of its header in rules.
pub const fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

pub(super) const fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

/// Makes what rules of services name, unless it is there, and changes nothing.
pub(super) fn declarations(family: Family) -> String {
    let table = table(family);
    let mut text = format!("add table {table} {{ comment \"rules for kube-proxy\" ; }}\n");
    for chain in CHAINS {
        let _ = writeln!(text, "add chain {table} {chain}");
    }
    let address = address_type(family);
    for (kind, name, key, comment) in CONTAINERS {
        let key = match key.strip_prefix('-') {
            Some(whole) => whole.to_owned(),
            None => format!("{address}{}", key.replace("ADDRESS", address)),
        };
        let _ = writeln!(text, "add {kind} {table} {name} {{ type {key} ; comment \"{comment}\" ; }}");
    }
    text
}

/// Makes all of it, or empties what is there, but for the chains and affinity sets of services.
pub(super) fn script(config: &Config, family: Family) -> String {
    let table = table(family);
    let mut text = declarations(family);
    for chain in CHAINS {
        let _ = writeln!(text, "flush chain {table} {chain}");
    }
    for (kind, name, ..) in CONTAINERS {
        let _ = writeln!(text, "flush {kind} {table} {name}");
    }
    // The priority of a chain that is there cannot be changed: it is made anew within the transaction.
    for (name, kind, hook, priority) in BASE_CHAINS {
        let _ = writeln!(text, "add chain {table} {name}\ndelete chain {table} {name}");
        let _ =
            writeln!(text, "add chain {table} {name} {{ type {kind} hook {hook} priority {priority} ; }}");
    }
    for (from, only, to) in JUMPS {
        let _ = writeln!(text, "add rule {table} {from} {only}jump {to}");
    }
    for (chain, rule) in rules(config, family) {
        let _ = writeln!(text, "add rule {table} {chain} {rule}");
    }
    for address in config.selected_node_ports(family).into_iter().flatten().filter(|a| !a.is_loopback()) {
        let _ = writeln!(text, "add element {table} {NODE_PORT_IPS} {{ {address} }}");
    }
    text
}

/// How many rules the chains have that [`script`] makes, and how many elements it puts into sets.
pub(super) fn sizes(config: &Config, family: Family) -> BTreeMap<String, usize> {
    let chains = BASE_CHAINS.iter().map(|row| row.0).chain(CHAINS.iter().copied());
    let containers = CONTAINERS.iter().map(|row| row.1);
    let mut sizes: BTreeMap<String, usize> =
        chains.chain(containers).map(|name| (name.to_owned(), 0)).collect();
    let rules = rules(config, family);
    let rules = JUMPS.iter().map(|row| row.0).chain(rules.iter().map(|row| row.0));
    let node_ports = config.selected_node_ports(family).into_iter().flatten();
    let node_ports = node_ports.filter(|address| !address.is_loopback()).map(|_| NODE_PORT_IPS);
    for name in rules.chain(node_ports) {
        *sizes.entry(name.to_owned()).or_default() += 1;
    }
    sizes
}

fn rules(config: &Config, family: Family) -> Vec<(&'static str, String)> {
    let (ip, mark) = (protocol(family), config.mark());
    let frontend = format!("{ip} daddr . meta l4proto . th dport");
    let node_port = match config.selected_node_ports(family) {
        Some(_) => format!("{ip} daddr @{NODE_PORT_IPS} meta l4proto . th dport"),
        // Node ports on loopback never work in this mode.
        None => {
            let loopback = family.loopback();
            format!("fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport")
        }
    };
    let set_mark = format!("meta mark set meta mark or {mark}");
    let mut rules = Vec::new();
    let whom = match (config.masquerade_all, config.pod_network(family)) {
        (true, _) => Some((String::new(), "masquerade all clusterIP traffic")),
        (false, Some(pods)) => {
            Some((format!("{ip} saddr != {pods} "), "masquerade clusterIP traffic from outside cluster"))
        }
        (false, None) => None,
    };
    if let Some((whom, comment)) = whom {
        rules.push(("services", format!("{ip} daddr @{CLUSTER_IPS} {whom}{set_mark} comment \"{comment}\"")));
    }
    rules.extend([
        ("services", format!("{frontend} vmap @{SERVICE_IPS}")),
        ("services", format!("{node_port} vmap @{SERVICE_NODE_PORTS}")),
        // The mark is cleared, lest a packet that passes twice be masqueraded twice.
        (
            "masquerading",
            format!("meta mark and {mark} != 0 meta mark set meta mark xor {mark} masquerade fully-random"),
        ),
        (
            "masquerading",
            format!("ct status dnat {ip} saddr . {frontend} @{HAIRPINS} masquerade fully-random"),
        ),
        ("firewall-check", format!("{frontend} vmap @{FIREWALL_IPS}")),
        ("service-endpoints-check", format!("{frontend} vmap @{NO_ENDPOINT_SERVICES}")),
        ("nodeport-endpoints-check", format!("{node_port} vmap @{NO_ENDPOINT_NODE_PORTS}")),
        (REJECT, "reject".to_owned()),
        (
            "cluster-ips-check",
            format!(
                "{ip} daddr @{CLUSTER_IPS} reject comment \"Reject traffic to invalid ports of ClusterIPs\""
            ),
        ),
    ]);
    let networks: Vec<String> = family.only_prefixes(&config.service_networks).map(text).collect();
    if !networks.is_empty() {
        let comment = "comment \"Drop traffic to unallocated ClusterIPs\"";
        rules.push(("cluster-ips-check", format!("{ip} daddr {{ {} }} drop {comment}", networks.join(", "))));
    }
    rules
}
