//! ICMP errors of routers on the way, about packets that were translated: who sent the packet learns of it, and finds in it
//! what it sent.

use std::{vec, vec::Vec};

use fairlead_abi::{
    names::globals::{FORWARD_BY_STACK, FORWARD_DIRECT_RETURN, FORWARD_MASQUERADED},
    service::{TCP, UDP},
};

use super::{errors::told_mtu, fixture::*};
use crate::{
    Verdict,
    cases::{Case, Hook, Memory, PacketBuilder, TEST_IFINDEX, address, table::UPLINK},
};

/// What fits through the router's next link.
const NARROW: u32 = 1_300;

/// How many hops a packet has left when a router complains of it.
const HOPS: u8 = 60;

/// An address and a port.
type End<'a> = (&'a str, u16);

/// The packet that is complained of: its source, its destination.
type About<'a> = (End<'a>, End<'a>);

/// A router's complaint as it comes by and as it goes on.
struct Told<'a> {
    what: &'a str,
    hook: Hook,
    before: About<'a>,
    after: About<'a>,
    verdict: Verdict,
}

impl Told<'_> {
    /// "Too long" and "unreachable": whoever is told, of whatever is wrong.
    fn turns(&self, family: &Family) -> Vec<Turn> {
        let too_long = |packet| told_mtu(packet, family, NARROW);
        let as_it_is = |packet| packet;
        let complaints: [(&str, &dyn Fn(PacketBuilder) -> PacketBuilder); 2] =
            [("a packet that is too long", &too_long), ("an address that nobody has", &as_it_is)];
        let turn = |(of, complaint): (&str, &dyn Fn(PacketBuilder) -> PacketBuilder)| {
            let after = complaint(error(family, &self.after));
            let after = match self.verdict {
                Verdict::Pass | Verdict::PassMasqueraded => after,
                Verdict::RedirectPeer { .. } => delivered(after),
                _ => after.hops(63),
            };
            Turn {
                name: name(family, &std::format!("{}, an error about {of}", self.what)),
                hook: self.hook,
                before: complaint(error(family, &self.before)),
                verdict: self.verdict,
                after,
            }
        };
        complaints.map(turn).into()
    }
}

/// A router's error about a TCP segment, of which it quotes as little as it may: the ports and eight bytes in all.
fn error(family: &Family, (src, dst): &About<'_>) -> PacketBuilder {
    let about = PacketBuilder::tcp(src.0, dst.0, ACK).ports(src.1, dst.1).hops(HOPS).build();
    PacketBuilder::unreachable(family.router, src.0, &about, header_len(family) + 8)
}

