//! The rows about services: what clients outside and packets that no socket hook saw meet.

use std::{vec, vec::Vec};

use fairlead_abi::{
    Addr16, Be16, DropReason,
    names::globals::{FORWARD_DIRECT_RETURN, FORWARD_MASQUERADED},
    node::{ADDRESS_LOCAL, ADDRESS_NODE, ADDRESS_NODE_PORT, ADDRESS_SERVICE, NodeValue},
    service::{
        BACKEND_CLUSTER, BACKEND_HERE, BACKEND_HOST, BACKEND_LOCAL, BACKEND_SERVING, BackendValue,
        SCOPE_ADDRESS, SCOPE_NODE_PORT, SCTP, SERVICE_EXTERNAL, SERVICE_EXTERNAL_LOCAL,
        SERVICE_HAS_ENDPOINTS, SERVICE_INTERNAL_LOCAL, SERVICE_SOURCE_RANGES, ServiceKey, ServiceValue, TCP,
        UDP,
    },
};

use super::{
    Case, Hook, Memory, Outcome, PacketBuilder, address,
    table::{NEIGHBOUR, NEIGHBOUR_HOST_MAC, NEIGHBOUR_IFINDEX, NEIGHBOUR_MAC, SENDER, UPLINK, node},
};
use crate::Verdict;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

/// A family's addresses.
struct Family {
    /// Name for rows.
    name: &'static str,
    client: &'static str,
    /// The sending pod, the other pod of the node, a pod of another node.
    sender: &'static str,
    here: &'static str,
    elsewhere: &'static str,
    /// This node and the other one.
    node: &'static str,
    other_node: &'static str,
    /// A cluster address, a load balancer's, one of the service network that nobody has.
    cluster: &'static str,
    balancer: &'static str,
    any: Addr16,
    overlay: u32,
}

const V4: Family = Family {
    name: "IPv4",
    client: "198.51.100.7",
    sender: "10.244.1.5",
    here: "10.244.1.6",
    elsewhere: "10.244.2.9",
    node: "172.29.0.11",
    other_node: "172.29.0.12",
    cluster: "10.96.0.20",
    balancer: "203.0.113.9",
    any: Addr16::UNSPECIFIED_V4,
    overlay: 50,
};

const V6: Family = Family {
    name: "IPv6",
    client: "2001:db8::7",
    sender: "fd00:244:0:1::5",
    here: "fd00:244:0:1::6",
    elsewhere: "fd00:244:0:2::9",
    node: "fd00:29::b",
    other_node: "fd00:29::c",
    cluster: "fd00:96::20",
    balancer: "2001:db8:1::9",
    any: Addr16::UNSPECIFIED,
    overlay: 70,
};

