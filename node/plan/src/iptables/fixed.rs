//! Chains and rules that do not depend on services.

use super::Section;
use crate::classic::{Config, Family};

/// A table of iptables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// `filter`.
    Filter,
    /// `nat`.
    Nat,
    /// `mangle`.
    Mangle,
}

impl Table {
    /// As the tools write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Mangle => "mangle",
        }
    }
}

/// A jump from a built-in chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jump {
    /// Where both chains are.
    pub table: Table,
    /// Built-in chain.
    pub from: &'static str,
    /// Ours.
    pub to: &'static str,
    /// Comment; empty is none.
    comment: &'static str,
    /// Only for the first packet of a connection.
    new_only: bool,
}

impl Jump {
    /// Whether both lead the same packets from one chain to the same.
    pub fn same(&self, other: &Self) -> bool {
        (self.table, self.from, self.to, self.new_only) == (other.table, other.from, other.to, other.new_only)
    }

    /// Whether a rule, as it is saved, is this one. Comments may differ: they have changed between versions of kube-proxy.
    pub(super) fn is(&self, rule: &str) -> bool {
        let words: Vec<&str> = rule.split_whitespace().collect();
        words.starts_with(&["-A", self.from])
            && words.ends_with(&["-j", self.to])
            && words.windows(2).any(|pair| pair == ["--ctstate", "NEW"]) == self.new_only
    }

    /// The rule, before all others of its chain.
    pub fn insertion(&self) -> String {
        let state = if self.new_only { " -m conntrack --ctstate NEW" } else { "" };
        let comment = match self.comment {
            "" => String::new(),
            comment => format!(" -m comment --comment \"{comment}\""),
        };
        format!("-I {} 1{state}{comment} -j {}", self.from, self.to)
    }
}

pub(crate) const fn jump(
    table: Table,
    from: &'static str,
    to: &'static str,
    comment: &'static str,
    new_only: bool,
) -> Jump {
    Jump { table, from, to, comment, new_only }
}

pub(crate) const SERVICES: &str = "KUBE-SERVICES";
pub(super) const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
pub(super) const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub(crate) const POSTROUTING: &str = "KUBE-POSTROUTING";
pub(crate) const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub(crate) const FORWARD: &str = "KUBE-FORWARD";
pub(crate) const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// The kubelet of upstream makes the same chain with the same rule.
pub(super) const FIREWALL: &str = "KUBE-FIREWALL";
/// An empty chain in every table. When it is gone, somebody has flushed the table.
pub const CANARY: &str = "KUBE-PROXY-CANARY";

/// Chains of `filter` that every restore rewrites.
pub(super) const FILTER_CHAINS: &[&str] = &[SERVICES, EXTERNAL_SERVICES, FORWARD, NODE_PORTS, PROXY_FIREWALL];
/// Chains of `nat` that every restore rewrites.
pub(super) const NAT_CHAINS: &[&str] = &[SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ];

const PORTALS: &str = "kubernetes service portals";
const EXTERNAL: &str = "kubernetes externally-visible service portals";
const BALANCER: &str = "kubernetes load balancer firewall";

/// Where the kernel enters our chains (`iptablesJumpChains` in `pkg/proxy/iptables/proxier.go`).
pub const JUMPS: &[Jump] = &[
    jump(Table::Filter, "INPUT", EXTERNAL_SERVICES, EXTERNAL, true),
    jump(Table::Filter, "FORWARD", EXTERNAL_SERVICES, EXTERNAL, true),
    jump(Table::Filter, "INPUT", NODE_PORTS, "kubernetes health check service ports", false),
    jump(Table::Filter, "FORWARD", SERVICES, PORTALS, true),
    jump(Table::Filter, "OUTPUT", SERVICES, PORTALS, true),
    jump(Table::Filter, "FORWARD", FORWARD, "kubernetes forwarding rules", false),
    jump(Table::Filter, "INPUT", PROXY_FIREWALL, BALANCER, true),
    jump(Table::Filter, "OUTPUT", PROXY_FIREWALL, BALANCER, true),
    jump(Table::Filter, "FORWARD", PROXY_FIREWALL, BALANCER, true),
    jump(Table::Nat, "OUTPUT", SERVICES, PORTALS, false),
    jump(Table::Nat, "PREROUTING", SERVICES, PORTALS, false),
    jump(Table::Nat, "POSTROUTING", POSTROUTING, "kubernetes postrouting rules", false),
    jump(Table::Filter, "INPUT", FIREWALL, "", false),
    jump(Table::Filter, "OUTPUT", FIREWALL, "", false),
];

/// Protection of loopback, which is reachable from outside while `route_localnet` is on (CVE-2020-8558).
pub(super) fn filter_head(config: &Config, family: Family, filter: &mut Section) {
    if family == Family::V4 && config.localhost_node_ports {
        filter.chain(FIREWALL);
        filter.rule(
            FIREWALL,
            "-m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 \
             -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        );
    }
}

/// Masquerading of what is marked for it. The mark is cleared, lest a packet that passes twice be masqueraded twice.
pub(crate) fn nat_head(config: &Config, nat: &mut Section) {
    let mark = config.mark();
    nat.rule(POSTROUTING, &format!("-m mark ! --mark {mark}/{mark} -j RETURN"));
    nat.rule(POSTROUTING, &format!("-j MARK --xor-mark {mark}"));
    nat.rule(
        POSTROUTING,
        "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
    );
    nat.rule(MARK_MASQ, &format!("-j MARK --or-mark {mark}"));
}

/// The way to node ports, which must come after all addresses of services.
pub(super) fn nat_tail(config: &Config, family: Family, nat: &mut Section) {
    const COMMENT: &str = "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in \
                           this chain\"";
    let loopback = family == Family::V4 && config.localhost_node_ports;
    match config.selected_node_ports(family) {
        None => {
            let no_loopback = if loopback { String::new() } else { format!(" ! -d {}", family.loopback()) };
            let rule = format!("{COMMENT} -m addrtype --dst-type LOCAL{no_loopback} -j {NODE_PORTS}");
            nat.rule(SERVICES, &rule);
        }
        Some(addresses) => {
            for address in addresses.iter().filter(|address| loopback || !address.is_loopback()) {
                nat.rule(SERVICES, &format!("{COMMENT} -d {address} -j {NODE_PORTS}"));
            }
        }
    }
}

/// Forwarding of what was marked, whatever the policy of `FORWARD` is; and no reset because of a packet that conntrack
/// cannot place and that would be delivered untranslated.
pub(crate) fn filter_tail(config: &Config, filter: &mut Section) {
    let mark = config.mark();
    if !config.tcp_be_liberal {
        filter.rule(FORWARD, "-m conntrack --ctstate INVALID -j DROP");
    }
    filter.rule(
        FORWARD,
        &format!(
            "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT"
        ),
    );
    filter.rule(
        FORWARD,
        "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED \
         -j ACCEPT",
    );
}
