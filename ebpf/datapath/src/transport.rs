//! What is behind a network header: ports, a fragment without any, an error about another packet.

use fairlead_abi::{
    Be16,
    service::{SCTP, TCP, UDP},
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{
    header::{Family, Network},
    packet::{ETHERNET_LEN, Packet},
};

/// `IPPROTO_ICMP` (RFC 792).
pub(crate) const ICMP: u8 = 1;
/// `IPPROTO_ICMPV6` (RFC 4443).
pub(crate) const ICMPV6: u8 = 58;

/// IPv6 fragment header (RFC 8200 §4.5).
pub(crate) const FRAGMENT: u8 = 44;

/// TCP flag FIN (RFC 9293 §3.1).
pub(crate) const FIN: u8 = 0x01;
/// TCP flag SYN.
pub(crate) const SYN: u8 = 0x02;
/// TCP flag RST.
pub(crate) const RST: u8 = 0x04;
/// TCP flag ACK.
pub(crate) const ACK: u8 = 0x10;

/// More IPv6 extension headers than this are not followed.
const EXTENSIONS_MAX: usize = 4;

/// Length of an IPv6 header.
const IPV6_LEN: u32 = 40;

/// The transport protocol of a packet and its ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transport {
    /// Where its header begins, counted from the Ethernet header; of a fragment without one, where it would.
    pub(crate) offset: u32,
    /// IP protocol number.
    pub(crate) proto: u8,
    /// TCP flags, 0 of others.
    pub(crate) tcp_flags: u8,
    /// The header is here: the packet is whole or the first of its fragments.
    pub(crate) has_header: bool,
    /// Source port.
    pub(crate) src_port: Be16,
    /// Destination port.
    pub(crate) dst_port: Be16,
    /// It is one of several fragments of a packet. Not an `Option` with the next one: what an empty one holds is undefined,
    /// and the compiler may copy that, which the verifier refuses.
    pub(crate) is_fragment: bool,
    /// Identifies that packet.
    pub(crate) fragment_id: u32,
}

impl Transport {
    /// Of no packet.
    pub(crate) const NONE: Self = Self {
        offset: 0,
        proto: 0,
        tcp_flags: 0,
        has_header: false,
        src_port: Be16(0),
        dst_port: Be16(0),
        is_fragment: false,
        fragment_id: 0,
    };
}

/// What is behind a network header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payload {
    /// A transport protocol with ports, as written; of a later fragment they are 0.
    Transport,
    /// An ICMP error, at this offset.
    Error(u32),
    /// Nothing that services have.
    Other,
    /// It contradicts itself.
    Malformed,
}

/// Identification and fragmentation fields of an IPv4 header (RFC 791 §3.1).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct Ipv4Fragment {
    id: Be16,
    offset: Be16,
}

/// IPv6 fragment header (RFC 8200 §4.5).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
pub(crate) struct Ipv6Fragment {
    pub(crate) next: u8,
    _reserved: u8,
    pub(crate) offset: Be16,
    id: u32,
}

/// Where the transport header is, and which part of a packet this is.
#[derive(Clone, Copy)]
struct Place {
    offset: u32,
    proto: u8,
    first: bool,
    is_fragment: bool,
    fragment_id: u32,
}

/// Looks behind the network header; what has ports is written to `transport`.
#[inline(always)]
pub(crate) fn payload<P: Packet + ?Sized>(
    packet: &P,
    network: &Network,
    transport: &mut Transport,
) -> Payload {
    let place = match network.family {
        Family::V4 => behind_ipv4(packet, network),
        Family::V6 => behind_ipv6(packet, network),
    };
    let Some(place) = place else { return Payload::Malformed };
    match place.proto {
        TCP | UDP | SCTP => ports(packet, &place, transport),
        ICMP | ICMPV6 if place.first => match packet.load_at::<u8>(place.offset) {
            None => Payload::Malformed,
            Some(kind) if is_error(place.proto, kind) => Payload::Error(place.offset),
            Some(_) => Payload::Other,
        },
        _ => Payload::Other,
    }
}

/// Destination unreachable, time exceeded, parameter problem (RFC 792); the errors of RFC 4443 §2.1.
#[inline(always)]
const fn is_error(proto: u8, kind: u8) -> bool {
    if proto == ICMP { matches!(kind, 3 | 11 | 12) } else { kind >= 1 && kind <= 4 }
}

#[inline(always)]
fn behind_ipv4<P: Packet + ?Sized>(packet: &P, network: &Network) -> Option<Place> {
    let words = packet.load::<u8, ETHERNET_LEN>()? & 0x0f;
    let fragment = packet.load::<Ipv4Fragment, { ETHERNET_LEN + 4 }>()?;
    let (more, offset) = (fragment.offset.get() & 0x2000 != 0, fragment.offset.get() & 0x1fff);
    Some(Place {
        offset: ETHERNET_LEN as u32 + words as u32 * 4,
        proto: network.protocol,
        first: offset == 0,
        is_fragment: more || offset != 0,
        fragment_id: fragment.id.0 as u32,
    })
}

#[inline(always)]
fn behind_ipv6<P: Packet + ?Sized>(packet: &P, network: &Network) -> Option<Place> {
    let offset = ETHERNET_LEN as u32 + IPV6_LEN;
    let mut place =
        Place { offset, proto: network.protocol, first: true, is_fragment: false, fragment_id: 0 };
    for _ in 0..EXTENSIONS_MAX {
        match place.proto {
            // Hop-by-hop options, routing, destination options: length in units of 8 bytes beyond the first.
            0 | 43 | 60 => {
                let [next, len] = packet.load_at::<[u8; 2]>(place.offset)?;
                place.proto = next;
                place.offset += (len as u32 + 1) * 8;
            }
            FRAGMENT => {
                let header = packet.load_at::<Ipv6Fragment>(place.offset)?;
                place.proto = header.next;
                place.offset += 8;
                place.first = header.offset.get() >> 3 == 0;
                place.is_fragment = !place.first || header.offset.get() & 1 != 0;
                place.fragment_id = header.id;
                if !place.first {
                    return Some(place);
                }
            }
            _ => return Some(place),
        }
    }
    Some(place)
}

#[inline(always)]
fn ports<P: Packet + ?Sized>(packet: &P, place: &Place, transport: &mut Transport) -> Payload {
    transport.offset = place.offset;
    transport.proto = place.proto;
    transport.tcp_flags = 0;
    transport.has_header = place.first;
    transport.is_fragment = place.is_fragment;
    transport.fragment_id = place.fragment_id;
    (transport.src_port, transport.dst_port) = (Be16(0), Be16(0));
    if !place.first {
        return Payload::Transport;
    }
    let Some([src, dst]) = packet.load_at::<[Be16; 2]>(place.offset) else { return Payload::Malformed };
    (transport.src_port, transport.dst_port) = (src, dst);
    if place.proto == TCP {
        match packet.load_at::<u8>(place.offset + 13) {
            Some(flags) => transport.tcp_flags = flags,
            None => return Payload::Malformed,
        }
    }
    Payload::Transport
}