/// Where a service's backend is.
#[derive(Clone, Copy, PartialEq)]
enum Where {
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

const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
const TARGET: u16 = 8_080;
const SERVICE_ID: u32 = 7;
const MTU: u32 = 1_500;

/// The node of the packet table, with a service of one backend.
fn with(family: &Family, proto: u8, place: Where, flags: u32) -> Memory {
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
    frontend(address(family.cluster), PORT, SCOPE_ADDRESS, flags & SERVICE_INTERNAL_LOCAL);
    let external = SERVICE_EXTERNAL | flags & !SERVICE_INTERNAL_LOCAL;
    frontend(address(family.balancer), PORT, SCOPE_ADDRESS, external);
    frontend(family.any, NODE_PORT, SCOPE_NODE_PORT, external & !SERVICE_SOURCE_RANGES);
    tables
}

/// A packet of a conversation and what comes of it.
struct Turn {
    name: &'static str,
    hook: Hook,
    before: PacketBuilder,
    verdict: Verdict,
    after: PacketBuilder,
}

/// Rows of a conversation: each packet meets what the former ones left.
fn conversation(mut tables: Memory, turns: Vec<Turn>) -> Vec<Case> {
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

/// Every row.
pub(super) fn table() -> Vec<Case> {
    let families = [V4, V6];
    let of_family = families.iter().map(|family| {
        [
            outside_to_here(family),
            outside_to_elsewhere(family),
            handed_over(family),
            returned_directly(family),
            masqueraded(family),
            outside_to_host(family),
            inside(family),
            beside_a_service(family),
            refused(family),
            errors(family),
            fragments(family),
            too_big(family),
        ]
        .concat()
    });
    of_family.flatten().map(only_on_the_host_over_the_overlay).collect()
}

fn name(family: &Family, text: &str) -> &'static str {
    // The rows live as long as the test.
    std::boxed::Box::leak(std::format!("{}: {text}", family.name).into_boxed_str())
}

fn syn(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::tcp(src, dst, SYN).ports(4_000, NODE_PORT)
}

fn delivered(packet: PacketBuilder) -> PacketBuilder {
    packet.macs(NEIGHBOUR_MAC, NEIGHBOUR_HOST_MAC).hops(63)
}

const TO_NEIGHBOUR: Verdict = Verdict::RedirectPeer { ifindex: NEIGHBOUR_IFINDEX };

fn outside_to_here(family: &Family) -> Vec<Case> {
    // The pod that answers is the one that the tests' packets come from.
    let tables = with(family, TCP, Where::Sender, 0);
    let back = Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX };
    let to_backend = |flags| {
        let before = PacketBuilder::tcp(family.client, family.node, flags).ports(4_000, NODE_PORT);
        (before.clone(), delivered(before.addresses(family.client, family.sender).ports(4_000, TARGET)))
    };
    let answer = |flags| PacketBuilder::tcp(family.sender, family.client, flags).ports(TARGET, 4_000);
    let answered =
        |flags| answer(flags).addresses(family.node, family.client).ports(NODE_PORT, 4_000).hops(63);
    let turn = |text, hook, (before, after), verdict| Turn {
        name: name(family, text),
        hook,
        before,
        verdict,
        after,
    };
    let reply =
        |text, flags| turn(text, Hook::FromPod, (answer(flags), answered(flags)), Verdict::RedirectUplink);
    conversation(
        tables,
        vec![
            turn(
                "a node port leads to a pod of this node, the client's address stays",
                Hook::FromUplink,
                to_backend(SYN),
                back,
            ),
            reply("its answer comes from the node port", SYN | ACK),
            turn("the connection goes on", Hook::FromUplink, to_backend(ACK), back),
            turn("the client ends", Hook::FromUplink, to_backend(FIN | ACK), back),
            reply("the pod ends", FIN | ACK),
            turn("a new connection from the same port begins anew", Hook::FromUplink, to_backend(SYN), back),
        ],
    )
}

fn outside_to_elsewhere(family: &Family) -> Vec<Case> {
    let node = address(family.other_node);
    let before = syn(family.client, family.balancer).ports(4_000, PORT);
    let after = before.clone().addresses(family.client, family.elsewhere).ports(4_000, TARGET).hops(63);
    let answer = PacketBuilder::tcp(family.elsewhere, family.client, SYN | ACK).ports(TARGET, 4_000);
    let answered = answer.clone().addresses(family.balancer, family.client).ports(PORT, 4_000).hops(63);
    conversation(
        with(family, TCP, Where::Elsewhere, 0),
        vec![
            Turn {
                name: name(family, "a backend on another node is handed the client's address"),
                hook: Hook::FromUplink,
                before,
                verdict: Verdict::RedirectOverlay { node },
                after,
            },
            Turn {
                name: name(
                    family,
                    "its answer comes back over the overlay and leaves from the load balancer's address",
                ),
                hook: Hook::FromOverlay(node),
                before: answer,
                verdict: Verdict::RedirectUplink,
                after: answered,
            },
        ],
    )
}

fn handed_over(family: &Family) -> Vec<Case> {
    let via = address(family.other_node);
    let before = PacketBuilder::tcp(family.client, family.sender, SYN).ports(4_000, TARGET);
    let answer = PacketBuilder::tcp(family.sender, family.client, SYN | ACK).ports(TARGET, 4_000);
    let stranger = Case {
        name: name(family, "nobody but a node may hand over"),
        hook: Hook::FromOverlay(address(family.client)),
        tables: with(family, TCP, Where::Nowhere, 0),
        packet: before.build(),
        expected: Outcome::unseen(Verdict::Drop(DropReason::SourceNotOwned), &before.build())
            .dropped(0, DropReason::SourceNotOwned),
        host_only: true,
    };
    let turns = vec![
        Turn {
            name: name(family, "what another node hands over reaches the pod as it is"),
            hook: Hook::FromOverlay(via),
            before: before.clone(),
            verdict: Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX },
            after: delivered(before),
        },
        Turn {
            name: name(family, "the pod's answer goes back to that node"),
            hook: Hook::FromPod,
            before: answer.clone(),
            verdict: Verdict::RedirectOverlay { node: via },
            after: answer.hops(63),
        },
    ];
    let mut cases = conversation(with(family, TCP, Where::Nowhere, 0), turns);
    cases.push(stranger);
    cases
}

