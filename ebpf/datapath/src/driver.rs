//! Packets before the kernel has made anything of them: what the XDP program on the uplink does with those of services whose
//! way leads to another machine.
//!
//! It decides by the same code as the programs on links. What it does not carry to the end it leaves as it found it, for
//! them: the node's own packets, fragments, errors, whoever is refused, whatever the kernel has no neighbour for. They find
//! the connection in the table then.

use fairlead_abi::{
    Addr16, Be16, DropReason,
    conntrack::ConntrackKey,
    names::globals::FORWARD_BY_STACK,
    node::{ADDRESS_LOCAL, OVERLAY_VNI},
    service::{SCTP, UDP},
};

use crate::{
    conntrack::Work,
    header::{
        Family, HOPS, IPV4_SRC, IPV6_SRC, Network, Parsed, decrement_hops, ipv4_words, parse, set_ethertype,
        set_macs,
    },
    is_unspecified,
    link::{
        Tables,
        serve::{From, Step, forget_who_handed_over, goes_on, start, too_big},
        way::Way,
    },
    nat::{key, rewrite},
    packet::{ETHERNET_LEN, Headroom, Packet},
    service::mix,
    transport::{Payload, payload},
};

/// What the driver's program needs to know beside the tables.
pub trait Wire {
    /// The link-layer addresses with which a packet of `len` bytes from `src` gets to `dst`, if it leaves by the interface
    /// that it came by and the kernel knows the neighbour.
    fn neighbour(&self, src: &Addr16, dst: &Addr16, len: u32) -> Option<Neighbour>;
    /// UDP port of the overlay.
    fn overlay_port(&self) -> Be16;
    /// A packet was carried to its end.
    fn count_carried(&self);
}

/// The ends of a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The interface's own address.
    pub src: [u8; 6],
    /// The neighbour's.
    pub dst: [u8; 6],
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// It is as it was, and the link programs see it next.
    Left,
    /// It leaves by the interface that it came by.
    Sent,
    /// It could not be rewritten to the end; the drop is counted.
    Spoilt,
}

/// One of so many new connections is left to the link programs: the kernel then sends a packet itself, and by that finds out
/// whether the neighbour is still there, which nobody does for packets that it does not see.
const LEFT_ONE_IN: u32 = 32;

/// VXLAN header and UDP header (RFC 7348 §5).
const VXLAN: u32 = 8 + 8;
/// What is put before a frame whose new network header is IPv4's.
const BEFORE_V4: usize = ETHERNET_LEN + 20 + VXLAN as usize;
/// The same with IPv6's.
const BEFORE_V6: usize = ETHERNET_LEN + 40 + VXLAN as usize;
/// "Don't fragment" (RFC 791 §3.1): a packet that is never cut needs no identification (RFC 6864 §4).
const DONT_FRAGMENT: u16 = 0x4000;

/// Ingress of the uplink, in its driver.
#[inline(always)]
pub fn from_wire<'a, P: Headroom + ?Sized, T: Tables, W: Wire>(
    packet: &mut P,
    tables: &T,
    wire: &W,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Carried {
    match choose(packet, tables, work) {
        Some(work) => carry(packet, tables, wire, work),
        None => Carried::Left,
    }
}

/// Whether a packet is one to carry; what it becomes is in the memory then.
#[inline(always)]
pub fn choose<'a, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    tables: &T,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Option<&'a mut Work> {
    if tables.forwarding() == FORWARD_BY_STACK {
        return None;
    }
    let Parsed::Ip(network) = parse(packet) else { return None };
    if tables.address(&network.dst) == 0 || network.hops <= 1 {
        return None;
    }
    let work = work()?;
    work.network = network;
    if payload(packet, &work.network, &mut work.transport) != Payload::Transport {
        return None;
    }
    if work.transport.is_fragment || work.transport.proto == SCTP {
        return None;
    }
    let from = From::outside(true);
    work.key = key(&work.network, &work.transport);
    if !goes_on(tables, from, work) {
        let left = tables.random().is_multiple_of(LEFT_ONE_IN);
        if left || !matches!(start(tables, from, work), Step::Translated) {
            return None;
        }
    }
    forget_who_handed_over(from, &mut work.value);
    Some(work)
}

/// Carries a packet that was chosen.
#[inline(always)]
pub fn carry<P: Headroom + ?Sized, T: Tables, W: Wire>(
    packet: &mut P,
    tables: &T,
    wire: &W,
    work: &mut Work,
) -> Carried {
    let sent = if is_unspecified(&work.value.node) {
        turn_round(packet, tables, wire, work)
    } else {
        hand_over(packet, tables, wire, work)
    };
    match sent {
        Carried::Sent => wire.count_carried(),
        Carried::Spoilt => tables.count_drop(0, DropReason::Malformed),
        Carried::Left => {}
    }
    sent
}

