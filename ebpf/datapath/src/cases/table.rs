//! The rows.

use std::{vec, vec::Vec};

use fairlead_abi::{
    Addr16, DropReason,
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
};

use super::{Case, Hook, Memory, Outcome, PacketBuilder, TEST_IFINDEX, address};
use crate::Verdict;

/// The pod whose interface the packets arrive on.
pub(super) const SENDER: u32 = 5;
/// Another pod of this node, behind interface 77.
pub(super) const NEIGHBOUR: u32 = 6;
pub(super) const NEIGHBOUR_IFINDEX: u32 = 77;
pub(super) const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 6, 0x01];
pub(super) const NEIGHBOUR_HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 6, 0x02];
pub(super) const UPLINK: u32 = 3;

/// A node whose pod networks are 10.244.1.0/24 and fd00:244:0:1::/64, with two pods, and routes to two other nodes.
pub(super) fn node() -> Memory {
    let neighbour = PodValue {
        ifindex: NEIGHBOUR_IFINDEX,
        slot: NEIGHBOUR,
        mac: NEIGHBOUR_MAC,
        host_mac: NEIGHBOUR_HOST_MAC,
    };
    let sender = PodValue { ifindex: TEST_IFINDEX, slot: SENDER, ..neighbour };
    let route = |prefix: &str, len: u32, next_hop: Addr16, ifindex: u32| {
        (address(prefix), len, RouteValue { next_hop, ifindex })
    };
    Memory {
        pods: vec![
            (address("10.244.1.5"), sender),
            (address("fd00:244:0:1::5"), sender),
            (address("10.244.1.6"), neighbour),
            (address("fd00:244:0:1::6"), neighbour),
        ],
        interfaces: vec![(
            TEST_IFINDEX,
            InterfaceValue { v4: address("10.244.1.5"), v6: address("fd00:244:0:1::5"), slot: SENDER },
        )],
        routes: vec![
            route("10.244.1.0", 96 + 24, Addr16::UNSPECIFIED, 0),
            route("fd00:244:0:1::", 64, Addr16::UNSPECIFIED, 0),
            route("10.244.2.0", 96 + 24, address("172.29.0.12"), 0),
            route("fd00:244:0:2::", 64, address("fd00:29::c"), 0),
            route("10.244.3.0", 96 + 24, address("172.30.0.13"), 9),
        ],
        uplink: UPLINK,
        ..Memory::default()
    }
}

/// The same node with a pod that has only an IPv4 address.
fn node_with_a_v4_pod() -> Memory {
    let mut tables = node();
    tables.interfaces[0].1.v6 = Addr16::UNSPECIFIED;
    tables.pods.retain(|(addr, pod)| pod.ifindex != TEST_IFINDEX || addr.is_v4());
    tables
}

/// The same node before the sender's interface has an entry.
fn node_without_the_interface() -> Memory {
    let mut tables = node();
    tables.interfaces.clear();
    tables.pods.retain(|(_, pod)| pod.ifindex != TEST_IFINDEX);
    tables
}

/// Every row.
pub fn table() -> Vec<Case> {
    let pods =
        [delivered(), routed(), left_to_the_stack(), forged(), broken(), refused(), to_pod(), from_uplink()];
    [pods.concat(), super::services::table()].concat()
}

fn udp(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::udp(src, dst)
}

/// A row about a packet of the sending pod.
fn sends(name: &'static str, packet: &[u8], expected: Outcome) -> Case {
    Case { name, hook: Hook::FromPod, tables: node(), packet: packet.to_vec(), expected, host_only: false }
}

/// A row about a packet that arrives from another node.
fn arrives(name: &'static str, packet: &[u8], expected: Outcome) -> Case {
    Case { name, hook: Hook::FromUplink, tables: node(), packet: packet.to_vec(), expected, host_only: false }
}

fn to_neighbour(before: &PacketBuilder, hops: u8) -> Outcome {
    let after = before.clone().hops(hops - 1).macs(NEIGHBOUR_MAC, NEIGHBOUR_HOST_MAC).build();
    Outcome::unseen(Verdict::RedirectPeer { ifindex: NEIGHBOUR_IFINDEX }, &after).received(NEIGHBOUR)
}

fn delivered() -> Vec<Case> {
    let row = |name, before: PacketBuilder, hops: u8| {
        let before = before.hops(hops);
        sends(name, &before.build(), to_neighbour(&before, hops).sent(SENDER))
    };
    vec![
        row("IPv4 to a pod of this node", udp("10.244.1.5", "10.244.1.6"), 64),
        row("IPv6 to a pod of this node", udp("fd00:244:0:1::5", "fd00:244:0:1::6"), 64),
        row("IPv4 with options", udp("10.244.1.5", "10.244.1.6").options(10), 64),
        row("IPv4 with the last hop to spend", udp("10.244.1.5", "10.244.1.6"), 2),
        row("IPv6 with the last hop to spend", udp("fd00:244:0:1::5", "fd00:244:0:1::6"), 2),
        row(
            "IPv4 without payload, shorter than an IPv6 header",
            udp("10.244.1.5", "10.244.1.6").payload(b""),
            64,
        ),
        row("IPv4 of 1500 bytes", udp("10.244.1.5", "10.244.1.6").payload(&[7; 1472]), 255),
        row("IPv6 of 1500 bytes", udp("fd00:244:0:1::5", "fd00:244:0:1::6").payload(&[7; 1452]), 255),
    ]
}