/// A test run has no tunnel that a packet came by.
fn only_on_the_host_over_the_overlay(case: Case) -> Case {
    let overlay = matches!(case.hook, Hook::FromOverlay(_));
    Case { host_only: case.host_only || overlay, ..case }
}

fn returned_directly(family: &Family) -> Vec<Case> {
    let via = address(family.other_node);
    let mut entry = with(family, TCP, Where::Elsewhere, 0);
    entry.forwarding = FORWARD_DIRECT_RETURN;
    let mut backend = with(family, TCP, Where::Sender, 0);
    backend.forwarding = FORWARD_DIRECT_RETURN;
    let before = syn(family.client, family.balancer).ports(4_000, PORT);
    let at_backend = syn(family.client, family.other_node);
    let answer = PacketBuilder::tcp(family.sender, family.client, SYN | ACK).ports(TARGET, 4_000);
    let answered =
        answer.clone().addresses(family.other_node, family.client).ports(NODE_PORT, 4_000).hops(63);
    let mut cases = conversation(
        entry,
        vec![Turn {
            name: name(family, "with direct return the packet keeps the address that the client asked"),
            hook: Hook::FromUplink,
            before: before.clone(),
            verdict: Verdict::RedirectOverlay { node: via },
            after: before.hops(63),
        }],
    );
    cases.extend(conversation(
        backend,
        vec![
            Turn {
                name: name(family, "with direct return the backend's node chooses among its own pods"),
                hook: Hook::FromOverlay(via),
                before: at_backend.clone(),
                verdict: Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX },
                after: delivered(at_backend.addresses(family.client, family.sender).ports(4_000, TARGET)),
            },
            Turn {
                name: name(
                    family,
                    "with direct return the answer leaves at once, from the other node's port",
                ),
                hook: Hook::FromPod,
                before: answer,
                verdict: Verdict::RedirectUplink,
                after: answered,
            },
        ],
    ));
    // What a node forwards by is fixed when its programs are loaded.
    cases.into_iter().map(|case| Case { host_only: true, ..case }).collect()
}

fn masqueraded(family: &Family) -> Vec<Case> {
    let mut tables = with(family, UDP, Where::Elsewhere, 0);
    tables.forwarding = FORWARD_MASQUERADED;
    let before = PacketBuilder::udp(family.client, family.node).ports(4_000, NODE_PORT).checksummed();
    let after = before.clone().addresses(family.node, family.elsewhere).ports(61_001, TARGET).hops(63);
    let answer = PacketBuilder::udp(family.elsewhere, family.node).ports(TARGET, 61_001).checksummed();
    let answered = answer.clone().addresses(family.node, family.client).ports(NODE_PORT, 4_000).hops(63);
    // Chance says 0, which is mixed with the attempt: the table says which port that is.
    tables.masquerade_ports = (61_001, 1);
    let full = with_a_taken_port(&tables, family);
    let next_hop = address(family.other_node);
    let mut cases = conversation(
        tables,
        vec![
            Turn {
                name: name(family, "a masqueraded datagram has the node's address and a port of its range"),
                hook: Hook::FromUplink,
                before: before.clone(),
                verdict: Verdict::RedirectNeigh { ifindex: UPLINK, next_hop },
                after,
            },
            Turn {
                name: name(family, "its answer finds the client"),
                hook: Hook::FromUplink,
                before: answer,
                verdict: Verdict::RedirectUplink,
                after: answered,
            },
        ],
    );
    cases.extend(conversation(
        full,
        vec![Turn {
            name: name(family, "with every port in use a masqueraded connection is dropped and counted"),
            hook: Hook::FromUplink,
            before: before.clone(),
            verdict: Verdict::Drop(DropReason::PortsExhausted),
            after: before,
        }],
    ));
    cases.into_iter().map(|case| Case { host_only: true, ..case }).collect()
}

/// The same tables after another client has taken the only port.
fn with_a_taken_port(tables: &Memory, family: &Family) -> Memory {
    let first = Case {
        name: "",
        hook: Hook::FromUplink,
        tables: tables.clone(),
        packet: PacketBuilder::udp(family.client, family.node).ports(4_999, NODE_PORT).build(),
        expected: Outcome::unseen(Verdict::Pass, &[]),
        host_only: true,
    };
    first.run_and_keep().1
}

