//! The iptables rules around IPVS. Which are there depends on which sets have members, and on nothing else but the
//! load balancer addresses that the node may not use.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Wanted,
    sets::{
        self, CLUSTER_IP, EXTERNAL_IP, EXTERNAL_IP_LOCAL, HEALTH_CHECK, IPVS_IPS, LOAD_BALANCER,
        LOAD_BALANCER_FW, LOAD_BALANCER_LOCAL, LOOP_BACK, NODE_PORT_LOCAL_SCTP, NODE_PORT_LOCAL_TCP,
        NODE_PORT_LOCAL_UDP, NODE_PORT_SCTP, NODE_PORT_TCP, NODE_PORT_UDP, SOURCE_CIDR, SOURCE_IP,
    },
};
use crate::{
    classic::{Config, Family},
    iptables::{
        Restore, Section,
        fixed::{self, FORWARD, Jump, MARK_MASQ, POSTROUTING, PROXY_FIREWALL, SERVICES, Table, jump},
        restore,
        saved::Saved,
    },
};

const NODE_PORT: &str = "KUBE-NODE-PORT";
const LOAD_BALANCER_CHAIN: &str = "KUBE-LOAD-BALANCER";
const SOURCE_RANGES: &str = "KUBE-SOURCE-RANGES-FIREWALL";
const FILTER: &str = "KUBE-IPVS-FILTER";
const OUT_FILTER: &str = "KUBE-IPVS-OUT-FILTER";

const FILTER_CHAINS: &[&str] = &[FORWARD, NODE_PORT, PROXY_FIREWALL, SOURCE_RANGES, FILTER, OUT_FILTER];
const NAT_CHAINS: &[&str] = &[SERVICES, POSTROUTING, NODE_PORT, LOAD_BALANCER_CHAIN, MARK_MASQ];

const PORTALS: &str = "kubernetes service portals";

/// Where the kernel enters our chains (`iptablesJumpChain` in `pkg/proxy/ipvs/proxier.go`).
pub const JUMPS: &[Jump] = &[
    jump(Table::Nat, "OUTPUT", SERVICES, PORTALS, false),
    jump(Table::Nat, "PREROUTING", SERVICES, PORTALS, false),
    jump(Table::Nat, "POSTROUTING", POSTROUTING, "kubernetes postrouting rules", false),
    jump(Table::Filter, "FORWARD", FORWARD, "kubernetes forwarding rules", false),
    jump(Table::Filter, "INPUT", NODE_PORT, "kubernetes health check rules", false),
    jump(Table::Filter, "INPUT", PROXY_FIREWALL, "kube-proxy firewall rules", false),
    jump(Table::Filter, "FORWARD", PROXY_FIREWALL, "kube-proxy firewall rules", false),
    jump(Table::Filter, "INPUT", FILTER, "kubernetes ipvs access filter", false),
    jump(Table::Filter, "OUTPUT", OUT_FILTER, "kubernetes ipvs access filter", false),
];

/// A rule that is there while its set has members: (set, table, chain, protocol, directions, target). Local node ports
/// come before all node ports.
const SET_RULES: &[(&str, Table, &str, &str, &str, &str)] = &[
    (LOOP_BACK, Table::Nat, POSTROUTING, "", "dst,dst,src", "MASQUERADE"),
    (LOAD_BALANCER, Table::Nat, SERVICES, "", "dst,dst", LOAD_BALANCER_CHAIN),
    (LOAD_BALANCER_LOCAL, Table::Nat, LOAD_BALANCER_CHAIN, "", "dst,dst", "RETURN"),
    (NODE_PORT_LOCAL_TCP, Table::Nat, NODE_PORT, "tcp", "dst", "RETURN"),
    (NODE_PORT_TCP, Table::Nat, NODE_PORT, "tcp", "dst", MARK_MASQ),
    (NODE_PORT_LOCAL_UDP, Table::Nat, NODE_PORT, "udp", "dst", "RETURN"),
    (NODE_PORT_UDP, Table::Nat, NODE_PORT, "udp", "dst", MARK_MASQ),
    (NODE_PORT_LOCAL_SCTP, Table::Nat, NODE_PORT, "sctp", "dst,dst", "RETURN"),
    (NODE_PORT_SCTP, Table::Nat, NODE_PORT, "sctp", "dst,dst", MARK_MASQ),
    (LOAD_BALANCER_FW, Table::Filter, PROXY_FIREWALL, "", "dst,dst", SOURCE_RANGES),
    (SOURCE_CIDR, Table::Filter, SOURCE_RANGES, "", "dst,dst,src", "RETURN"),
    (SOURCE_IP, Table::Filter, SOURCE_RANGES, "", "dst,dst,src", "RETURN"),
];

/// Which sets have members, and how they are named and described.
struct Sets<'a> {
    family: Family,
    members: &'a BTreeMap<String, BTreeSet<String>>,
}

impl Sets<'_> {
    fn has_members(&self, set: &str) -> bool {
        self.members.get(&sets::name(set, self.family)).is_some_and(|members| !members.is_empty())
    }

    fn matching(&self, set: &str, directions: &str) -> String {
        format!("-m set --match-set {} {directions}", sets::name(set, self.family))
    }

    fn commented(&self, set: &str, directions: &str) -> String {
        let comment = sets::ALL.iter().find(|row| row.name == set).map_or("", |row| row.comment);
        format!("-m comment --comment \"{comment}\" {}", self.matching(set, directions))
    }
}