fn routed() -> Vec<Case> {
    let row = |name, before: PacketBuilder, ifindex: u32, next_hop: &str| {
        let verdict = Verdict::RedirectNeigh { ifindex, next_hop: address(next_hop) };
        let after = before.clone().hops(63).build();
        sends(name, &before.build(), Outcome::unseen(verdict, &after).sent(SENDER))
    };
    vec![
        row("IPv4 to a pod of another node", udp("10.244.1.5", "10.244.2.9"), UPLINK, "172.29.0.12"),
        row("IPv6 to a pod of another node", udp("fd00:244:0:1::5", "fd00:244:0:2::9"), UPLINK, "fd00:29::c"),
        row("a route with an interface of its own", udp("10.244.1.5", "10.244.3.9"), 9, "172.30.0.13"),
    ]
}

fn left_to_the_stack() -> Vec<Case> {
    let owned = |name, before: PacketBuilder| {
        let packet = before.build();
        sends(name, &packet, Outcome::unseen(Verdict::Pass, &packet).sent(SENDER))
    };
    let unseen = |name, packet: Vec<u8>| sends(name, &packet, Outcome::unseen(Verdict::Pass, &packet));
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(42, 0);
    vec![
        owned("IPv4 to an address that is no pod's", udp("10.244.1.5", "172.29.0.11")),
        owned("IPv6 to an address that is no pod's", udp("fd00:244:0:1::5", "fd00:29::b")),
        owned("IPv4 to a service address, which nothing here translates", udp("10.244.1.5", "10.96.0.10")),
        owned("IPv6 from its own address to the gateway", udp("fd00:244:0:1::5", "fe80::1")),
        unseen("ARP", arp),
        unseen("neighbour solicitation from a link-local address", udp("fe80::5", "fe80::1").build()),
        unseen("multicast from a link-local address", udp("fe80::5", "ff02::2").build()),
        unseen(
            "duplicate address detection, from the unspecified address",
            udp("::", "ff02::1:ff00:5").build(),
        ),
    ]
}

fn forged() -> Vec<Case> {
    let row = |name, tables, before: PacketBuilder, slot| {
        let packet = before.build();
        let reason = DropReason::SourceNotOwned;
        let expected = Outcome::unseen(Verdict::Drop(reason), &packet).dropped(slot, reason);
        Case { name, hook: Hook::FromPod, tables, packet, expected, host_only: false }
    };
    vec![
        row("IPv4 from another pod's address", node(), udp("10.244.1.6", "10.244.1.6"), SENDER),
        row("IPv4 from an address one bit off", node(), udp("10.244.1.4", "10.244.1.6"), SENDER),
        row("IPv4 from the node's address", node(), udp("172.29.0.11", "10.244.2.9"), SENDER),
        row("IPv4 from the unspecified address (DHCP)", node(), udp("0.0.0.0", "255.255.255.255"), SENDER),
        row("IPv6 from another pod's address", node(), udp("fd00:244:0:1::6", "fd00:244:0:2::9"), SENDER),
        row("IPv6 from an address one bit off", node(), udp("fd00:244:0:0::5", "fd00:244:0:1::6"), SENDER),
        row(
            "IPv6 from a link-local address to beyond the link",
            node(),
            udp("fe80::5", "fd00:244:0:1::6"),
            SENDER,
        ),
        row("IPv6 from the unspecified address to a pod", node(), udp("::", "fd00:244:0:1::6"), SENDER),
        row(
            "IPv6 unspecified, of a pod without IPv6",
            node_with_a_v4_pod(),
            udp("::", "fd00:244:0:1::6"),
            SENDER,
        ),
        row(
            "IPv6 of a pod without IPv6",
            node_with_a_v4_pod(),
            udp("fd00:244:0:1::5", "fd00:244:0:1::6"),
            SENDER,
        ),
        row(
            "an interface that is no pod's",
            node_without_the_interface(),
            udp("10.244.1.5", "10.244.1.6"),
            0,
        ),
    ]
}