fn outside_to_host(family: &Family) -> Vec<Case> {
    let before = syn(family.client, family.balancer).ports(4_000, PORT);
    let after = before.clone().addresses(family.client, family.node).ports(4_000, TARGET);
    let answer = PacketBuilder::tcp(family.node, family.client, SYN | ACK).ports(TARGET, 4_000);
    let answered = answer.clone().addresses(family.balancer, family.client).ports(PORT, 4_000);
    conversation(
        with(family, TCP, Where::Host, 0),
        vec![
            Turn {
                name: name(family, "a backend that is a process of this node"),
                hook: Hook::FromUplink,
                before,
                verdict: Verdict::Pass,
                after,
            },
            Turn {
                name: name(family, "its answer leaves from the load balancer's address"),
                hook: Hook::ToUplink,
                before: answer,
                verdict: Verdict::Pass,
                after: answered,
            },
        ],
    )
}

fn inside(family: &Family) -> Vec<Case> {
    let ask = |dst: &str, port| PacketBuilder::udp(family.sender, dst).ports(4_000, port).checksummed();
    let next_hop = address(family.other_node);
    let turn =
        |text, hook, before, verdict, after| Turn { name: name(family, text), hook, before, verdict, after };
    let mut cases = conversation(
        with(family, UDP, Where::Elsewhere, 0),
        vec![
            turn(
                "a pod's packet to a cluster address that no socket hook saw",
                Hook::FromPod,
                ask(family.cluster, PORT),
                Verdict::RedirectNeigh { ifindex: UPLINK, next_hop },
                ask(family.cluster, PORT)
                    .addresses(family.sender, family.elsewhere)
                    .ports(4_000, TARGET)
                    .hops(63),
            ),
            turn(
                "the answer comes from the cluster address",
                Hook::FromUplink,
                PacketBuilder::udp(family.elsewhere, family.sender).ports(TARGET, 4_000).checksummed(),
                Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX },
                delivered(PacketBuilder::udp(family.cluster, family.sender).ports(PORT, 4_000).checksummed()),
            ),
        ],
    );
    cases.extend(conversation(
        with(family, UDP, Where::Sender, 0),
        vec![
            turn(
                "a pod that is its own backend sees the service as its client",
                Hook::FromPod,
                ask(family.cluster, PORT),
                Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX },
                delivered(
                    ask(family.cluster, PORT).addresses(family.cluster, family.sender).ports(4_000, TARGET),
                ),
            ),
            turn(
                "and gets the service's answer",
                Hook::FromPod,
                PacketBuilder::udp(family.sender, family.cluster).ports(TARGET, 4_000).checksummed(),
                Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX },
                delivered(PacketBuilder::udp(family.cluster, family.sender).ports(PORT, 4_000).checksummed()),
            ),
        ],
    ));
    cases.extend(conversation(
        with(family, UDP, Where::Here, SERVICE_EXTERNAL_LOCAL),
        vec![turn(
            "a pod's node port is served by all endpoints, whatever the external policy",
            Hook::FromPod,
            ask(family.node, NODE_PORT),
            TO_NEIGHBOUR,
            delivered(ask(family.node, NODE_PORT).addresses(family.sender, family.here).ports(4_000, TARGET)),
        )],
    ));
    let own = |cases: Vec<Case>| {
        // A pod that gets its own packet back counts as a sender and a receiver.
        cases.into_iter().map(|mut case| {
            if matches!(case.hook, Hook::FromPod)
                && matches!(case.expected.verdict, Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX })
            {
                let bytes = case.packet.len() as u64 - 14;
                let counters = case.expected.counters.entry(SENDER).or_default();
                (counters.rx_packets, counters.rx_bytes) = (1, bytes);
            }
            case
        })
    };
    own(cases).collect()
}

/// A packet from outside that ends here.
fn dropped(family: &Family, text: &str, tables: Memory, to: (&str, u16), reason: DropReason) -> Vec<Case> {
    let before = syn(family.client, to.0).ports(4_000, to.1);
    let verdict = Verdict::Drop(reason);
    let after = before.clone();
    conversation(
        tables,
        vec![Turn { name: name(family, text), hook: Hook::FromUplink, before, verdict, after }],
    )
}

/// A packet from outside that is answered with an ICMP error.
fn told(family: &Family, text: &str, tables: Memory, to: (&str, u16), reason: DropReason) -> Vec<Case> {
    let before = syn(family.client, to.0).ports(4_000, to.1);
    let after = PacketBuilder::unreachable(to.0, family.client, &before.build(), header_len(family) + 20)
        .macs([0x02, 0, 0, 0, 0, 0x02], [0x02, 0, 0, 0, 0, 0x01]);
    let verdict = Verdict::Answer(reason);
    conversation(
        tables,
        vec![Turn { name: name(family, text), hook: Hook::FromUplink, before, verdict, after }],
    )
}

