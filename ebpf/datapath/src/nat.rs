//! Rewriting packets: addresses, ports, checksums; also of the packet that an ICMP error quotes.

use fairlead_abi::{
    Addr16, Be16,
    conntrack::{ConntrackKey, ConntrackValue},
    service::{SCTP, TCP, UDP},
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{
    checksum::Difference,
    header::{Family, Network, set_addresses},
    packet::Packet,
    same,
    transport::{FRAGMENT, Ipv6Fragment, Transport},
};

/// Offset of the checksum in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: u32 = 16;
/// Offset of the checksum in a UDP header (RFC 768).
const UDP_CHECKSUM: u32 = 6;
/// Offset of the checksum in an ICMP header.
const ICMP_CHECKSUM: u32 = 2;
/// Length of an ICMP header, behind which an error quotes a packet.
const ICMP_LEN: u32 = 8;

/// The tuple of a packet.
#[inline(always)]
pub(crate) fn key(network: &Network, transport: &Transport) -> ConntrackKey {
    ConntrackKey {
        src: network.src,
        dst: network.dst,
        src_port: transport.src_port,
        dst_port: transport.dst_port,
        proto: transport.proto,
        _pad: [0; 3],
    }
}

/// The tuple of an answer to a packet of this one.
#[inline(always)]
pub(crate) fn answer(key: &ConntrackKey) -> ConntrackKey {
    ConntrackKey { src: key.dst, dst: key.src, src_port: key.dst_port, dst_port: key.src_port, ..*key }
}

/// The key of the other direction's entry.
#[inline(always)]
pub(crate) fn reverse(value: &ConntrackValue, proto: u8) -> ConntrackKey {
    ConntrackKey {
        src: value.dst,
        dst: value.src,
        src_port: value.dst_port,
        dst_port: value.src_port,
        proto,
        _pad: [0; 3],
    }
}

/// Gives the packet the addresses and ports of `to`. Nothing comes back when it is too short, or when its ports cannot be
/// changed: a checksum of SCTP covers the whole packet and no difference corrects it (RFC 9260 §6.8).
#[inline(always)]
pub(crate) fn rewrite<P: Packet + ?Sized>(
    packet: &mut P,
    network: &mut Network,
    transport: &Transport,
    to: &ConntrackValue,
) -> Option<()> {
    let ports_stay = transport.src_port.0 == to.src_port.0 && transport.dst_port.0 == to.dst_port.0;
    if ports_stay && same(&network.src, &to.src) && same(&network.dst, &to.dst) {
        return Some(());
    }
    let addresses = set_addresses(packet, network, &to.src, &to.dst)?.sum();
    if !transport.has_header {
        return Some(());
    }
    let (at, optional) = match transport.proto {
        TCP => (TCP_CHECKSUM, false),
        // None over IPv4 (RFC 768), and over IPv6 in tunnels (RFC 6935 §5).
        UDP => (UDP_CHECKSUM, true),
        SCTP if ports_stay => return Some(()),
        _ => return None,
    };
    let rest = Difference::NONE
        .and_half(transport.src_port.0, to.src_port.0)
        .and_half(transport.dst_port.0, to.dst_port.0)
        .sum();
    packet.store_at::<[Be16; 2]>(transport.offset, [to.src_port, to.dst_port])?;
    packet.correct_checksum(transport.offset + at, addresses, rest, optional)
}

/// An IPv4 header that an error quotes, as far as it matters.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct QuotedIpv4 {
    version_ihl: u8,
    tos: u8,
    total_len: u16,
    id: u16,
    fragment: Be16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    src: u32,
    dst: u32,
}

/// An IPv6 header that an error quotes.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct QuotedIpv6 {
    version_class_flow: u32,
    payload_len: u16,
    next_header: u8,
    hop_limit: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// Where the error's ICMP header is.
    icmp: u32,
    /// Where the quoted network header is.
    network: u32,
    /// Where the quoted ports are.
    ports: u32,
    /// Checksum of the quoted IPv4 header.
    checksum: u16,
    /// The tuple of a packet in the error's own direction: of an answer to the quoted one.
    pub(crate) answer: ConntrackKey,
}

