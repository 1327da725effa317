//! A packet's bytes, wherever they are.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Length of the Ethernet header, which every packet here begins with.
pub const ETHERNET_LEN: usize = 14;

/// A packet that begins with its Ethernet header. Offsets are in bytes from there.
pub trait Packet {
    /// Length of the whole packet in bytes; more than can be loaded when the kernel keeps the rest in fragments.
    fn len(&self) -> u32;

    /// The value at `offset`, or `None` when the packet is shorter.
    fn load<T: FromBytes + Copy>(&self, offset: usize) -> Option<T>;

    /// Writes `value` at `offset`; `None` when the packet is shorter, and nothing is written then.
    fn store<T: IntoBytes + Immutable + Copy>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Whether there is no byte at all.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the network packet: without the link header, which counters leave out.
    #[inline(always)]
    fn network_len(&self) -> u64 {
        (self.len() as u64).saturating_sub(ETHERNET_LEN as u64)
    }
}

/// Bytes in memory.
impl Packet for [u8] {
    fn len(&self) -> u32 {
        <[u8]>::len(self) as u32
    }

    fn load<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        T::read_from_bytes(self.get(offset..end)?).ok()
    }

    fn store<T: IntoBytes + Immutable + Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        let end = offset.checked_add(size_of::<T>())?;
        value.write_to(self.get_mut(offset..end)?).ok()
    }
}
