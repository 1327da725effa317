//! A node with a service of one backend, and conversations with it.

use std::{vec, vec::Vec};

use fairlead_abi::{
    Addr16, Be16, DropReason,
    node::{ADDRESS_LOCAL, ADDRESS_NODE, ADDRESS_NODE_PORT, ADDRESS_SERVICE, NodeValue},
    service::{
        BACKEND_CLUSTER, BACKEND_HERE, BACKEND_HOST, BACKEND_LOCAL, BACKEND_SERVING, BackendValue,
        SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_EXTERNAL, SERVICE_HAS_ENDPOINTS, SERVICE_INSIDE_ONLY,
        SERVICE_INTERNAL_LOCAL, SERVICE_SOURCE_RANGES, ServiceKey, ServiceValue,
    },
};

use crate::{
    Verdict,
    cases::{
        Case, Hook, Memory, Outcome, PacketBuilder, address,
        table::{NEIGHBOUR, NEIGHBOUR_HOST_MAC, NEIGHBOUR_IFINDEX, NEIGHBOUR_MAC, SENDER, node},
    },
};

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;
pub(super) const FIN: u8 = 0x01;
pub(super) const RST: u8 = 0x04;

/// A family's addresses.
pub(super) struct Family {
    /// Name for rows.
    pub(super) name: &'static str,
    pub(super) client: &'static str,
    /// Between it and the nodes.
    pub(super) router: &'static str,
    /// The sending pod, the other pod of the node, a pod of another node.
    pub(super) sender: &'static str,
    pub(super) here: &'static str,
    pub(super) elsewhere: &'static str,
    /// This node and the other one.
    pub(super) node: &'static str,
    pub(super) other_node: &'static str,
    /// A cluster address and a load balancer's.
    pub(super) cluster: &'static str,
    pub(super) balancer: &'static str,
    /// The network of cluster addresses, one of them that nobody has, and an address that is none.
    pub(super) service_network: &'static str,
    pub(super) nobody: &'static str,
    pub(super) beside: &'static str,
    pub(super) any: Addr16,
    pub(super) overlay: u32,
}

pub(super) const V4: Family = Family {
    name: "IPv4",
    client: "198.51.100.7",
    router: "192.0.2.1",
    sender: "10.244.1.5",
    here: "10.244.1.6",
    elsewhere: "10.244.2.9",
    node: "172.29.0.11",
    other_node: "172.29.0.12",
    cluster: "10.96.0.20",
    balancer: "203.0.113.9",
    service_network: "10.96.0.0",
    nobody: "10.96.255.254",
    beside: "10.97.0.1",
    any: Addr16::UNSPECIFIED_V4,
    overlay: 50,
};

pub(super) const V6: Family = Family {
    name: "IPv6",
    client: "2001:db8::7",
    router: "2001:db8:2::1",
    sender: "fd00:244:0:1::5",
    here: "fd00:244:0:1::6",
    elsewhere: "fd00:244:0:2::9",
    node: "fd00:29::b",
    other_node: "fd00:29::c",
    cluster: "fd00:96::20",
    balancer: "2001:db8:1::9",
    service_network: "fd00:96::",
    nobody: "fd00:96::fffe",
    beside: "fd00:96::1:1",
    any: Addr16::UNSPECIFIED,
    overlay: 70,
};

/// Where a service's backend is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Where {
    Here,
    Elsewhere,
    /// A process of this node.
    Host,
    /// The client itself.
    Sender,
    /// Backends exist, but none that this node may use.
    Unusable,
    Nowhere,
}

pub(super) const PORT: u16 = 80;
pub(super) const NODE_PORT: u16 = 30_080;
pub(super) const TARGET: u16 = 8_080;
pub(super) const SERVICE_ID: u32 = 7;
pub(super) const MTU: u32 = 1_500;

/// Flags that only cluster addresses have.
const OF_CLUSTER: u32 = SERVICE_INTERNAL_LOCAL | SERVICE_INSIDE_ONLY;

/// The node of the packet table, with a service of one backend.
pub(super) fn with(family: &Family, proto: u8, place: Where, flags: u32) -> Memory {
    let mut tables = node();
    tables.node = NodeValue { v4: address(V4.node), v6: address(V6.node), mtu: MTU, ..NodeValue::default() };
    for (text, flags) in [
        (family.node, ADDRESS_LOCAL | ADDRESS_NODE_PORT),
        (family.other_node, ADDRESS_NODE),
        (family.cluster, ADDRESS_SERVICE),
        (family.balancer, ADDRESS_SERVICE),
    ] {
        tables.addresses.insert(address(text), flags);
    }
    let backend = match place {
        Where::Here => Some((family.here, BACKEND_HERE)),
        Where::Elsewhere => Some((family.elsewhere, 0)),
        Where::Host => Some((family.node, BACKEND_HERE | BACKEND_HOST)),
        Where::Sender => Some((family.sender, BACKEND_HERE)),
        Where::Unusable | Where::Nowhere => None,
    };
    let mut value = ServiceValue { service_id: SERVICE_ID, generation: 1, ..ServiceValue::default() };
    if place != Where::Nowhere {
        value.flags |= SERVICE_HAS_ENDPOINTS;
    }
    tables.backends = vec![BackendValue::default()];
    if let Some((addr, here)) = backend {
        tables.backends.push(BackendValue {
            addr: address(addr),
            port: Be16::new(TARGET),
            proto,
            flags: here | BACKEND_CLUSTER | BACKEND_LOCAL | BACKEND_SERVING,
            generation: 5,
        });
        value.active = 1;
        value.local = u32::from(here & BACKEND_HERE != 0);
    }
    tables.slots = vec![0, 1];
    value.first = 1;
    let mut frontend = |addr: Addr16, port: u16, scope: u8, flags: u32| {
        let key = ServiceKey { addr, port: Be16::new(port), proto, scope };
        tables.services.insert(key, ServiceValue { flags: value.flags | flags, ..value });
    };
    frontend(address(family.cluster), PORT, SCOPE_ADDRESS, flags & OF_CLUSTER);
    let external = SERVICE_EXTERNAL | flags & !OF_CLUSTER;
    frontend(address(family.balancer), PORT, SCOPE_ADDRESS, external);
    frontend(family.any, NODE_PORT, SCOPE_NODE_PORT, external & !SERVICE_SOURCE_RANGES);
    tables
}

