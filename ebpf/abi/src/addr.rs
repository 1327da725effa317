//! Addresses and ports in network byte order.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address of either family: 16 bytes in network order, IPv4 mapped into `::ffff:0:0/96` (RFC 4291 §2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addr16(pub [u32; 4]);

const _: () = assert!(size_of::<Addr16>() == 16);

/// Third 32-bit word of every mapped IPv4 address: `0x0000ffff` in network order.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr16 {
    /// `::`, which stands for "no address".
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// `0.0.0.0`, mapped.
    pub const UNSPECIFIED_V4: Self = Self::from_v4_be(0);

    /// From an IPv4 address as the kernel holds it: one word in network order.
    #[inline(always)]
    pub const fn from_v4_be(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From an IPv6 address as the kernel holds it: four words in network order.
    #[inline(always)]
    pub const fn from_v6_be(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// A cookie of the kernel in place of an address: in `ff00::/8`, where no client's address is (RFC 4291 §2.7).
    #[inline(always)]
    pub const fn from_cookie(cookie: u64) -> Self {
        Self([0xff00_0000_u32.to_be(), 0, (cookie >> 32) as u32, cookie as u32])
    }

    /// The cookie that [`Self::from_cookie`] put here; none when this is an address.
    pub const fn to_cookie(self) -> Option<u64> {
        match self.0 {
            [first, 0, high, low] if first == 0xff00_0000_u32.to_be() => {
                Some((high as u64) << 32 | low as u64)
            }
            _ => None,
        }
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The IPv4 word in network order; meaningful only when [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_be(&self) -> u32 {
        self.0[3]
    }

    /// As a standard address; a mapped one becomes IPv4.
    pub fn to_ip(self) -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(self.as_bytes());
        Ipv6Addr::from(octets).to_canonical()
    }
}

impl From<IpAddr> for Addr16 {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for Addr16 {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4_be(u32::from_ne_bytes(ip.octets()))
    }
}

impl From<Ipv6Addr> for Addr16 {
    fn from(ip: Ipv6Addr) -> Self {
        let octets = ip.octets();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self(words)
    }
}

/// A port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Be16(pub u16);

impl Be16 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_mapped_and_comes_back() {
        let v4 = Ipv4Addr::new(10, 96, 0, 10);
        let addr = Addr16::from(v4);
        assert_eq!(addr.as_bytes(), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 10]);
        assert!(addr.is_v4());
        assert_eq!(addr, Addr16::from_v4_be(addr.v4_be()));
        assert_eq!(addr, Addr16::from(v4.to_ipv6_mapped()));
        assert_eq!(addr.to_ip(), IpAddr::V4(v4));
    }

    #[test]
    fn an_ipv6_address_keeps_its_octets() {
        let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, 1, 0, 0, 0, 5);
        let addr = Addr16::from(v6);
        assert_eq!(addr.as_bytes(), &v6.octets());
        assert!(!addr.is_v4());
        assert_eq!(addr.to_ip(), IpAddr::V6(v6));
        assert!(!Addr16::UNSPECIFIED.is_v4());
    }

    #[test]
    fn a_cookie_is_no_address_and_comes_back() {
        for cookie in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            assert_eq!(Addr16::from_cookie(cookie).to_cookie(), Some(cookie));
        }
        assert_eq!(Addr16::from(Ipv4Addr::new(10, 0, 0, 1)).to_cookie(), None);
        assert_eq!(Addr16::from(Ipv6Addr::LOCALHOST).to_cookie(), None);
    }

    #[test]
    fn a_port_is_in_network_order() {
        assert_eq!(Be16::new(0x1f90).as_bytes(), &[0x1f, 0x90]);
        assert_eq!(Be16::new(8080).get(), 8080);
    }
}
