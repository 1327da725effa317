//! Network headers: what they look like on the wire, what of them a decision needs, and how a router changes them.

use fairlead_abi::{Addr16, Be16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    checksum::{self, Difference},
    packet::{ETHERNET_LEN, Packet},
};

/// `ETH_P_IP`.
const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
/// `ETH_P_IPV6`.
const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);

/// Offset of the time to live in an IPv4 packet (RFC 791 §3.1).
const IPV4_TTL: usize = ETHERNET_LEN + 8;
/// Offset of the header checksum of an IPv4 packet.
const IPV4_CHECKSUM: usize = ETHERNET_LEN + 10;
/// Offset of the hop limit in an IPv6 packet (RFC 8200 §3).
const IPV6_HOP_LIMIT: usize = ETHERNET_LEN + 7;

/// IPv4 header without options (RFC 791 §3.1).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    src: u32,
    dst: u32,
}

const _: () = assert!(size_of::<Ipv4Header>() == 20);

/// IPv6 header (RFC 8200 §3).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Ipv6Header {
    version_class_flow: u32,
    payload_len: u16,
    next_header: u8,
    hop_limit: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

const _: () = assert!(size_of::<Ipv6Header>() == 40);

/// Address family of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    #[inline(always)]
    pub(crate) const fn of(ethertype: Be16) -> Option<Self> {
        if ethertype.0 == ETHERTYPE_IPV4.0 {
            Some(Self::V4)
        } else if ethertype.0 == ETHERTYPE_IPV6.0 {
            Some(Self::V6)
        } else {
            None
        }
    }
}

/// What a decision needs to know of a packet's network header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Which header it is.
    pub family: Family,
    /// Source address.
    pub src: Addr16,
    /// Destination address.
    pub dst: Addr16,
    /// Time to live or hop limit.
    pub hops: u8,
    /// IP protocol number, or the number of the first extension header.
    pub protocol: u8,
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// IPv4 or IPv6.
    Ip(Network),
    /// Something else, such as ARP.
    NotIp,
    /// It says it is IP, and is not.
    Malformed,
}

/// Reads the link and network headers.
///
/// A header that claims more bytes than there are is malformed. So is an IPv6 packet with a mapped IPv4 address,
/// which must not appear on the wire (RFC 4942 §2.2) and would look like the IPv4 address in our maps.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Parsed {
    let Some(ethertype) = ethertype(packet) else { return Parsed::Malformed };
    let network = match Family::of(ethertype) {
        Some(Family::V4) => ipv4(packet),
        Some(Family::V6) => ipv6(packet),
        None => return Parsed::NotIp,
    };
    match network {
        Some(network) => Parsed::Ip(network),
        None => Parsed::Malformed,
    }
}

/// What the link header says that follows it.
#[inline(always)]
pub(crate) fn ethertype<P: Packet + ?Sized>(packet: &P) -> Option<Be16> {
    packet.load::<Be16, 12>()
}

/// The network header of an IPv4 packet, if it is one.
#[inline(always)]
pub(crate) fn ipv4<P: Packet + ?Sized>(packet: &P) -> Option<Network> {
    let header = packet.load::<Ipv4Header, ETHERNET_LEN>()?;
    // Version 4, and at least five words of header.
    let plausible = header.version_ihl >= 0x45 && header.version_ihl <= 0x4f;
    if !plausible || u32::from(u16::from_be(header.total_len)) > packet.network_len() {
        return None;
    }
    Some(Network {
        family: Family::V4,
        src: Addr16::from_v4_be(header.src),
        dst: Addr16::from_v4_be(header.dst),
        hops: header.ttl,
        protocol: header.protocol,
    })
}

/// The network header of an IPv6 packet, if it is one.
#[inline(always)]
pub(crate) fn ipv6<P: Packet + ?Sized>(packet: &P) -> Option<Network> {
    let header = packet.load::<Ipv6Header, ETHERNET_LEN>()?;
    let version = u32::from_be(header.version_class_flow) >> 28;
    let len = u32::from(u16::from_be(header.payload_len)) + size_of::<Ipv6Header>() as u32;
    let (src, dst) = (Addr16::from_v6_be(header.src), Addr16::from_v6_be(header.dst));
    if version != 6 || len > packet.network_len() || src.is_v4() || dst.is_v4() {
        return None;
    }
    Some(Network { family: Family::V6, src, dst, hops: header.hop_limit, protocol: header.next_header })
}

