//! Makes packets.

use core::net::IpAddr;
use std::{vec, vec::Vec};

use crate::{checksum, packet::ETHERNET_LEN};

const UDP: u8 = 17;
const UDP_LEN: usize = 8;

/// A UDP packet in Ethernet and IP.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    src: IpAddr,
    dst: IpAddr,
    hops: u8,
    options: usize,
    payload: Vec<u8>,
    macs: ([u8; 6], [u8; 6]),
}

impl PacketBuilder {
    /// A datagram with four bytes of payload and 64 hops to go.
    ///
    /// # Panics
    ///
    /// When an address is not one, or they are of different families.
    pub fn udp(src: &str, dst: &str) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().expect("the table has valid addresses");
        let (src, dst) = (address(src), address(dst));
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "the addresses of a packet are of one family");
        let macs = ([0x02, 0, 0, 0, 0, 0x01], [0x02, 0, 0, 0, 0, 0x02]);
        Self { src, dst, hops: 64, options: 0, payload: b"ping".to_vec(), macs }
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
        let mut packet = Vec::with_capacity(ETHERNET_LEN + 60 + UDP_LEN + self.payload.len());
        packet.extend(self.macs.0);
        packet.extend(self.macs.1);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                packet.extend([0x08, 0x00]);
                packet.extend(self.ipv4_header(src.octets(), dst.octets()));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                packet.extend(self.udp_len().to_be_bytes());
                packet.extend([UDP, self.hops]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
            }
            _ => unreachable!("checked in `udp`"),
        }
        packet.extend(4_000_u16.to_be_bytes());
        packet.extend(53_u16.to_be_bytes());
        packet.extend(self.udp_len().to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(&self.payload);
        packet
    }

    fn ipv4_header(&self, src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
        let words = 5 + self.options;
        let mut header = vec![0; words * 4];
        header[20..].fill(1);
        header[0] = 0x40 | words as u8;
        header[2..4].copy_from_slice(&(self.udp_len() + words as u16 * 4).to_be_bytes());
        header[8] = self.hops;
        header[9] = UDP;
        header[12..16].copy_from_slice(&src);
        header[16..20].copy_from_slice(&dst);
        let checksum = checksum::full(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn udp_len(&self) -> u16 {
        (UDP_LEN + self.payload.len()) as u16
    }
}