fn broken() -> Vec<Case> {
    let row = |name, mut packet: Vec<u8>, change: &dyn Fn(&mut Vec<u8>)| {
        change(&mut packet);
        let reason = DropReason::Malformed;
        let expected = Outcome::unseen(Verdict::Drop(reason), &packet).dropped(SENDER, reason);
        sends(name, &packet, expected)
    };
    let v4 = || udp("10.244.1.5", "10.244.1.6").build();
    let v6 = || udp("fd00:244:0:1::5", "fd00:244:0:1::6").build();
    let cut =
        |name, packet, len| Case { host_only: true, ..row(name, packet, &|packet| packet.truncate(len)) };
    vec![
        cut("IPv4 cut within its header", v4(), 33),
        row("IPv4 of version 6", v4(), &|packet| packet[14] = 0x65),
        row("IPv4 with a header of four words", v4(), &|packet| packet[14] = 0x44),
        row("IPv4 that claims one byte more than there is", v4(), &|packet| packet[17] += 1),
        cut("IPv6 cut within its header", v6(), 53),
        row("IPv6 of version 4", v6(), &|packet| packet[14] = 0x40),
        row("IPv6 that claims one byte more than there is", v6(), &|packet| packet[19] += 1),
        row("IPv6 to a mapped IPv4 address", udp("fd00:244:0:1::5", "fd00:244:0:1::6").build(), &|packet| {
            packet[38..54].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 6]);
        }),
        row("IPv6 from a mapped IPv4 address", v6(), &|packet| {
            packet[22..38].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 5]);
        }),
    ]
}

fn refused() -> Vec<Case> {
    let row = |name, before: PacketBuilder, reason| {
        let packet = before.build();
        let expected = Outcome::unseen(Verdict::Refuse(reason), &packet).sent(SENDER).dropped(SENDER, reason);
        sends(name, &packet, expected)
    };
    use DropReason::{TtlExceeded, UnknownPod};
    vec![
        row("IPv4 to an address of this node that no pod has", udp("10.244.1.5", "10.244.1.99"), UnknownPod),
        row(
            "IPv6 to an address of this node that no pod has",
            udp("fd00:244:0:1::5", "fd00:244:0:1::99"),
            UnknownPod,
        ),
        row("IPv4 without a hop left for this node", udp("10.244.1.5", "10.244.1.6").hops(1), TtlExceeded),
        row(
            "IPv6 without a hop left for this node",
            udp("fd00:244:0:1::5", "fd00:244:0:1::6").hops(1),
            TtlExceeded,
        ),
        row("IPv4 without a hop left for another node", udp("10.244.1.5", "10.244.2.9").hops(1), TtlExceeded),
        row("IPv6 without any hop", udp("fd00:244:0:1::5", "fd00:244:0:2::9").hops(0), TtlExceeded),
    ]
}

fn to_pod() -> Vec<Case> {
    let row = |name, tables, packet: Vec<u8>, counted: bool| {
        let expected = Outcome::unseen(Verdict::Pass, &packet);
        let expected = if counted { expected.received(SENDER) } else { expected };
        Case { name, hook: Hook::ToPod, tables, packet, expected, host_only: false }
    };
    let probe = || udp("172.29.0.11", "10.244.1.5").build();
    let mut arp = vec![0; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    vec![
        row("a probe of the host to a pod is counted", node(), probe(), true),
        row("IPv6 of the host to a pod is counted", node(), udp("fe80::1", "fd00:244:0:1::5").build(), true),
        row("multicast of the link is not counted", node(), udp("fe80::2", "ff02::16").build(), false),
        row("ARP of the host to a pod is not counted", node(), arp, false),
        row("a packet to an interface that is no pod's", node_without_the_interface(), probe(), false),
    ]
}

fn from_uplink() -> Vec<Case> {
    let delivered = |name, before: PacketBuilder| arrives(name, &before.build(), to_neighbour(&before, 64));
    let unseen = |name, packet: Vec<u8>| arrives(name, &packet, Outcome::unseen(Verdict::Pass, &packet));
    let refused = |name, before: PacketBuilder, slot, reason| {
        let packet = before.build();
        arrives(name, &packet, Outcome::unseen(Verdict::Refuse(reason), &packet).dropped(slot, reason))
    };
    let mut cut = udp("10.244.2.9", "10.244.1.6").build();
    cut.truncate(20);
    let malformed =
        Outcome::unseen(Verdict::Drop(DropReason::Malformed), &cut).dropped(0, DropReason::Malformed);
    vec![
        delivered("IPv4 of another node to a pod", udp("10.244.2.9", "10.244.1.6")),
        delivered("IPv6 of another node to a pod", udp("fd00:244:0:2::9", "fd00:244:0:1::6")),
        unseen("IPv4 to the host", udp("172.29.0.12", "172.29.0.11").build()),
        unseen("IPv6 to the host", udp("fd00:29::c", "fd00:29::b").build()),
        unseen("neighbour discovery on the uplink", udp("fe80::2", "ff02::1:ff00:b").build()),
        unseen("IPv4 to a third node, which the stack may forward", udp("10.244.2.9", "10.244.3.9").build()),
        refused("IPv4 to no pod", udp("10.244.2.9", "10.244.1.99"), 0, DropReason::UnknownPod),
        refused("IPv6 to no pod", udp("fd00:244:0:2::9", "fd00:244:0:1::99"), 0, DropReason::UnknownPod),
        refused(
            "IPv4 with no hop left",
            udp("10.244.2.9", "10.244.1.6").hops(1),
            NEIGHBOUR,
            DropReason::TtlExceeded,
        ),
        Case { host_only: true, ..arrives("IPv4 cut on the uplink", &cut, malformed) },
    ]
}
