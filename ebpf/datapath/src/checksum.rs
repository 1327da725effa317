//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use crate::packet::Packet;

/// The checksum of `bytes`, as a number in host order, ready to be stored in network order.
pub fn full(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum = fold(sum + u32::from(u16::from_be_bytes([pair[0], low]))).into();
    }
    !fold(sum)
}

/// The checksum of an IPv4 header whose time to live is one less, from what it was: the word with the time to live became
/// less by `0x0100`, so the checksum becomes more (RFC 1141). It is in network order, as in the packet.
#[inline(always)]
pub const fn one_hop_less(checksum: u16) -> u16 {
    let more = checksum as u32 + 0x0100_u16.to_be() as u32;
    // With the carry; and of the two representations of zero the one that a full computation gives (RFC 1624 §3).
    (more + (more >= 0xffff) as u32) as u16
}

/// What the words that a checksum covers have changed by: the sum of the new ones less the old ones, in one's complement,
/// as the kernel's `__wsum` (RFC 1624 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Difference(u64);

impl Difference {
    /// Nothing has changed.
    pub const NONE: Self = Self(0);

    /// Adds the change of one 32-bit word, in the order of its bytes in memory. At most 2^31 may be added.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Adds the change of one 16-bit word that is at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn and_half(self, old: u16, new: u16) -> Self {
        // The upper half is zero before and after.
        self.and(old as u32, new as u32)
    }

    /// As the kernel takes it.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// The checksum after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        let sum = self.sum();
        let halves = (sum & 0xffff) + (sum >> 16) + !checksum as u32;
        !fold(halves)
    }
}

/// [`Packet::correct_checksum`] of a packet whose checksum is complete: nobody is yet to add to it.
#[inline(always)]
pub fn correct<P: Packet + ?Sized>(
    packet: &mut P,
    offset: u32,
    addresses: u32,
    rest: u32,
    optional: bool,
) -> Option<()> {
    let old = packet.load_at::<u16>(offset)?;
    if optional && old == 0 {
        return Some(());
    }
    let new = Difference::NONE.and(0, addresses).and(0, rest).apply(old);
    // A UDP checksum of 0 says that there is none; its other representation says 0.
    packet.store_at(offset, if optional && new == 0 { 0xffff } else { new })
}

/// Adds the carries back in (one's complement addition).
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_holds() {
        assert_eq!(!full(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    proptest! {
        #[test]
        fn a_hop_less_equals_a_full_computation(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..60),
            hops in 1_u8..,
        ) {
            // A header that is all zero has two representations of its sum; a real one has a version in it.
            bytes[0] |= 0x40;
            bytes[8] = hops;
            let before = full(&bytes).to_be();
            bytes[8] -= 1;
            prop_assert_eq!(one_hop_less(before), full(&bytes).to_be());
        }

        #[test]
        fn a_difference_of_several_words_equals_a_full_computation(
            mut bytes in proptest::collection::vec(any::<u8>(), 24..25),
            new in any::<(u32, u32, u16)>(),
        ) {
            bytes[0] |= 0x40;
            let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            let half = |bytes: &[u8], at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
            let before = full(&bytes).to_be();
            let difference = Difference::NONE
                .and(word(&bytes, 4), new.0)
                .and(word(&bytes, 12), new.1)
                .and_half(half(&bytes, 18), new.2);
            bytes[4..8].copy_from_slice(&new.0.to_ne_bytes());
            bytes[12..16].copy_from_slice(&new.1.to_ne_bytes());
            bytes[18..20].copy_from_slice(&new.2.to_ne_bytes());
            prop_assert_eq!(difference.apply(before), full(&bytes).to_be());
        }

        #[test]
        fn bytes_followed_by_their_checksum_sum_to_zero(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let mut covered = bytes.clone();
            covered.extend_from_slice(if bytes.len() % 2 == 1 { &[0] } else { &[] });
            covered.extend_from_slice(&full(&bytes).to_be_bytes());
            prop_assert_eq!(full(&covered), 0);
        }
    }
}