/// A pod that no socket hook sees connects to a service and then, from the same port, to its backend itself.
fn beside_a_service(family: &Family) -> Vec<Case> {
    let next_hop = address(family.other_node);
    let turn =
        |text, hook, before, verdict, after| Turn { name: name(family, text), hook, before, verdict, after };
    let opens = |dst: &str, port| PacketBuilder::tcp(family.sender, dst, SYN).ports(4_000, port);
    let direct = opens(family.elsewhere, TARGET);
    let answer = PacketBuilder::tcp(family.elsewhere, family.sender, SYN | ACK).ports(TARGET, 4_000);
    conversation(
        with(family, TCP, Where::Elsewhere, 0),
        vec![
            turn(
                "a pod connects to a cluster address, and no socket hook saw it",
                Hook::FromPod,
                opens(family.cluster, PORT),
                Verdict::RedirectNeigh { ifindex: UPLINK, next_hop },
                direct.clone().hops(63),
            ),
            turn(
                "then from the same port to the backend itself",
                Hook::FromPod,
                direct.clone(),
                Verdict::RedirectNeigh { ifindex: UPLINK, next_hop },
                direct.hops(63),
            ),
            turn(
                "which answers itself, not as the service",
                Hook::FromUplink,
                answer.clone(),
                Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX },
                delivered(answer),
            ),
        ],
    )
}

fn refused(family: &Family) -> Vec<Case> {
    let tables = |place, flags| with(family, TCP, place, flags);
    let balancer = (family.balancer, PORT);
    let node = (family.node, NODE_PORT);
    let mut full = tables(Where::Here, 0);
    full.connections_max = 1;
    let full = dropped(
        family,
        "a full table of connections refuses what is new",
        full,
        balancer,
        DropReason::ConntrackFull,
    );
    [
        told(
            family,
            "a service without endpoints refuses at once",
            tables(Where::Nowhere, 0),
            balancer,
            DropReason::NoEndpoints,
        ),
        told(
            family,
            "a node port without endpoints refuses at once",
            tables(Where::Nowhere, 0),
            node,
            DropReason::NoEndpoints,
        ),
        told(
            family,
            "a port that no service has of a service's address is refused",
            tables(Where::Here, 0),
            (family.balancer, 81),
            DropReason::NoPort,
        ),
        dropped(
            family,
            "an external policy Local without local endpoints drops",
            tables(Where::Elsewhere, SERVICE_EXTERNAL_LOCAL),
            node,
            DropReason::NoLocalEndpoints,
        ),
        dropped(
            family,
            "endpoints that this node may not use drop",
            tables(Where::Unusable, 0),
            balancer,
            DropReason::NoLocalEndpoints,
        ),
        full.into_iter().map(|case| Case { host_only: true, ..case }).collect(),
        restricted(family),
    ]
    .concat()
}

/// Source ranges, and a protocol whose checksum no difference corrects.
fn restricted(family: &Family) -> Vec<Case> {
    let mut ranges = with(family, TCP, Where::Here, SERVICE_SOURCE_RANGES);
    let none = dropped(
        family,
        "a client in no source range is dropped",
        ranges.clone(),
        (family.balancer, PORT),
        DropReason::SourceNotAllowed,
    );
    ranges.source_ranges = vec![(SERVICE_ID, address(family.client), 128)];
    let before = syn(family.client, family.balancer).ports(4_000, PORT);
    let allowed = Turn {
        name: name(family, "a client in a source range is served"),
        hook: Hook::FromUplink,
        before: before.clone(),
        verdict: TO_NEIGHBOUR,
        after: delivered(before.addresses(family.client, family.here).ports(4_000, TARGET)),
    };
    let sctp = Turn {
        name: name(family, "SCTP with another port behind the service cannot be rewritten"),
        hook: Hook::FromUplink,
        before: PacketBuilder::sctp(family.client, family.balancer).ports(4_000, PORT),
        verdict: Verdict::Drop(DropReason::Malformed),
        after: PacketBuilder::sctp(family.client, family.here).ports(4_000, PORT),
    };
    let sctp = conversation(with(family, SCTP, Where::Here, 0), vec![sctp]);
    [none, conversation(ranges, vec![allowed]), sctp].concat()
}

