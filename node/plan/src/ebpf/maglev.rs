//! Consistent choice: every node chooses the same backend for a connection, and few choices move with a backend
//! (Maglev; Eisenbud et al., NSDI 2016, §3.4).

use fairlead_abi::Addr16;
use zerocopy::IntoBytes;

use crate::select::Target;

/// Entries per backend that are aimed at: the more, the more evenly connections are spread.
const PER_BACKEND: usize = 100;
/// Lengths of tables, all prime. Few of them, because with another length nearly every choice is another one.
const LENGTHS: [usize; 7] = [251, 509, 1_021, 2_039, 4_093, 8_191, 16_381];

/// Length of the table for so many backends: the first that is at least a hundred times as large, or the largest.
pub(super) fn length(backends: usize) -> usize {
    let wanted = backends.saturating_mul(PER_BACKEND);
    LENGTHS.into_iter().find(|length| *length >= wanted).unwrap_or(LENGTHS[LENGTHS.len() - 1])
}

/// The table over backends that are sorted alike on every node; an entry is a position in `targets`. Empty for none.
pub(super) fn table(targets: &[Target]) -> Vec<usize> {
    if targets.is_empty() {
        return Vec::new();
    }
    let length = length(targets.len());
    let mut walks: Vec<Walk> = targets.iter().map(|target| Walk::new(*target, length)).collect();
    let mut table = vec![usize::MAX; length];
    let mut filled = 0;
    loop {
        for (position, walk) in walks.iter_mut().enumerate() {
            if filled == length {
                return table;
            }
            // A walk visits every entry, and one is still free.
            let free = loop {
                let at = walk.step(length);
                if table[at] == usize::MAX {
                    break at;
                }
            };
            table[free] = position;
            filled += 1;
        }
    }
}

/// A backend's preference list: a permutation of the entries.
struct Walk {
    next: usize,
    skip: usize,
}

impl Walk {
    fn new(target: Target, length: usize) -> Self {
        let hash = hash(target);
        let modulo = |value: u64, of: usize| usize::try_from(value % of as u64).unwrap_or_default();
        Self { next: modulo(hash, length), skip: modulo(mix(hash), length - 1) + 1 }
    }

    fn step(&mut self, length: usize) -> usize {
        let at = self.next;
        self.next = (self.next + self.skip) % length;
        at
    }
}

/// FNV-1a (64 bits) of the 16 bytes of the address and the two of the port in network order, then mixed: the same
/// number on every node and in every version, for tables of different versions must agree.
fn hash(target: Target) -> u64 {
    let address = Addr16::from(target.address);
    let port = target.port.to_be_bytes();
    let bytes = address.as_bytes().iter().chain(&port);
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// The finalizer of MurmurHash3: each bit of the result depends on all bits of the argument.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn targets(count: usize) -> Vec<Target> {
        let target = |index: usize| Target {
            address: IpAddr::from([10, 244, u8::try_from(index / 250).expect("small"), (index % 250) as u8]),
            port: 8080,
        };
        (0..count).map(target).collect()
    }

    #[test]
    fn lengths_are_prime_and_within_bounds() {
        for (backends, expected) in
            [(1, 251), (2, 251), (3, 509), (10, 1_021), (163, 16_381), (5_000, 16_381)]
        {
            assert_eq!(length(backends), expected, "{backends} backends");
        }
        for length in LENGTHS {
            assert!((2..length).all(|divisor| length % divisor != 0), "{length} is not prime");
        }
    }

    #[test]
    fn the_table_is_the_same_for_ever() {
        let table = table(&targets(3));
        assert_eq!(table.len(), 509);
        assert_eq!(table[..12], [2, 2, 0, 1, 2, 1, 0, 1, 0, 1, 0, 2]);
    }

    #[test]
    fn every_backend_has_its_share() {
        for count in [1, 2, 7, 50, 200] {
            let table = table(&targets(count));
            let mut shares = vec![0usize; count];
            table.iter().for_each(|position| shares[*position] += 1);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{count}: {shares:?}");
        }
    }

    proptest! {
        /// When a backend leaves, its entries go to others; of the rest, few change.
        #[test]
        fn few_choices_move_when_a_backend_leaves(count in 2usize..60, leaving in 0usize..60) {
            let all = targets(count);
            let mut rest = all.clone();
            let gone = rest.remove(leaving % count);
            let (before, after) = (table(&all), table(&rest));
            // At a few numbers of backends the table gets another length; everywhere else the law holds.
            prop_assume!(before.len() == after.len());
            let stays = before.iter().zip(&after).filter(|(b, _)| all[**b] != gone);
            let moved = stays.filter(|(b, a)| all[**b] != rest[**a]).count();
            prop_assert!(moved * 10 < before.len(), "{moved} of {} moved", before.len());
        }
    }
}