/// The restore of all rules. With what was saved, it has the jumps that are missing.
pub(super) fn rules(config: &Config, family: Family, wanted: &Wanted, saved: Option<&Saved>) -> Restore {
    let sets = Sets { family, members: &wanted.sets };
    let mut filter = Section::new(Table::Filter, FILTER_CHAINS);
    let mut nat = Section::new(Table::Nat, NAT_CHAINS);
    nat.rule(SERVICES, &format!("-s {} -j RETURN", family.loopback()));
    for (set, table, chain, protocol, directions, target) in SET_RULES {
        if sets.has_members(set) {
            let protocol = if protocol.is_empty() { String::new() } else { format!("-p {protocol} ") };
            let rule = format!("{protocol}{} -j {target}", sets.commented(set, directions));
            let section = if *table == Table::Nat { &mut nat } else { &mut filter };
            section.rule(chain, &rule);
        }
    }
    cluster_addresses(config, &sets, &mut nat);
    external_addresses(&sets, &mut nat);
    nat.rule(SERVICES, &format!("-m addrtype --dst-type LOCAL -j {NODE_PORT}"));
    nat.rule(LOAD_BALANCER_CHAIN, &format!("-j {MARK_MASQ}"));
    filter.rule(SOURCE_RANGES, "-j DROP");
    for server in &wanted.blocked {
        let (address, port) = (server.address, server.port);
        let protocol = server.protocol.as_str().to_lowercase();
        let virtual_server = format!("-m ipvs --vaddr {address} --vproto {protocol} --vport {port}");
        filter.rule(OUT_FILTER, &format!("-s {address} {virtual_server} -j DROP"));
    }
    // Rules of others that come later may not take a packet away from IPVS.
    for set in [CLUSTER_IP, LOAD_BALANCER] {
        if sets.has_members(set) {
            nat.rule(SERVICES, &format!("{} -j ACCEPT", sets.matching(set, "dst,dst")));
        }
    }
    fixed::filter_tail(&Config { tcp_be_liberal: true, ..config.clone() }, &mut filter);
    filter.rule(NODE_PORT, &format!("{} -j ACCEPT", sets.commented(HEALTH_CHECK, "dst")));
    // Other ports of the node must not be reachable by the addresses of services.
    for set in [LOAD_BALANCER, CLUSTER_IP, EXTERNAL_IP, EXTERNAL_IP_LOCAL] {
        filter.rule(FILTER, &format!("{} -j RETURN", sets.matching(set, "dst,dst")));
    }
    filter.rule(FILTER, &format!("{} -j RETURN", sets.matching(HEALTH_CHECK, "dst")));
    let new = "-m conntrack --ctstate NEW";
    filter.rule(FILTER, &format!("{new} {} -j REJECT", sets.matching(IPVS_IPS, "dst")));
    fixed::nat_head(config, &mut nat);
    restore([filter, nat], JUMPS, saved)
}

/// Clients from outside the cluster are masqueraded. Where nobody knows who is inside, at least the node is, whose
/// source would be the service's own address.
fn cluster_addresses(config: &Config, sets: &Sets<'_>, nat: &mut Section) {
    if !sets.has_members(CLUSTER_IP) {
        return;
    }
    let both = sets.commented(CLUSTER_IP, "dst,dst");
    let rule = match (config.masquerade_all, config.pod_network(sets.family)) {
        (true, _) => format!("{both} -j {MARK_MASQ}"),
        (false, Some(pods)) => format!("{both} ! -s {pods} -j {MARK_MASQ}"),
        (false, None) => format!("{} -j {MARK_MASQ}", sets.commented(CLUSTER_IP, "src,dst")),
    };
    nat.rule(SERVICES, &rule);
}

/// External addresses are served for machines outside and for addresses that are local, which on this node all are.
fn external_addresses(sets: &Sets<'_>, nat: &mut Section) {
    for set in [EXTERNAL_IP, EXTERNAL_IP_LOCAL] {
        if !sets.has_members(set) {
            continue;
        }
        let matched = sets.commented(set, "dst,dst");
        if set == EXTERNAL_IP {
            nat.rule(SERVICES, &format!("{matched} -j {MARK_MASQ}"));
        }
        let outside = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL";
        nat.rule(SERVICES, &format!("{matched} {outside} -j ACCEPT"));
        nat.rule(SERVICES, &format!("{matched} -m addrtype --dst-type LOCAL -j ACCEPT"));
    }
}

/// Whether the rules of a restore are all there, as far as their numbers and the jumps can tell.
pub(super) fn are_intact(text: &str, saved: &Saved) -> bool {
    let mut table = Table::Filter;
    let mut wanted: BTreeMap<(Table, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        match line {
            "*nat" => table = Table::Nat,
            "*filter" => table = Table::Filter,
            "*mangle" => table = Table::Mangle,
            _ => {}
        }
        if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            wanted.entry((table, chain)).or_default();
        }
        if let Some(chain) = line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()) {
            *wanted.entry((table, chain)).or_default() += 1;
        }
    }
    for table in [Table::Filter, Table::Nat, Table::Mangle] {
        wanted.insert((table, fixed::CANARY), 0);
    }
    let sizes = saved.sizes();
    JUMPS.iter().all(|jump| saved.has_jump(jump))
        && wanted.iter().all(|(key, size)| sizes.get(key) == Some(size))
}

/// Whether this mode makes the chain.
pub fn is_ours(table: Table, chain: &str) -> bool {
    chain == fixed::CANARY
        || match table {
            Table::Filter => FILTER_CHAINS.contains(&chain),
            Table::Nat => NAT_CHAINS.contains(&chain),
            Table::Mangle => false,
        }
}