impl Quoted {
    /// Of no error.
    pub(crate) const NONE: Self = Self {
        icmp: 0,
        network: 0,
        ports: 0,
        checksum: 0,
        answer: ConntrackKey {
            src: Addr16::UNSPECIFIED,
            dst: Addr16::UNSPECIFIED,
            src_port: Be16(0),
            dst_port: Be16(0),
            proto: 0,
            _pad: [0; 3],
        },
    };
}

/// Reads the packet that the error at `icmp` quotes; nothing when it is not of a protocol with ports, or a later fragment, which
/// has none. Of quoted IPv6 extension headers only the fragment header is followed: who sends a long datagram over a narrow link
/// must hear of it.
#[inline(always)]
pub(crate) fn quoted<P: Packet + ?Sized>(
    packet: &P,
    family: Family,
    icmp: u32,
    into: &mut Quoted,
) -> Option<()> {
    let network = icmp + ICMP_LEN;
    let (src, dst, proto, ports, checksum) = match family {
        Family::V4 => {
            let header = packet.load_at::<QuotedIpv4>(network)?;
            if header.fragment.get() & 0x1fff != 0 {
                return None;
            }
            let ports = network + (header.version_ihl & 0x0f) as u32 * 4;
            let (src, dst) = (Addr16::from_v4_be(header.src), Addr16::from_v4_be(header.dst));
            (src, dst, header.protocol, ports, header.checksum)
        }
        Family::V6 => {
            let header = packet.load_at::<QuotedIpv6>(network)?;
            let (src, dst) = (Addr16::from_v6_be(header.src), Addr16::from_v6_be(header.dst));
            let (mut proto, mut ports) = (header.next_header, network + 40);
            if proto == FRAGMENT {
                let fragment = packet.load_at::<Ipv6Fragment>(ports)?;
                if fragment.offset.get() >> 3 != 0 {
                    return None;
                }
                (proto, ports) = (fragment.next, ports + 8);
            }
            (src, dst, proto, ports, 0)
        }
    };
    if !matches!(proto, TCP | UDP | SCTP) {
        return None;
    }
    let [src_port, dst_port] = packet.load_at::<[Be16; 2]>(ports)?;
    (into.icmp, into.network, into.ports, into.checksum) = (icmp, network, ports, checksum);
    into.answer = answer(&ConntrackKey { src, dst, src_port, dst_port, proto, _pad: [0; 3] });
    Some(())
}

/// Rewrites an ICMP error as the answers to the quoted packet are rewritten: its destination, its source where that is the
/// answerer itself, and in reverse the quoted packet, so that the receiver finds the packet that it sent. The quoted transport
/// checksum is left as it is: receivers cannot check it, because the quoted packet is cut.
#[inline(always)]
pub(crate) fn rewrite_error<P: Packet + ?Sized>(
    packet: &mut P,
    network: &mut Network,
    quoted: &Quoted,
    to: &ConntrackValue,
) -> Option<()> {
    let answer = &quoted.answer;
    let src = if same(&network.src, &answer.src) { to.src } else { network.src };
    let outer = set_addresses(packet, network, &src, &to.dst)?.sum();
    let mut inner = Difference::NONE
        .and_half(answer.dst_port.0, to.dst_port.0)
        .and_half(answer.src_port.0, to.src_port.0);
    packet.store_at::<[Be16; 2]>(quoted.ports, [to.dst_port, to.src_port])?;
    match network.family {
        Family::V4 => {
            let change = Difference::NONE
                .and(answer.dst.v4_be(), to.dst.v4_be())
                .and(answer.src.v4_be(), to.src.v4_be());
            // The quoted header sums to the same as before: its addresses and its checksum changed by the opposite.
            packet.store_at::<u16>(quoted.network + 10, change.apply(quoted.checksum))?;
            packet.store_at::<[u32; 2]>(quoted.network + 12, [to.dst.v4_be(), to.src.v4_be()])?;
            packet.correct_checksum(quoted.icmp + ICMP_CHECKSUM, 0, inner.sum(), false)
        }
        Family::V6 => {
            for word in 0..4 {
                inner = inner.and(answer.dst.0[word], to.dst.0[word]).and(answer.src.0[word], to.src.0[word]);
            }
            packet.store_at::<[[u32; 4]; 2]>(quoted.network + 8, [to.dst.0, to.src.0])?;
            // ICMPv6 covers a pseudo header, ICMP does not.
            packet.correct_checksum(quoted.icmp + ICMP_CHECKSUM, outer, inner.sum(), false)
        }
    }
}