/// A client begins a connection, then routers complain.
fn after_a_first_packet(
    family: &Family,
    tables: Memory,
    (hook, to): (Hook, End<'_>),
    (verdict, became): (Verdict, PacketBuilder),
    complaints: &[Told<'_>],
) -> Vec<Case> {
    let before = syn(family.client, to.0).ports(CLIENT_PORT, to.1);
    let text = std::format!("a connection of which then {}", complaints[0].what);
    let begins = Turn { name: name(family, &text), hook, before, verdict, after: became };
    let mut turns = vec![begins];
    turns.extend(complaints.iter().flat_map(|told| told.turns(family)));
    conversation(tables, turns)
}

const CLIENT_PORT: u16 = 4_000;

pub(super) fn routers(family: &Family) -> Vec<Case> {
    [
        to_a_pod_here(family),
        to_another_node(family),
        handed_over(family),
        masqueraded(family),
        returned_directly(family),
        by_the_stack(family),
        of_the_host_itself(family),
        of_fragments(family),
    ]
    .concat()
}

fn to_a_pod_here(family: &Family) -> Vec<Case> {
    let (client, asked) = ((family.client, CLIENT_PORT), (family.node, NODE_PORT));
    let verdict = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
    let served = syn(family.client, family.sender).ports(CLIENT_PORT, TARGET);
    after_a_first_packet(
        family,
        with(family, TCP, Where::Sender, 0),
        (Hook::FromUplink, asked),
        (verdict, delivered(served)),
        &[Told {
            what: "a router before the client tells the pod",
            hook: Hook::FromUplink,
            before: (asked, client),
            after: ((family.sender, TARGET), client),
            verdict,
        }],
    )
}

fn to_another_node(family: &Family) -> Vec<Case> {
    let node = address(family.other_node);
    let (client, asked) = ((family.client, CLIENT_PORT), (family.balancer, PORT));
    let backend = (family.elsewhere, TARGET);
    let verdict = Verdict::RedirectOverlay { node };
    let served = syn(family.client, family.elsewhere).ports(CLIENT_PORT, TARGET).hops(63);
    after_a_first_packet(
        family,
        with(family, TCP, Where::Elsewhere, 0),
        (Hook::FromUplink, asked),
        (verdict, served),
        &[
            Told {
                what: "a router before the client tells the pod of another node",
                hook: Hook::FromUplink,
                before: (asked, client),
                after: (backend, client),
                verdict,
            },
            Told {
                what: "a router behind another node tells the client",
                hook: Hook::FromOverlay(node),
                before: (client, backend),
                after: (client, asked),
                verdict: Verdict::RedirectRouted,
            },
        ],
    )
}

fn handed_over(family: &Family) -> Vec<Case> {
    let via = Hook::FromOverlay(address(family.other_node));
    let (client, backend) = ((family.client, CLIENT_PORT), (family.sender, TARGET));
    let verdict = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
    let served = syn(family.client, family.sender).ports(CLIENT_PORT, TARGET);
    after_a_first_packet(
        family,
        with(family, TCP, Where::Nowhere, 0),
        (via, backend),
        (verdict, delivered(served)),
        &[Told {
            what: "a router's complaint that another node hands over reaches the pod",
            hook: via,
            before: (backend, client),
            after: (backend, client),
            verdict,
        }],
    )
}

fn masqueraded(family: &Family) -> Vec<Case> {
    let mut tables = with(family, TCP, Where::Elsewhere, 0);
    tables.forwarding = FORWARD_MASQUERADED;
    let port = tables.masquerade_ports.0;
    // The only one, so that it is known here.
    tables.masquerade_ports.1 = 1;
    let (client, asked) = ((family.client, CLIENT_PORT), (family.node, NODE_PORT));
    let (own, backend) = ((family.node, port), (family.elsewhere, TARGET));
    let verdict = Verdict::RedirectNeigh { ifindex: UPLINK, next_hop: address(family.other_node) };
    let served = syn(family.node, family.elsewhere).ports(port, TARGET).hops(63);
    let cases = after_a_first_packet(
        family,
        tables,
        (Hook::FromUplink, asked),
        (verdict, served),
        &[
            Told {
                what: "a router before a masqueraded client tells the pod",
                hook: Hook::FromUplink,
                before: (asked, client),
                after: (backend, own),
                verdict,
            },
            Told {
                what: "a router before the backend tells a masqueraded client",
                hook: Hook::FromUplink,
                before: (own, backend),
                after: (client, asked),
                verdict: Verdict::RedirectRouted,
            },
        ],
    );
    only_on_the_host(cases)
}

/// The client hears from the backend's node, but the address that it hears from is the first node's, so a router's complaint
/// goes there.
fn returned_directly(family: &Family) -> Vec<Case> {
    let node = address(family.other_node);
    let client = (family.client, CLIENT_PORT);
    let tables = |place| {
        let mut tables = with(family, TCP, place, 0);
        tables.forwarding = FORWARD_DIRECT_RETURN;
        tables
    };
    let asked = (family.balancer, PORT);
    let verdict = Verdict::RedirectOverlay { node };
    let mut cases = after_a_first_packet(
        family,
        tables(Where::Elsewhere),
        (Hook::FromUplink, asked),
        (verdict, syn(family.client, asked.0).ports(CLIENT_PORT, asked.1).hops(63)),
        &[Told {
            what: "a router before the client tells the node that answers directly",
            hook: Hook::FromUplink,
            before: (asked, client),
            after: (asked, client),
            verdict,
        }],
    );
    let via = Hook::FromOverlay(node);
    let asked = (family.other_node, NODE_PORT);
    let verdict = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
    let served = syn(family.client, family.sender).ports(CLIENT_PORT, TARGET);
    cases.extend(after_a_first_packet(
        family,
        tables(Where::Sender),
        (via, asked),
        (verdict, delivered(served)),
        &[Told {
            what: "the node that answers directly tells its pod",
            hook: via,
            before: (asked, client),
            after: ((family.sender, TARGET), client),
            verdict,
        }],
    ));
    only_on_the_host(cases)
}

/// What the stack does of it, masquerade and find its way, it does with errors as with other packets.
fn by_the_stack(family: &Family) -> Vec<Case> {
    let (client, asked) = ((family.client, CLIENT_PORT), (family.balancer, PORT));
    let of = |place, pod: &str, verdict, [before_client, before_pod]: [&str; 2]| {
        let mut tables = with(family, TCP, place, 0);
        tables.forwarding = FORWARD_BY_STACK;
        (tables.pods, tables.interfaces, tables.routes) = Default::default();
        let complaints = [
            Told {
                what: before_client,
                hook: Hook::FromUplink,
                before: (asked, client),
                after: ((pod, TARGET), client),
                verdict,
            },
            Told {
                what: before_pod,
                hook: Hook::ThroughToUplink,
                before: (client, (pod, TARGET)),
                after: (client, asked),
                verdict: Verdict::Pass,
            },
        ];
        let served = syn(family.client, pod).ports(CLIENT_PORT, TARGET);
        after_a_first_packet(family, tables, (Hook::FromUplink, asked), (verdict, served), &complaints)
    };
    let whats = [
        "a router before the client tells a pod that is not ours",
        "a router before a pod that is not ours tells the client",
    ];
    let mut cases = of(Where::Here, family.here, Verdict::Pass, whats);
    let whats = [
        "a router before a client that the stack masquerades tells the pod",
        "a router before the pod tells a client that the stack masquerades",
    ];
    cases.extend(of(Where::Elsewhere, family.elsewhere, Verdict::PassMasqueraded, whats));
    only_on_the_host(cases)
}

/// A connection of the host itself has the service's client and another port: what is told of it is the host's.
fn of_the_host_itself(family: &Family) -> Vec<Case> {
    let (client, asked) = ((family.client, CLIENT_PORT), (family.node, NODE_PORT));
    let own = (family.node, NODE_PORT + 1);
    let back = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
    let served = syn(family.client, family.sender).ports(CLIENT_PORT, TARGET);
    after_a_first_packet(
        family,
        with(family, TCP, Where::Sender, 0),
        (Hook::FromUplink, asked),
        (back, delivered(served)),
        &[Told {
            what: "a router tells the host of a packet of its own",
            hook: Hook::FromUplink,
            before: (own, client),
            after: (own, client),
            verdict: Verdict::Pass,
        }],
    )
}

/// An answer that is too long for one packet: over IPv6 only its sender can cut it, and only the first part has ports.
fn of_fragments(family: &Family) -> Vec<Case> {
    let back = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
    let ask = PacketBuilder::udp(family.client, family.node).ports(CLIENT_PORT, NODE_PORT);
    let asked = delivered(ask.clone().addresses(family.client, family.sender).ports(CLIENT_PORT, TARGET));
    let about = |(src, port), offset| {
        let part = PacketBuilder::udp(src, family.client).ports(port, CLIENT_PORT).payload(&[7; 64]);
        let part = part.fragment(99, offset, true).hops(HOPS).build();
        let quoted = part.len();
        told_mtu(PacketBuilder::unreachable(family.router, src, &part, quoted), family, NARROW)
    };
    let first = |end| about(end, 0);
    let later = about((family.node, NODE_PORT), 72);
    let turn = |text, before, verdict, after| arrives(family, text, before, verdict, after);
    conversation(
        with(family, UDP, Where::Sender, 0),
        vec![
            turn("a datagram whose answer is long", ask, back, asked),
            turn(
                "a router tells the pod, with an error about the first part of its answer",
                first((family.node, NODE_PORT)),
                back,
                delivered(first((family.sender, TARGET))),
            ),
            turn("an error about a later part has no ports", later.clone(), Verdict::Pass, later),
        ],
    )
}
