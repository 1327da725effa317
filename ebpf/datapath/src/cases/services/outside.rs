//! Clients outside.

use std::{vec, vec::Vec};

use fairlead_abi::{
    DropReason,
    names::globals::{FORWARD_BY_STACK, FORWARD_DIRECT_RETURN, FORWARD_MASQUERADED},
    service::{TCP, UDP},
};

use super::fixture::*;
use crate::{
    Verdict,
    cases::{Case, Hook, Memory, Outcome, PacketBuilder, TEST_IFINDEX, address, table::UPLINK},
};

pub(super) fn outside_to_here(family: &Family) -> Vec<Case> {
    // The pod that answers is the one that the tests' packets come from.
    let tables = with(family, TCP, Where::Sender, 0);
    let back = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
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
        |text, flags| turn(text, Hook::FromPod, (answer(flags), answered(flags)), Verdict::RedirectRouted);
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

pub(super) fn outside_to_elsewhere(family: &Family) -> Vec<Case> {
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
                verdict: Verdict::RedirectRouted,
                after: answered,
            },
        ],
    )
}

pub(super) fn handed_over(family: &Family) -> Vec<Case> {
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
            verdict: Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
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

pub(super) fn returned_directly(family: &Family) -> Vec<Case> {
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
                verdict: Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
                after: delivered(at_backend.addresses(family.client, family.sender).ports(4_000, TARGET)),
            },
            Turn {
                name: name(
                    family,
                    "with direct return the answer leaves at once, from the other node's port",
                ),
                hook: Hook::FromPod,
                before: answer,
                verdict: Verdict::RedirectRouted,
                after: answered,
            },
        ],
    ));
    // What a node forwards by is fixed when its programs are loaded.
    only_on_the_host(cases)
}

pub(super) fn masqueraded(family: &Family) -> Vec<Case> {
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
                verdict: Verdict::RedirectRouted,
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
    only_on_the_host(cases)
}

/// One client port, two addresses of a service, one backend: the second connection begins when the first one has ended.
pub(super) fn ports_again(family: &Family) -> Vec<Case> {
    let back = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
    let to = |text, (dst, port), flags| {
        let before = PacketBuilder::tcp(family.client, dst, flags).ports(4_000, port);
        let after = before.clone().addresses(family.client, family.sender).ports(4_000, TARGET);
        let after = delivered(after);
        arrives(family, text, before, back, after)
    };
    let (balancer, node) = ((family.balancer, PORT), (family.node, NODE_PORT));
    conversation(
        with(family, TCP, Where::Sender, 0),
        vec![
            to("a client asks a load balancer's address", balancer, SYN),
            to("and resets the connection", balancer, RST),
            to("the node port, asked from the same port, needs no other port than the client's", node, SYN),
        ],
    )
}

/// With the pods of another network plugin, of whom these tables know nothing.
pub(super) fn by_the_stack(family: &Family) -> Vec<Case> {
    let tables = |place| {
        let mut tables = with(family, TCP, place, 0);
        tables.forwarding = FORWARD_BY_STACK;
        (tables.pods, tables.interfaces, tables.routes) = Default::default();
        tables
    };
    let there_and_back = |tables: Memory, pod: &str, texts: [&'static str; 3], verdict| {
        let to_balancer = syn(family.client, family.balancer).ports(4_000, PORT);
        let answer = PacketBuilder::tcp(pod, family.client, SYN | ACK).ports(TARGET, 4_000);
        let again = PacketBuilder::tcp(family.client, family.balancer, ACK).ports(4_000, PORT);
        let turn = |text, hook, before: PacketBuilder, verdict, after| Turn {
            name: name(family, text),
            hook,
            before,
            verdict,
            after,
        };
        let served =
            |before: &PacketBuilder| before.clone().addresses(family.client, pod).ports(4_000, TARGET);
        conversation(
            tables,
            vec![
                turn(texts[0], Hook::FromUplink, to_balancer.clone(), verdict, served(&to_balancer)),
                turn(
                    texts[1],
                    Hook::ThroughToUplink,
                    answer.clone(),
                    Verdict::Pass,
                    answer.addresses(family.balancer, family.client).ports(PORT, 4_000),
                ),
                turn(texts[2], Hook::FromUplink, again.clone(), verdict, served(&again)),
            ],
        )
    };
    let mut cases = there_and_back(
        tables(Where::Here),
        family.here,
        [
            "a pod that is not ours is reached through the stack with the client's address",
            "the stack forwards its answer, which leaves from the load balancer's address",
            "a connection to a pod that is not ours goes on",
        ],
        Verdict::Pass,
    );
    cases.extend(there_and_back(
        tables(Where::Elsewhere),
        family.elsewhere,
        [
            "the stack masquerades what goes to a pod elsewhere that is not ours",
            "what the stack has masqueraded is answered from the load balancer's address",
            "the stack goes on masquerading",
        ],
        Verdict::PassMasqueraded,
    ));
    let own = syn(family.here, family.cluster).ports(4_000, PORT);
    cases.extend(conversation(
        tables(Where::Here),
        vec![Turn {
            name: name(
                family,
                "what a pod that is not ours sends to a service begins nothing on its way out",
            ),
            hook: Hook::ThroughToUplink,
            before: own.clone(),
            verdict: Verdict::Pass,
            after: own,
        }],
    ));
    only_on_the_host(cases)
}

/// The same tables after another client has taken the only port.
pub(super) fn with_a_taken_port(tables: &Memory, family: &Family) -> Memory {
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

pub(super) fn outside_to_host(family: &Family) -> Vec<Case> {
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
