//! ICMP errors that the node answers itself, made of the packet that they are about.

use fairlead_abi::{Addr16, service::TCP};

use crate::{
    checksum::Difference,
    header::{Family, HOPS, IPV4_SRC, IPV6_SRC, Network, ipv4_words, swap_macs},
    packet::{ETHERNET_LEN, Packet, Resizable},
    transport::{FRAGMENT, ICMP, ICMPV6},
};

/// What the sender is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Complaint {
    /// Nobody serves there; a connecting socket gets `ECONNREFUSED` at once.
    PortUnreachable,
    /// The packet is longer than this many bytes, which is what fits.
    TooBig(u32),
}

/// IPv4 header and ICMP header.
const IPV4_ROOM: usize = 20 + 8;
/// IPv6 header and ICMPv6 header.
const IPV6_ROOM: usize = 40 + 8;
/// How much behind its network header a packet is quoted: at least eight bytes (RFC 792); of TCP the header without options,
/// because the kernel does not cut off a checksum that it is yet to fill in; of an IPv6 fragment as much behind the fragment
/// header, because a sender looks there for the ports.
#[inline(always)]
const fn quoted_behind(network: &Network) -> u32 {
    match network.protocol {
        TCP => 20,
        FRAGMENT => 8 + 20,
        _ => 8,
    }
}

/// Turns a packet into the error about it: the frame goes back, the error comes from the address that was asked, and it
/// quotes the network header and the beginning of what is behind (RFC 792, RFC 4443 §3.1).
#[inline(always)]
pub(crate) fn answer<P: Resizable + ?Sized>(
    packet: &mut P,
    network: &Network,
    complaint: Complaint,
) -> Option<()> {
    match network.family {
        Family::V4 => answer_v4(packet, network, complaint)?,
        Family::V6 => answer_v6(packet, network, complaint)?,
    }
    swap_macs(packet)
}

#[inline(always)]
fn answer_v4<P: Resizable + ?Sized>(packet: &mut P, network: &Network, complaint: Complaint) -> Option<()> {
    let words = (packet.load::<u8, ETHERNET_LEN>()? & 0x0f) as u32;
    let quoted = words * 4 + quoted_behind(network);
    packet.truncate(ETHERNET_LEN as u32 + quoted)?;
    // Destination unreachable (3): port unreachable (3) or fragmentation needed (4, with the MTU; RFC 1191 §4).
    let (code, mtu) = match complaint {
        Complaint::PortUnreachable => (3, 0),
        Complaint::TooBig(mtu) => (4, mtu),
    };
    let first = u32::from_ne_bytes([3, code, 0, 0]);
    let mut sum = Difference::NONE.and(0, first).and(0, mtu.to_be());
    sum = sum_of(packet, sum, quoted)?;
    packet.make_room::<IPV4_ROOM>()?;
    let checksum = sum.apply(0xffff);
    let total = (IPV4_ROOM as u32 + quoted) as u16;
    let header = ipv4_words(total, 0, 0, ICMP, [network.dst.v4_be(), network.src.v4_be()]);
    packet.store::<[u32; 5], ETHERNET_LEN>(header)?;
    let [low, high] = checksum.to_ne_bytes();
    let icmp = [u32::from_ne_bytes([3, code, low, high]), mtu.to_be()];
    packet.store::<[u32; 2], { IPV4_SRC + 8 }>(icmp)
}

#[inline(always)]
fn answer_v6<P: Resizable + ?Sized>(packet: &mut P, network: &Network, complaint: Complaint) -> Option<()> {
    let quoted = 40 + quoted_behind(network);
    packet.truncate(ETHERNET_LEN as u32 + quoted)?;
    // Destination unreachable (1): port unreachable (4); packet too big (2), with the MTU.
    let (kind, code, mtu) = match complaint {
        Complaint::PortUnreachable => (1, 4, 0),
        Complaint::TooBig(mtu) => (2, 0, mtu),
    };
    let payload = quoted + 8;
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    let mut sum = Difference::NONE.and(0, first).and(0, mtu.to_be());
    sum = sum.and(0, payload.to_be()).and(0, (ICMPV6 as u32).to_be());
    for word in 0..4 {
        sum = sum.and(0, network.src.0[word]).and(0, network.dst.0[word]);
    }
    sum = sum_of(packet, sum, quoted)?;
    packet.make_room::<IPV6_ROOM>()?;
    let header = [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([(payload >> 8) as u8, payload as u8, ICMPV6, HOPS]),
    ];
    packet.store::<[u32; 2], ETHERNET_LEN>(header)?;
    packet.store::<[Addr16; 2], IPV6_SRC>([network.dst, network.src])?;
    let [low, high] = sum.apply(0xffff).to_ne_bytes();
    packet.store::<[u32; 2], { IPV6_SRC + 32 }>([u32::from_ne_bytes([kind, code, low, high]), mtu.to_be()])
}

/// Longest quotation: an IPv4 header of 15 words and a TCP header.
const QUOTED_WORDS_MAX: u32 = 20;

/// Adds the words of the network packet.
#[inline(always)]
fn sum_of<P: Packet + ?Sized>(packet: &P, mut sum: Difference, len: u32) -> Option<Difference> {
    for word in 0..QUOTED_WORDS_MAX {
        if word * 4 >= len {
            break;
        }
        sum = sum.and(0, packet.load_at::<u32>(ETHERNET_LEN as u32 + word * 4)?);
    }
    Some(sum)
}
