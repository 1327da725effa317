//! The packet that would open a connection.

use std::net::{IpAddr, SocketAddr};

use fairlead_abi::service::{TCP, UDP};
use fairlead_datapath::{Resizable, packet::ETHERNET_LEN};

use super::{FromBytes, Immutable, IntoBytes, Packet};

const SYN: u8 = 0x02;

/// A packet in memory.
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    /// A SYN, a datagram without payload, or the beginning of another protocol; none between two address families.
    pub(super) fn opening(from: SocketAddr, to: SocketAddr, protocol: u8) -> Option<Self> {
        let mut transport = Vec::new();
        transport.extend(from.port().to_be_bytes());
        transport.extend(to.port().to_be_bytes());
        match protocol {
            // Sequence and acknowledgement, length of the header in words, flags, window, checksum, urgent pointer.
            TCP => transport.extend([&[0; 8][..], &[0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]].concat()),
            UDP => transport.extend([0, 8, 0, 0]),
            _ => transport.extend([0; 8]),
        }
        let length = u16::try_from(transport.len()).ok()?;
        let mut bytes = vec![0; 12];
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = (20 + length).to_be_bytes();
                bytes.extend([0x08, 0x00, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = length.to_be_bytes();
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            _ => return None,
        }
        bytes.extend(transport);
        Some(Self(bytes))
    }
}

impl Packet for Bytes {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn segment_len(&self) -> u32 {
        self.network_len()
    }

    fn load<T: FromBytes + Copy, const OFFSET: usize>(&self) -> Option<T> {
        T::read_from_prefix(self.0.get(OFFSET..)?).ok().map(|(value, _)| value)
    }

    fn store<T: IntoBytes + Immutable + Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        value.write_to_prefix(self.0.get_mut(OFFSET..)?).ok()
    }

    fn load_at<T: FromBytes + Copy>(&self, offset: u32) -> Option<T> {
        T::read_from_prefix(self.0.get(offset as usize..)?).ok().map(|(value, _)| value)
    }

    fn store_at<T: IntoBytes + Immutable + Copy>(&mut self, offset: u32, value: T) -> Option<()> {
        value.write_to_prefix(self.0.get_mut(offset as usize..)?).ok()
    }

    /// Nobody reads the checksum.
    fn correct_checksum(&mut self, _: u32, _: u32, _: u32, _: bool) -> Option<()> {
        Some(())
    }
}

impl Resizable for Bytes {
    fn truncate(&mut self, len: u32) -> Option<()> {
        self.0.truncate(len as usize);
        Some(())
    }

    fn make_room<const LEN: usize>(&mut self) -> Option<()> {
        self.0.splice(ETHERNET_LEN..ETHERNET_LEN, [0; LEN]);
        Some(())
    }
}
