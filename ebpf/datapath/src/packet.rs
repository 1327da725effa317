//! A packet's bytes, wherever they are.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Length of the Ethernet header, which every packet here begins with.
pub const ETHERNET_LEN: usize = 14;

/// A packet that begins with its Ethernet header. Offsets are in bytes from there; they are constants because the
/// kernel's verifier wants each access to be at one.
pub trait Packet {
    /// Length of the whole packet in bytes; more than can be loaded when the kernel keeps the rest in fragments.
    fn len(&self) -> u32;

    /// The value at `OFFSET`, or `None` when the packet is shorter.
    fn load<T: FromBytes + Copy, const OFFSET: usize>(&self) -> Option<T>;

    /// Writes `value` at `OFFSET`; `None` when the packet is shorter, and nothing is written then.
    fn store<T: IntoBytes + Immutable + Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()>;

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

/// Bytes in memory.
impl Packet for [u8] {
    fn len(&self) -> u32 {
        <[u8]>::len(self) as u32
    }

    fn load<T: FromBytes + Copy, const OFFSET: usize>(&self) -> Option<T> {
        T::read_from_bytes(self.get(OFFSET..OFFSET + size_of::<T>())?).ok()
    }

    fn store<T: IntoBytes + Immutable + Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        value.write_to(self.get_mut(OFFSET..OFFSET + size_of::<T>())?).ok()
    }
}
