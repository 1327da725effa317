//! Pods that no socket hook sees.

use std::{vec, vec::Vec};

use fairlead_abi::service::{SERVICE_EXTERNAL_LOCAL, TCP, UDP};

use super::fixture::*;
use crate::{
    Verdict,
    cases::{
        Case, Hook, PacketBuilder, TEST_IFINDEX, address,
        table::{SENDER, UPLINK},
    },
};

pub(super) fn inside(family: &Family) -> Vec<Case> {
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
                Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
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
                Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
                delivered(
                    ask(family.cluster, PORT).addresses(family.cluster, family.sender).ports(4_000, TARGET),
                ),
            ),
            turn(
                "and gets the service's answer",
                Hook::FromPod,
                PacketBuilder::udp(family.sender, family.cluster).ports(TARGET, 4_000).checksummed(),
                Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
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
                && matches!(case.expected.verdict, Verdict::RedirectPeer { ifindex: TEST_IFINDEX })
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

/// A pod that no socket hook sees connects to a service and then, from the same port, to its backend itself.
pub(super) fn beside_a_service(family: &Family) -> Vec<Case> {
    [("tcp", TCP), ("udp", UDP)].into_iter().flat_map(|(text, proto)| beside(family, text, proto)).collect()
}

fn beside(family: &Family, protocol: &str, proto: u8) -> Vec<Case> {
    let next_hop = address(family.other_node);
    let turn = |text: &str, hook, before, verdict, after| {
        let name = name(family, &std::format!("{protocol}, {text}"));
        Turn { name, hook, before, verdict, after }
    };
    let packet = |src, dst, flags| match proto {
        TCP => PacketBuilder::tcp(src, dst, flags),
        _ => PacketBuilder::udp(src, dst),
    };
    let opens = |dst: &'static str, port| packet(family.sender, dst, SYN).ports(4_000, port);
    let direct = opens(family.elsewhere, TARGET);
    let answer = packet(family.elsewhere, family.sender, SYN | ACK).ports(TARGET, 4_000);
    let by_the_service = |text| {
        turn(
            text,
            Hook::FromPod,
            opens(family.cluster, PORT),
            Verdict::RedirectNeigh { ifindex: UPLINK, next_hop },
            direct.clone().hops(63),
        )
    };
    conversation(
        with(family, proto, Where::Elsewhere, 0),
        vec![
            by_the_service("a pod asks a cluster address, and no socket hook saw it"),
            turn(
                "then from the same port the backend itself",
                Hook::FromPod,
                direct.clone(),
                Verdict::RedirectNeigh { ifindex: UPLINK, next_hop },
                direct.clone().hops(63),
            ),
            turn(
                "which answers itself, not as the service",
                Hook::FromUplink,
                answer.clone(),
                Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
                delivered(answer.clone()),
            ),
            by_the_service("then the cluster address again"),
            turn(
                "and the answer is the service's",
                Hook::FromUplink,
                answer.clone(),
                Verdict::RedirectPeer { ifindex: TEST_IFINDEX },
                delivered(packet(family.cluster, family.sender, SYN | ACK).ports(PORT, 4_000)),
            ),
        ],
    )
}