/// Sends a packet to its new destination, when that is on another machine.
#[inline(always)]
fn turn_round<P: Headroom + ?Sized, T: Tables, W: Wire>(
    packet: &mut P,
    tables: &T,
    wire: &W,
    work: &mut Work,
) -> Carried {
    let Work { network, transport, value, .. } = work;
    let next = match Way::of(tables, &value.dst) {
        Way::Node(route) if route.ifindex == 0 || route.ifindex == tables.uplink() => route.next_hop,
        Way::Unknown if tables.address(&value.dst) & ADDRESS_LOCAL == 0 => value.dst,
        _ => return Carried::Left,
    };
    let len = packet.network_len();
    let Some(neighbour) = wire.neighbour(&value.src, &next, len) else { return Carried::Left };
    let mut rewritten = || {
        rewrite(packet, network, transport, value)?;
        decrement_hops(packet, network)?;
        set_macs(packet, neighbour.dst, neighbour.src)
    };
    if rewritten().is_some() { Carried::Sent } else { Carried::Spoilt }
}

/// Sends a packet to the node of its backend, inside another one.
#[inline(always)]
fn hand_over<P: Headroom + ?Sized, T: Tables, W: Wire>(
    packet: &mut P,
    tables: &T,
    wire: &W,
    work: &mut Work,
) -> Carried {
    let Work { network, transport, value, key, .. } = work;
    if too_big(packet, tables, network, &value.node).is_some() {
        return Carried::Left;
    }
    let node = tables.node();
    let (src, before) = if value.node.is_v4() { (node.v4, BEFORE_V4) } else { (node.v6, BEFORE_V6) };
    let inner = packet.len();
    let len = inner + (before - ETHERNET_LEN) as u32;
    if is_unspecified(&src) {
        return Carried::Left;
    }
    let Some(neighbour) = wire.neighbour(&src, &value.node, len) else { return Carried::Left };
    let outer = Outer {
        neighbour,
        src,
        dst: value.node,
        inner,
        src_port: entropy(key),
        dst_port: wire.overlay_port(),
        congestion: congestion(packet, network),
    };
    let mut wrapped = || {
        rewrite(packet, network, transport, value)?;
        decrement_hops(packet, network)?;
        if outer.dst.is_v4() { outer.put_v4(packet) } else { outer.put_v6(packet) }
    };
    if wrapped().is_some() { Carried::Sent } else { Carried::Spoilt }
}

/// The headers of the packet outside.
struct Outer {
    neighbour: Neighbour,
    src: Addr16,
    dst: Addr16,
    /// Length of the frame inside.
    inner: u32,
    src_port: Be16,
    dst_port: Be16,
    /// The two lowest bits of the type of service.
    congestion: u8,
}

impl Outer {
    #[inline(always)]
    fn put_v4<P: Headroom + ?Sized>(&self, packet: &mut P) -> Option<()> {
        packet.put_before::<BEFORE_V4>()?;
        set_macs(packet, self.neighbour.dst, self.neighbour.src)?;
        set_ethertype(packet, Family::V4)?;
        let total = (20 + VXLAN + self.inner) as u16;
        let ends = [self.src.v4_be(), self.dst.v4_be()];
        let words = ipv4_words(total, self.congestion, DONT_FRAGMENT, UDP, ends);
        packet.store::<[u32; 5], ETHERNET_LEN>(words)?;
        packet.store::<[u32; 4], { IPV4_SRC + 8 }>(self.udp_and_vxlan())
    }

    #[inline(always)]
    fn put_v6<P: Headroom + ?Sized>(&self, packet: &mut P) -> Option<()> {
        packet.put_before::<BEFORE_V6>()?;
        set_macs(packet, self.neighbour.dst, self.neighbour.src)?;
        set_ethertype(packet, Family::V6)?;
        let payload = VXLAN + self.inner;
        let words = [
            u32::from_ne_bytes([0x60, self.congestion << 4, 0, 0]),
            u32::from_ne_bytes([(payload >> 8) as u8, payload as u8, UDP, HOPS]),
        ];
        packet.store::<[u32; 2], ETHERNET_LEN>(words)?;
        packet.store::<[Addr16; 2], IPV6_SRC>([self.src, self.dst])?;
        packet.store::<[u32; 4], { IPV6_SRC + 32 }>(self.udp_and_vxlan())
    }

    /// Without a checksum, which is allowed to tunnels (RFC 7348 §5, RFC 6935 §5): the one inside covers what matters.
    #[inline(always)]
    fn udp_and_vxlan(&self) -> [u32; 4] {
        let len = (VXLAN + self.inner) as u16;
        [
            self.src_port.0 as u32 | (self.dst_port.0 as u32) << 16,
            len.to_be() as u32,
            u32::from_ne_bytes([0x08, 0, 0, 0]),
            (OVERLAY_VNI << 8).to_be(),
        ]
    }
}

/// A source port that is the same for all packets of a connection, of the range that RFC 7348 §5 names.
#[inline(always)]
fn entropy(key: &ConntrackKey) -> Be16 {
    let mut hash = mix(key.proto as u32, (key.src_port.0 as u32) << 16 | key.dst_port.0 as u32);
    for word in 0..4 {
        hash = mix(mix(hash, key.src.0[word]), key.dst.0[word]);
    }
    Be16::new(0xc000 | (hash & 0x3fff) as u16)
}

/// The congestion bits of the packet inside, which the one outside has, too (RFC 6040 §4.1).
#[inline(always)]
fn congestion<P: Packet + ?Sized>(packet: &P, network: &Network) -> u8 {
    let second = packet.load::<u8, { ETHERNET_LEN + 1 }>().unwrap_or(0);
    match network.family {
        Family::V4 => second & 0b11,
        Family::V6 => second >> 4 & 0b11,
    }
}

#[cfg(test)]
mod tests;