/// A packet of a conversation and what comes of it.
pub(super) struct Turn {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) before: PacketBuilder,
    pub(super) verdict: Verdict,
    pub(super) after: PacketBuilder,
}

/// A packet that comes by the uplink.
pub(super) fn arrives(
    family: &Family,
    text: &str,
    before: PacketBuilder,
    verdict: Verdict,
    after: PacketBuilder,
) -> Turn {
    Turn { name: name(family, text), hook: Hook::FromUplink, before, verdict, after }
}

/// What a node forwards by is fixed when its programs are loaded, and some tables the kernel cannot be given.
pub(super) fn only_on_the_host(cases: Vec<Case>) -> Vec<Case> {
    cases.into_iter().map(|case| Case { host_only: true, ..case }).collect()
}

/// Rows of a conversation: each packet meets what the former ones left.
pub(super) fn conversation(mut tables: Memory, turns: Vec<Turn>) -> Vec<Case> {
    let mut cases = Vec::new();
    for turn in turns {
        let mut expected = Outcome::unseen(turn.verdict, &turn.after.build());
        if matches!(turn.hook, Hook::FromPod) {
            expected = Outcome { packet: turn.before.build(), ..expected }.sent(SENDER);
            expected.packet = turn.after.build();
        }
        if matches!(turn.hook, Hook::ToPod) {
            expected = expected.received(SENDER);
        }
        match turn.verdict {
            Verdict::RedirectPeer { ifindex: NEIGHBOUR_IFINDEX } => expected = expected.received(NEIGHBOUR),
            Verdict::RedirectPeer { .. } => expected = expected.received(SENDER),
            Verdict::Drop(reason) | Verdict::Answer(reason) | Verdict::Refuse(reason) => {
                let slot = if matches!(turn.hook, Hook::FromPod) { SENDER } else { 0 };
                expected = expected.dropped(slot, reason);
            }
            _ => {}
        }
        let fresh = Memory { counters: Default::default(), drops: Default::default(), ..tables.clone() };
        let mut case = Case {
            name: turn.name,
            hook: turn.hook,
            tables: fresh,
            packet: turn.before.build(),
            expected,
            host_only: false,
        };
        let (outcome, after) = case.run_and_keep();
        // Which connections there are then, other tests say; here the kernel must agree with the host.
        case.expected.connections = outcome.connections;
        cases.push(case);
        tables = after;
    }
    cases
}

pub(super) fn name(family: &Family, text: &str) -> &'static str {
    // The rows live as long as the test.
    std::boxed::Box::leak(std::format!("{}: {text}", family.name).into_boxed_str())
}

pub(super) fn syn(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::tcp(src, dst, SYN).ports(4_000, NODE_PORT)
}

pub(super) fn delivered(packet: PacketBuilder) -> PacketBuilder {
    packet.macs(NEIGHBOUR_MAC, NEIGHBOUR_HOST_MAC).hops(63)
}

pub(super) const TO_NEIGHBOUR: Verdict = Verdict::RedirectPeer { ifindex: NEIGHBOUR_IFINDEX };

/// A packet from outside that ends here.
pub(super) fn dropped(
    family: &Family,
    text: &str,
    tables: Memory,
    to: (&str, u16),
    reason: DropReason,
) -> Vec<Case> {
    let before = syn(family.client, to.0).ports(4_000, to.1);
    let after = before.clone();
    conversation(tables, vec![arrives(family, text, before, Verdict::Drop(reason), after)])
}

/// A packet from outside that is answered with an ICMP error.
pub(super) fn told(
    family: &Family,
    text: &str,
    tables: Memory,
    to: (&str, u16),
    reason: DropReason,
) -> Vec<Case> {
    let before = syn(family.client, to.0).ports(4_000, to.1);
    let after = PacketBuilder::unreachable(to.0, family.client, &before.build(), header_len(family) + 20)
        .macs([0x02, 0, 0, 0, 0, 0x02], [0x02, 0, 0, 0, 0, 0x01]);
    conversation(tables, vec![arrives(family, text, before, Verdict::Answer(reason), after)])
}

pub(super) fn header_len(family: &Family) -> usize {
    if family.overlay == V4.overlay { 20 } else { 40 }
}