fn header_len(family: &Family) -> usize {
    if family.overlay == V4.overlay { 20 } else { 40 }
}

fn errors(family: &Family) -> Vec<Case> {
    let tables = with(family, UDP, Where::Sender, 0);
    let ask = PacketBuilder::udp(family.client, family.node).ports(4_000, NODE_PORT);
    let asked = delivered(ask.clone().addresses(family.client, family.sender).ports(4_000, TARGET));
    // What the pod got is what it complains of; what the client sent is what the client must hear of.
    let quoted = header_len(family) + 12;
    let got = asked.build();
    let sent = ask.clone().hops(63).build();
    let complaint = PacketBuilder::unreachable(family.sender, family.client, &got, quoted);
    let heard = PacketBuilder::unreachable(family.node, family.client, &sent, quoted).hops(63);
    let back = Verdict::RedirectPeer { ifindex: super::TEST_IFINDEX };
    conversation(
        tables,
        vec![
            Turn {
                name: name(family, "a datagram to a node port"),
                hook: Hook::FromUplink,
                before: ask,
                verdict: back,
                after: asked,
            },
            Turn {
                name: name(
                    family,
                    "the pod's complaint about it is told of the datagram that the client sent",
                ),
                hook: Hook::FromPod,
                before: complaint,
                verdict: Verdict::RedirectUplink,
                after: heard,
            },
        ],
    )
}

fn fragments(family: &Family) -> Vec<Case> {
    let payload = [7; 64];
    let first = PacketBuilder::udp(family.client, family.balancer)
        .ports(4_000, PORT)
        .payload(&payload)
        .fragment(99, 0, true);
    let later = PacketBuilder::udp(family.client, family.balancer).payload(&payload).fragment(99, 72, false);
    let other = later.clone().fragment(100, 72, false);
    let turn = |text, before: &PacketBuilder, verdict, after| Turn {
        name: name(family, text),
        hook: Hook::FromUplink,
        before: before.clone(),
        verdict,
        after,
    };
    let to_pod = |packet: &PacketBuilder| delivered(packet.clone().addresses(family.client, family.here));
    let unknown = DropReason::UnknownFragment;
    conversation(
        with(family, UDP, Where::Here, 0),
        vec![
            turn("a first fragment", &first, TO_NEIGHBOUR, to_pod(&first).ports(4_000, TARGET)),
            turn("a later fragment follows the first", &later, TO_NEIGHBOUR, to_pod(&later)),
            turn("a fragment whose first part was not seen", &other, Verdict::Drop(unknown), other.clone()),
        ],
    )
}

fn too_big(family: &Family) -> Vec<Case> {
    let room = MTU - family.overlay;
    let payload = vec![1; room as usize - header_len(family) - 8];
    let fits = PacketBuilder::udp(family.client, family.balancer).ports(4_000, PORT).payload(&payload);
    let fits = fits.do_not_fragment();
    let node = address(family.other_node);
    let before = fits.clone().payload(&[payload.as_slice(), &[1]].concat());
    let mut answer =
        PacketBuilder::unreachable(family.balancer, family.client, &before.build(), header_len(family) + 8);
    answer = told_mtu(answer, family, room).macs([0x02, 0, 0, 0, 0, 0x02], [0x02, 0, 0, 0, 0, 0x01]);
    conversation(
        with(family, UDP, Where::Elsewhere, 0),
        vec![
            Turn {
                name: name(family, "the longest packet that the overlay takes"),
                hook: Hook::FromUplink,
                before: fits.clone(),
                verdict: Verdict::RedirectOverlay { node },
                after: fits.addresses(family.client, family.elsewhere).ports(4_000, TARGET).hops(63),
            },
            Turn {
                name: name(family, "a longer one is answered with what fits"),
                hook: Hook::FromUplink,
                before,
                verdict: Verdict::Answer(DropReason::TooBig),
                after: answer,
            },
        ],
    )
}

/// Makes "port unreachable" the complaint about a packet's length.
fn told_mtu(packet: PacketBuilder, family: &Family, mtu: u32) -> PacketBuilder {
    let built = packet.build();
    let start = 14 + header_len(family);
    let mut payload = built[start..].to_vec();
    (payload[0], payload[1]) = if header_len(family) == 20 { (3, 4) } else { (2, 0) };
    (payload[2], payload[3]) = (0, 0);
    payload[4..8].copy_from_slice(&mtu.to_be_bytes());
    packet.payload(&payload)
}
