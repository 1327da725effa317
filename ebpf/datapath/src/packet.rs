//! A packet's bytes, wherever they are.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Length of the Ethernet header, which every packet here begins with.
pub const ETHERNET_LEN: usize = 14;

/// A packet that begins with its Ethernet header. Offsets are in bytes from there. Network headers are at constant ones,
/// where the kernel's verifier lets a program look without a call; what is behind them is not.
pub trait Packet {
    /// Length of the whole packet in bytes; more than can be loaded when the kernel keeps the rest in fragments.
    fn len(&self) -> u32;

    /// Length in bytes of the longest network packet that it will be on the wire: less than the whole when the kernel is yet
    /// to cut it into segments.
    fn segment_len(&self) -> u32;

    /// The value at `OFFSET`, or `None` when the packet is shorter.
    fn load<T: FromBytes + Copy, const OFFSET: usize>(&self) -> Option<T>;

    /// Writes `value` at `OFFSET`; `None` when the packet is shorter, and nothing is written then.
    fn store<T: IntoBytes + Immutable + Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()>;

    /// As [`Self::load`], at an offset that is not a constant.
    fn load_at<T: FromBytes + Copy>(&self, offset: u32) -> Option<T>;

    /// As [`Self::store`], at an offset that is not a constant.
    fn store_at<T: IntoBytes + Immutable + Copy>(&mut self, offset: u32, value: T) -> Option<()>;

    /// Corrects the transport checksum at `offset` after what it covers has changed: the addresses by the difference
    /// `addresses`, and something behind them by `rest` (see [`crate::checksum::Difference`]). An `optional` one that is 0 is
    /// not there (UDP over IPv4; RFC 768).
    fn correct_checksum(&mut self, offset: u32, addresses: u32, rest: u32, optional: bool) -> Option<()>;

    /// The words of an IPv6 header have changed by `difference`, and nothing in it makes up for that as the checksum of an IPv4
    /// header does. The kernel wants to know when it keeps the sum of a packet that it received (`CHECKSUM_COMPLETE`).
    #[inline(always)]
    fn header_changed(&mut self, _difference: u32) {}

    /// Whether there is no byte at all.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the network packet: without the link header, which counters leave out. Meaningful only of a packet
    /// that has a link header.
    #[inline(always)]
    fn network_len(&self) -> u32 {
        self.len().wrapping_sub(ETHERNET_LEN as u32)
    }
}

/// A packet that can become an error about itself.
pub trait Resizable: Packet {
    /// Cuts the packet to `len` bytes.
    fn truncate(&mut self, len: u32) -> Option<()>;

    /// Makes room of `LEN` bytes between the Ethernet header and the rest.
    fn make_room<const LEN: usize>(&mut self) -> Option<()>;
}

/// A packet that can be put into another one.
pub trait Headroom: Packet {
    /// Makes room of `LEN` bytes before the Ethernet header; offsets are counted from there then.
    fn put_before<const LEN: usize>(&mut self) -> Option<()>;
}

/// A packet in memory.
#[cfg(any(test, feature = "cases"))]
impl Packet for std::vec::Vec<u8> {
    fn len(&self) -> u32 {
        <[u8]>::len(self) as u32
    }

    fn segment_len(&self) -> u32 {
        self.network_len()
    }

    fn load<T: FromBytes + Copy, const OFFSET: usize>(&self) -> Option<T> {
        self.load_at(OFFSET as u32)
    }

    fn store<T: IntoBytes + Immutable + Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        self.store_at(OFFSET as u32, value)
    }

    fn load_at<T: FromBytes + Copy>(&self, offset: u32) -> Option<T> {
        let start = offset as usize;
        T::read_from_bytes(self.get(start..start + size_of::<T>())?).ok()
    }

    fn store_at<T: IntoBytes + Immutable + Copy>(&mut self, offset: u32, value: T) -> Option<()> {
        let start = offset as usize;
        value.write_to(self.get_mut(start..start + size_of::<T>())?).ok()
    }

    fn correct_checksum(&mut self, offset: u32, addresses: u32, rest: u32, optional: bool) -> Option<()> {
        crate::checksum::correct(self, offset, addresses, rest, optional)
    }
}

#[cfg(any(test, feature = "cases"))]
impl Resizable for std::vec::Vec<u8> {
    fn truncate(&mut self, len: u32) -> Option<()> {
        ((len as usize) <= Self::len(self)).then(|| Self::truncate(self, len as usize))
    }

    fn make_room<const LEN: usize>(&mut self) -> Option<()> {
        self.splice(ETHERNET_LEN..ETHERNET_LEN, std::iter::repeat_n(0, LEN));
        Some(())
    }
}

#[cfg(any(test, feature = "cases"))]
impl Headroom for std::vec::Vec<u8> {
    fn put_before<const LEN: usize>(&mut self) -> Option<()> {
        self.splice(..0, std::iter::repeat_n(0, LEN));
        Some(())
    }
}