/// Offset of the source address of an IPv4 packet.
pub const IPV4_SRC: usize = ETHERNET_LEN + 12;
/// Offset of the source address of an IPv6 packet.
pub const IPV6_SRC: usize = ETHERNET_LEN + 8;

/// Replaces both addresses, corrects the IPv4 header checksum, and returns what the addresses have changed by. The new ones
/// are of the packet's family.
#[inline(always)]
pub(crate) fn set_addresses<P: Packet + ?Sized>(
    packet: &mut P,
    network: &mut Network,
    src: &Addr16,
    dst: &Addr16,
) -> Option<Difference> {
    let mut difference = Difference::NONE;
    match network.family {
        Family::V4 => {
            difference =
                difference.and(network.src.v4_be(), src.v4_be()).and(network.dst.v4_be(), dst.v4_be());
            let checksum = packet.load::<u16, IPV4_CHECKSUM>()?;
            packet.store::<u16, IPV4_CHECKSUM>(difference.apply(checksum))?;
            packet.store::<[u32; 2], IPV4_SRC>([src.v4_be(), dst.v4_be()])?;
        }
        Family::V6 => {
            for word in 0..4 {
                difference =
                    difference.and(network.src.0[word], src.0[word]).and(network.dst.0[word], dst.0[word]);
            }
            packet.store::<[[u32; 4]; 2], IPV6_SRC>([src.0, dst.0])?;
            packet.header_changed(difference.sum());
        }
    }
    (network.src, network.dst) = (*src, *dst);
    Some(difference)
}

/// Hop limit of what the node itself sends.
pub(crate) const HOPS: u8 = 64;

/// The words of an IPv4 header without options, for a packet of `total` bytes that the node itself sends from the first to
/// the second of `ends`.
#[inline(always)]
pub(crate) fn ipv4_words(total: u16, tos: u8, fragment: u16, protocol: u8, ends: [u32; 2]) -> [u32; 5] {
    let mut words = [
        u32::from_ne_bytes([0x45, tos, (total >> 8) as u8, total as u8]),
        u32::from_ne_bytes([0, 0, (fragment >> 8) as u8, fragment as u8]),
        u32::from_ne_bytes([HOPS, protocol, 0, 0]),
        ends[0],
        ends[1],
    ];
    let mut sum = Difference::NONE;
    for word in words {
        sum = sum.and(0, word);
    }
    let [low, high] = sum.apply(0xffff).to_ne_bytes();
    words[2] = u32::from_ne_bytes([HOPS, protocol, low, high]);
    words
}

/// Takes one hop off, as a router does, and corrects the IPv4 header checksum. The caller has seen that more than
/// one is left.
#[inline(always)]
pub(crate) fn decrement_hops<P: Packet + ?Sized>(packet: &mut P, network: &Network) -> Option<()> {
    match network.family {
        Family::V4 => {
            let checksum = packet.load::<u16, IPV4_CHECKSUM>()?;
            packet.store::<u8, IPV4_TTL>(network.hops.wrapping_sub(1))?;
            packet.store::<u16, IPV4_CHECKSUM>(checksum::one_hop_less(checksum))
        }
        Family::V6 => {
            let hops = network.hops.wrapping_sub(1);
            let word = |hops| u16::from_ne_bytes([network.protocol, hops]);
            packet.store::<u8, IPV6_HOP_LIMIT>(hops)?;
            packet.header_changed(Difference::NONE.and_half(word(network.hops), word(hops)).sum());
            Some(())
        }
    }
}

/// Sends the frame back where it came from.
#[inline(always)]
pub(crate) fn swap_macs<P: Packet + ?Sized>(packet: &mut P) -> Option<()> {
    let Macs { dst, src } = packet.load::<Macs, 0>()?;
    set_macs(packet, src, dst)
}

