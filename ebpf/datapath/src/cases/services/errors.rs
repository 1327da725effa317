//! ICMP errors, fragments, packets that are too big.

use std::{vec, vec::Vec};

use fairlead_abi::{DropReason, service::UDP};

use super::fixture::*;
use crate::{
    Verdict,
    cases::{Case, Hook, PacketBuilder, TEST_IFINDEX, address},
};

pub(super) fn errors(family: &Family) -> Vec<Case> {
    let tables = with(family, UDP, Where::Sender, 0);
    let ask = PacketBuilder::udp(family.client, family.node).ports(4_000, NODE_PORT);
    let asked = delivered(ask.clone().addresses(family.client, family.sender).ports(4_000, TARGET));
    // What the pod got is what it complains of; what the client sent is what the client must hear of.
    let quoted = header_len(family) + 12;
    let got = asked.build();
    let sent = ask.clone().hops(63).build();
    let complaint = PacketBuilder::unreachable(family.sender, family.client, &got, quoted);
    let heard = PacketBuilder::unreachable(family.node, family.client, &sent, quoted).hops(63);
    let back = Verdict::RedirectPeer { ifindex: TEST_IFINDEX };
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
                verdict: Verdict::RedirectRouted,
                after: heard,
            },
        ],
    )
}

pub(super) fn fragments(family: &Family) -> Vec<Case> {
    let payload = [7; 64];
    let first = PacketBuilder::udp(family.client, family.balancer)
        .ports(4_000, PORT)
        .payload(&payload)
        .fragment(99, 0, true);
    let later = PacketBuilder::udp(family.client, family.balancer).payload(&payload).fragment(99, 72, false);
    let other = later.clone().fragment(100, 72, false);
    let turn =
        |text, before: &PacketBuilder, verdict, after| arrives(family, text, before.clone(), verdict, after);
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

pub(super) fn too_big(family: &Family) -> Vec<Case> {
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
pub(super) fn told_mtu(packet: PacketBuilder, family: &Family, mtu: u32) -> PacketBuilder {
    let built = packet.build();
    let start = 14 + header_len(family);
    let mut payload = built[start..].to_vec();
    (payload[0], payload[1]) = if header_len(family) == 20 { (3, 4) } else { (2, 0) };
    (payload[2], payload[3]) = (0, 0);
    payload[4..8].copy_from_slice(&mtu.to_be_bytes());
    packet.payload(&payload)
}
