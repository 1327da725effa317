//! Makes packets.

use core::net::IpAddr;
use std::{vec, vec::Vec};

use crate::{checksum, packet::ETHERNET_LEN};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// A packet in Ethernet and IP.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    tcp_flags: u8,
    /// TCP sequence and acknowledgement numbers, and the window.
    numbers: (u32, u32),
    window: u16,
    has_checksum: bool,
    hops: u8,
    options: usize,
    fragment: Option<(u32, u16, bool)>,
    do_not_fragment: bool,
    payload: Vec<u8>,
    macs: ([u8; 6], [u8; 6]),
}

impl PacketBuilder {
    /// A datagram with four bytes of payload, without a checksum, and 64 hops to go.
    ///
    /// # Panics
    ///
    /// When an address is not one, or they are of different families.
    pub fn udp(src: &str, dst: &str) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().expect("the table has valid addresses");
        let (src, dst) = (address(src), address(dst));
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "the addresses of a packet are of one family");
        Self {
            src,
            dst,
            protocol: UDP,
            ports: (4_000, 53),
            tcp_flags: 0,
            numbers: (1, 2),
            window: 0xffff,
            has_checksum: false,
            hops: 64,
            options: 0,
            fragment: None,
            do_not_fragment: false,
            payload: b"ping".to_vec(),
            macs: ([0x02, 0, 0, 0, 0, 0x01], [0x02, 0, 0, 0, 0, 0x02]),
        }
    }

    /// A TCP segment with these flags, without payload.
    ///
    /// # Panics
    ///
    /// As [`Self::udp`].
    pub fn tcp(src: &str, dst: &str, flags: u8) -> Self {
        let built = Self { protocol: TCP, tcp_flags: flags, ports: (4_000, 80), ..Self::udp(src, dst) };
        built.payload(b"").checksummed()
    }

    /// An SCTP packet whose checksum nobody computes.
    ///
    /// # Panics
    ///
    /// As [`Self::udp`].
    pub fn sctp(src: &str, dst: &str) -> Self {
        Self { protocol: SCTP, ..Self::udp(src, dst) }
    }

    /// The ICMP error "destination unreachable, port unreachable" about a packet, of which it quotes this many bytes.
    ///
    /// # Panics
    ///
    /// As [`Self::udp`].
    pub fn unreachable(src: &str, dst: &str, about: &[u8], quoted: usize) -> Self {
        let built = Self::udp(src, dst);
        let (protocol, kind) = if built.src.is_ipv4() { (ICMP, [3, 3]) } else { (ICMPV6, [1, 4]) };
        let mut payload = vec![kind[0], kind[1], 0, 0, 0, 0, 0, 0];
        payload.extend(&about[ETHERNET_LEN..about.len().min(ETHERNET_LEN + quoted)]);
        Self { protocol, ..built }.payload(&payload).checksummed()
    }

    /// Source and destination port.
    pub fn ports(mut self, src: u16, dst: u16) -> Self {
        self.ports = (src, dst);
        self
    }

    /// TCP sequence and acknowledgement numbers.
    pub fn numbers(mut self, sequence: u32, acknowledged: u32) -> Self {
        self.numbers = (sequence, acknowledged);
        self
    }

    /// The TCP window.
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// Other addresses.
    ///
    /// # Panics
    ///
    /// When one is not an address.
    pub fn addresses(mut self, src: &str, dst: &str) -> Self {
        self.src = src.parse().expect("the table has valid addresses");
        self.dst = dst.parse().expect("the table has valid addresses");
        self
    }

    /// With the checksum that the bytes have.
    pub fn checksummed(mut self) -> Self {
        self.has_checksum = true;
        self
    }

    /// The time to live or hop limit.
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Adds this many words of IPv4 options ("no operation").
    pub fn options(mut self, words: usize) -> Self {
        self.options = words;
        self
    }

    /// Makes it a fragment: identification, offset in bytes, whether more follow. A later one has the payload where the
    /// transport header would be.
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some((id, offset, more));
        self
    }

    /// Sets "don't fragment" of IPv4.
    pub fn do_not_fragment(mut self) -> Self {
        self.do_not_fragment = true;
        self
    }

    /// The payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The link-layer addresses: destination, then source.
    pub fn macs(mut self, dst: [u8; 6], src: [u8; 6]) -> Self {
        self.macs = (dst, src);
        self
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        packet.extend(self.macs.0);
        packet.extend(self.macs.1);
        let mut transport = self.transport();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                packet.extend([0x08, 0x00]);
                packet.extend(self.ipv4_header(src.octets(), dst.octets(), transport.len()));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut next = self.protocol;
                if let Some((id, offset, more)) = self.fragment {
                    let mut header = vec![self.protocol, 0];
                    header.extend((offset | u16::from(more)).to_be_bytes());
                    header.extend(id.to_be_bytes());
                    transport.splice(0..0, header);
                    next = 44;
                }
                packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                packet.extend((transport.len() as u16).to_be_bytes());
                packet.extend([next, self.hops]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
            }
            _ => unreachable!("checked in `udp`"),
        }
        packet.extend(transport);
        packet
    }

    /// Transport header and payload.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.fragment.is_some_and(|(_, offset, _)| offset > 0) {
            return self.payload.clone();
        }
        let (src, dst) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let checksum = match self.protocol {
            TCP => {
                bytes.extend([src[0], src[1], dst[0], dst[1]]);
                bytes.extend(self.numbers.0.to_be_bytes());
                bytes.extend(self.numbers.1.to_be_bytes());
                let [high, low] = self.window.to_be_bytes();
                bytes.extend([0x50, self.tcp_flags, high, low, 0, 0, 0, 0]);
                16
            }
            UDP => {
                let len = (8 + self.payload.len() as u16).to_be_bytes();
                bytes.extend([src[0], src[1], dst[0], dst[1], len[0], len[1], 0, 0]);
                6
            }
            SCTP => {
                bytes.extend([src[0], src[1], dst[0], dst[1], 0, 0, 0, 9, 1, 2, 3, 4]);
                8
            }
            _ => 2,
        };
        bytes.extend(&self.payload);
        if self.has_checksum {
            let mut covered = self.pseudo_header(bytes.len());
            covered.extend(&bytes);
            let sum = checksum::full(&covered);
            let sum = if sum == 0 && self.protocol == UDP { 0xffff } else { sum };
            bytes[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let mut header = Vec::new();
        match (self.src, self.dst) {
            // ICMP of IPv4 covers no pseudo header.
            (IpAddr::V4(_), IpAddr::V4(_)) if self.protocol == ICMP => return header,
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                header.extend(src.octets());
                header.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                header.extend(src.octets());
                header.extend(dst.octets());
            }
            _ => unreachable!("checked in `udp`"),
        }
        header.extend([0, self.protocol]);
        header.extend((len as u16).to_be_bytes());
        header
    }

    fn ipv4_header(&self, src: [u8; 4], dst: [u8; 4], len: usize) -> Vec<u8> {
        let words = 5 + self.options;
        let mut header = vec![0; words * 4];
        header[20..].fill(1);
        header[0] = 0x40 | words as u8;
        header[2..4].copy_from_slice(&(len as u16 + words as u16 * 4).to_be_bytes());
        if let Some((id, offset, more)) = self.fragment {
            header[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            header[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        }
        if self.do_not_fragment {
            header[6] |= 0x40;
        }
        header[8] = self.hops;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&src);
        header[16..20].copy_from_slice(&dst);
        let checksum = checksum::full(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}