/// The first twelve bytes of an Ethernet frame (IEEE 802.3 §3.2).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Macs {
    dst: [u8; 6],
    src: [u8; 6],
}

/// Writes the link-layer addresses.
#[inline(always)]
pub(crate) fn set_macs<P: Packet + ?Sized>(packet: &mut P, dst: [u8; 6], src: [u8; 6]) -> Option<()> {
    packet.store::<Macs, 0>(Macs { dst, src })
}

/// Writes what the network header is.
#[inline(always)]
pub(crate) fn set_ethertype<P: Packet + ?Sized>(packet: &mut P, family: Family) -> Option<()> {
    let ethertype = match family {
        Family::V4 => ETHERTYPE_IPV4,
        Family::V6 => ETHERTYPE_IPV6,
    };
    packet.store::<Be16, 12>(ethertype)
}

/// `fe80::/10` (RFC 4291 §2.5.6).
#[inline(always)]
pub(crate) const fn is_link_local(addr: &Addr16) -> bool {
    u32::from_be(addr.0[0]) >> 22 == 0xfe80 >> 6
}

/// `ff00::/8` (RFC 4291 §2.7).
#[inline(always)]
pub(crate) const fn is_multicast(addr: &Addr16) -> bool {
    u32::from_be(addr.0[0]) >> 24 == 0xff
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::cases::PacketBuilder;

    #[test]
    fn both_families_are_read() {
        let v4 = PacketBuilder::udp("10.244.1.5", "10.244.2.9").hops(7).build();
        let v4_network = Network {
            family: Family::V4,
            src: Ipv4Addr::new(10, 244, 1, 5).into(),
            dst: Ipv4Addr::new(10, 244, 2, 9).into(),
            hops: 7,
            protocol: 17,
        };
        assert_eq!(parse(&v4), Parsed::Ip(v4_network));

        let v6 = PacketBuilder::udp("fd00:244::5", "fd00:244:0:1::9").hops(9).build();
        let v6_network = Network {
            family: Family::V6,
            src: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 5).into(),
            dst: Ipv6Addr::new(0xfd00, 0x244, 0, 1, 0, 0, 0, 9).into(),
            hops: 9,
            protocol: 17,
        };
        assert_eq!(parse(&v6), Parsed::Ip(v6_network));
    }

    #[test]
    fn link_local_is_fe80_to_febf() {
        for (text, expected) in [("fe80::1", true), ("febf::1", true), ("fec0::1", false), ("fd00::1", false)]
        {
            let addr: Ipv6Addr = text.parse().unwrap();
            assert_eq!(is_link_local(&addr.into()), expected, "{text}");
        }
        assert!(!is_link_local(&Ipv4Addr::new(254, 128, 0, 1).into()));
    }

    #[test]
    fn a_hop_taken_off_keeps_the_checksum_right() {
        for hops in 2..=255 {
            let mut packet = PacketBuilder::udp("10.244.1.5", "10.244.2.9").hops(hops).build();
            let Parsed::Ip(network) = parse(&packet) else { panic!("a packet of ours parses") };
            decrement_hops(&mut packet, &network).unwrap();
            assert_eq!(packet[IPV4_TTL], hops - 1);
            assert_eq!(checksum::full(&packet[ETHERNET_LEN..ETHERNET_LEN + 20]), 0, "hops {hops}");
        }
    }

    fn framed() -> impl Strategy<Value = Vec<u8>> {
        let ethertype = prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd]), any::<[u8; 2]>()];
        (ethertype, proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(ethertype, body)| {
            let mut bytes = std::vec![0; 12];
            bytes.extend(ethertype);
            bytes.extend(body);
            bytes
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _: Parsed = parse(&bytes);
        }

        #[test]
        fn a_truncated_packet_is_never_taken_for_ip(bytes in framed()) {
            if let Parsed::Ip(network) = parse(&bytes) {
                let header = match network.family { Family::V4 => 20, Family::V6 => 40 };
                prop_assert!(bytes.len() >= ETHERNET_LEN + header);
            }
        }
    }
}
