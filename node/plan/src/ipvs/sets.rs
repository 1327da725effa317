//! The ipsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::classic::Family;

/// An ipset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Set {
    /// Its name in IPv4.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// What it is for, as the comments of rules say.
    pub comment: &'static str,
}

pub(super) const LOOP_BACK: &str = "KUBE-LOOP-BACK";
pub(super) const CLUSTER_IP: &str = "KUBE-CLUSTER-IP";
pub(super) const EXTERNAL_IP: &str = "KUBE-EXTERNAL-IP";
pub(super) const EXTERNAL_IP_LOCAL: &str = "KUBE-EXTERNAL-IP-LOCAL";
pub(super) const LOAD_BALANCER: &str = "KUBE-LOAD-BALANCER";
pub(super) const LOAD_BALANCER_FW: &str = "KUBE-LOAD-BALANCER-FW";
pub(super) const LOAD_BALANCER_LOCAL: &str = "KUBE-LOAD-BALANCER-LOCAL";
pub(super) const SOURCE_IP: &str = "KUBE-LOAD-BALANCER-SOURCE-IP";
pub(super) const SOURCE_CIDR: &str = "KUBE-LOAD-BALANCER-SOURCE-CIDR";
pub(super) const NODE_PORT_TCP: &str = "KUBE-NODE-PORT-TCP";
pub(super) const NODE_PORT_LOCAL_TCP: &str = "KUBE-NODE-PORT-LOCAL-TCP";
pub(super) const NODE_PORT_UDP: &str = "KUBE-NODE-PORT-UDP";
pub(super) const NODE_PORT_LOCAL_UDP: &str = "KUBE-NODE-PORT-LOCAL-UDP";
pub(super) const NODE_PORT_SCTP: &str = "KUBE-NODE-PORT-SCTP-HASH";
pub(super) const NODE_PORT_LOCAL_SCTP: &str = "KUBE-NODE-PORT-LOCAL-SCTP-HASH";
pub(super) const HEALTH_CHECK: &str = "KUBE-HEALTH-CHECK-NODE-PORT";
/// All addresses of the dummy interface.
pub(super) const IPVS_IPS: &str = "KUBE-IPVS-IPS";

const fn set(name: &'static str, kind: &'static str, comment: &'static str) -> Set {
    Set { name, kind, comment }
}

const IP_PORT: &str = "hash:ip,port";
const IP_PORT_IP: &str = "hash:ip,port,ip";
const PORT: &str = "bitmap:port";

/// All sets (`ipsetInfo` in `pkg/proxy/ipvs/proxier.go`).
pub const ALL: &[Set] = &[
    set(LOOP_BACK, IP_PORT_IP, "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"),
    set(CLUSTER_IP, IP_PORT, "Kubernetes service cluster ip + port for masquerade purpose"),
    set(EXTERNAL_IP, IP_PORT, "Kubernetes service external ip + port for masquerade and filter purpose"),
    set(EXTERNAL_IP_LOCAL, IP_PORT, "Kubernetes service external ip + port with externalTrafficPolicy=local"),
    set(LOAD_BALANCER, IP_PORT, "Kubernetes service lb portal"),
    set(
        LOAD_BALANCER_FW,
        IP_PORT,
        "Kubernetes service load balancer ip + port for load balancer with sourceRange",
    ),
    set(
        LOAD_BALANCER_LOCAL,
        IP_PORT,
        "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
    ),
    set(
        SOURCE_IP,
        IP_PORT_IP,
        "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
    ),
    set(
        SOURCE_CIDR,
        "hash:ip,port,net",
        "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
    ),
    set(NODE_PORT_TCP, PORT, "Kubernetes nodeport TCP port for masquerade purpose"),
    set(NODE_PORT_LOCAL_TCP, PORT, "Kubernetes nodeport TCP port with externalTrafficPolicy=local"),
    set(NODE_PORT_UDP, PORT, "Kubernetes nodeport UDP port for masquerade purpose"),
    set(NODE_PORT_LOCAL_UDP, PORT, "Kubernetes nodeport UDP port with externalTrafficPolicy=local"),
    set(
        NODE_PORT_SCTP,
        IP_PORT,
        "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
    ),
    set(
        NODE_PORT_LOCAL_SCTP,
        IP_PORT,
        "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
    ),
    set(HEALTH_CHECK, PORT, "Kubernetes health check node port"),
    set(IPVS_IPS, "hash:ip", "Kubernetes all IPs assigned to the ipvs dummy interface"),
];

/// The longest name (`IPSET_MAXNAMELEN` less the terminator).
const NAME_LEN_MAX: usize = 31;

/// A set's name in a family. Names are one space for both.
pub fn name(set: &str, family: Family) -> String {
    match family {
        Family::V4 => set.to_owned(),
        Family::V6 => {
            let mut name = set.replacen("KUBE-", "KUBE-6-", 1);
            name.truncate(NAME_LEN_MAX);
            name
        }
    }
}

/// What `ipset restore` needs to turn one content into the other. With `make`, the sets are made first.
pub(super) fn script(
    family: Family,
    held: &BTreeMap<String, BTreeSet<String>>,
    wanted: &BTreeMap<String, BTreeSet<String>>,
    make: bool,
) -> String {
    let mut text = String::new();
    let inet = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    for set in ALL.iter().filter(|_| make) {
        let options = match set.kind {
            PORT => "range 0-65535".to_owned(),
            _ => format!("family {inet} hashsize 1024 maxelem 65536"),
        };
        let _ = writeln!(text, "create {} {} {options} -exist", name(set.name, family), set.kind);
    }
    let none = BTreeSet::new();
    for (set, members) in wanted {
        let old = held.get(set).unwrap_or(&none);
        // First, so that of two spellings of one member the new one stays.
        for member in old.difference(members) {
            let _ = writeln!(text, "del {set} {member} -exist");
        }
        for member in members.difference(old) {
            let _ = writeln!(text, "add {set} {member} -exist");
        }
    }
    text
}

/// Members of our sets of a family, from what `ipset save` prints.
pub fn parse(saved: &str, family: Family) -> BTreeMap<String, BTreeSet<String>> {
    let ours: BTreeSet<String> = ALL.iter().map(|set| name(set.name, family)).collect();
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in saved.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["create", set, ..] if ours.contains(set) => drop(sets.entry(set.to_owned()).or_default()),
            ["add", set, member, ..] if ours.contains(set) => {
                sets.entry(set.to_owned()).or_default().insert(member.to_owned());
            }
            _ => {}
        }
    }
    sets
}
