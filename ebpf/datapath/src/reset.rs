//! The reset with which the node answers a TCP segment of a connection that it does not know, made of that segment.

use fairlead_abi::{Addr16, service::TCP};

use crate::{
    checksum::Difference,
    header::{Family, HOPS, IPV4_SRC, IPV6_SRC, Network, ipv4_words, swap_macs},
    packet::{ETHERNET_LEN, Packet, Resizable},
    transport::{ACK, RST},
};

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;
/// "Don't fragment" (RFC 791 §3.1).
const DONT_FRAGMENT: u16 = 0x4000;

/// What an answer needs of a segment, as in the packet.
struct Segment {
    /// Its ports, the other way round.
    ports: u32,
    /// The number that it acknowledges.
    acknowledged: u32,
}

/// Turns a segment into the reset that whoever has no such connection answers with (RFC 9293 §3.10.7.1): it begins where the
/// sender says that it has heard all before. A segment that says nothing of the kind gets no answer, nor does one whose
/// header is behind options or extension headers.
#[inline(always)]
pub(crate) fn answer<P: Resizable + ?Sized>(packet: &mut P, network: &Network) -> Option<()> {
    if network.protocol != TCP {
        return None;
    }
    match network.family {
        Family::V4 => answer_v4(packet, network)?,
        Family::V6 => answer_v6(packet, network)?,
    }
    swap_macs(packet)
}

#[inline(always)]
fn answer_v4<P: Resizable + ?Sized>(packet: &mut P, network: &Network) -> Option<()> {
    const BEHIND: usize = IPV4_SRC + 8;
    if packet.load::<u8, ETHERNET_LEN>()? & 0x0f != 5 {
        return None;
    }
    let segment = segment::<P, BEHIND>(packet)?;
    packet.truncate((BEHIND + TCP_LEN) as u32)?;
    let ends = [network.dst.v4_be(), network.src.v4_be()];
    let header = ipv4_words((20 + TCP_LEN) as u16, 0, DONT_FRAGMENT, TCP, ends);
    packet.store::<[u32; 5], ETHERNET_LEN>(header)?;
    let addresses = Difference::NONE.and(0, ends[0]).and(0, ends[1]);
    packet.store::<[u32; 5], BEHIND>(words(&segment, addresses))
}

#[inline(always)]
fn answer_v6<P: Resizable + ?Sized>(packet: &mut P, network: &Network) -> Option<()> {
    const BEHIND: usize = IPV6_SRC + 32;
    let segment = segment::<P, BEHIND>(packet)?;
    packet.truncate((BEHIND + TCP_LEN) as u32)?;
    let header = [u32::from_ne_bytes([0x60, 0, 0, 0]), u32::from_ne_bytes([0, TCP_LEN as u8, TCP, HOPS])];
    packet.store::<[u32; 2], ETHERNET_LEN>(header)?;
    packet.store::<[Addr16; 2], IPV6_SRC>([network.dst, network.src])?;
    let mut addresses = Difference::NONE;
    for word in 0..4 {
        addresses = addresses.and(0, network.src.0[word]).and(0, network.dst.0[word]);
    }
    packet.store::<[u32; 5], BEHIND>(words(&segment, addresses))
}

/// The segment whose header is at `AT`, if it acknowledges anything and is no reset itself, which nobody answers.
#[inline(always)]
fn segment<P: Packet + ?Sized, const AT: usize>(packet: &P) -> Option<Segment> {
    let [ports, _, acknowledged, flags, _] = packet.load::<[u32; 5], AT>()?;
    let [_, flags, ..] = flags.to_ne_bytes();
    if flags & (ACK | RST) != ACK {
        return None;
    }
    Some(Segment { ports: ports.rotate_left(16), acknowledged })
}

/// The header of the answer, whose checksum covers the `addresses`, too.
#[inline(always)]
fn words(segment: &Segment, addresses: Difference) -> [u32; 5] {
    let Segment { ports, acknowledged } = *segment;
    // Five words of header, which is all there is.
    let flags = u32::from_ne_bytes([5 << 4, RST, 0, 0]);
    let pseudo = addresses.and(0, (TCP_LEN as u32).to_be()).and(0, (TCP as u32).to_be());
    let sum = pseudo.and(0, ports).and(0, acknowledged).and(0, flags);
    [ports, acknowledged, 0, flags, sum.apply(0xffff) as u32]
}
