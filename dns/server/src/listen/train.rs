//! Datagrams that leave together: those for one client, sent as one and taken apart again by the kernel.
//!
//! A resolver asks for A and AAAA at once, a forwarder for many names. The answers go through the network stack as one
//! packet (UDP segmentation, `UDP_SEGMENT` of udp(7)) and become the datagrams they are at the client's socket, or at the
//! first device that needs them apart. All of a train have one size, but the last one may be shorter.

use super::BATCH;

/// Longest datagram in a train: it must fit into a packet on every path (the least MTU of IPv6, less its headers).
const SIZE_MAX: usize = 1232;

/// Datagrams by their trains, in the order in which these began.
pub(super) struct Trains {
    trains: [Train; BATCH],
    count: usize,
    /// The datagram behind each one in its train.
    next: [u8; BATCH],
}

/// Datagrams for one client, by their numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Train {
    pub(super) first: u8,
    last: u8,
    pub(super) len: u8,
    /// Size of all of them but the last.
    pub(super) size: u16,
    /// The last one is shorter: nothing comes behind it.
    is_closed: bool,
}

impl Trains {
    pub(super) fn new() -> Self {
        Self { trains: [Train::default(); BATCH], count: 0, next: [0; BATCH] }
    }

    /// Puts a datagram of a size into a train with those that are for the same client, or into one of its own.
    pub(super) fn add(&mut self, number: u8, size: usize, is_same: impl Fn(u8) -> bool) {
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        let mut open = self.trains[..self.count].iter_mut().rev();
        match open.find(|train| train.takes(size) && is_same(train.first)) {
            // It goes in front, the shorter one becomes the last.
            Some(train) if size > train.size => {
                self.next[usize::from(number)] = train.first;
                *train = Train { first: number, len: 2, size, is_closed: true, ..*train };
            }
            Some(train) => {
                self.next[usize::from(train.last)] = number;
                let is_closed = size < train.size;
                *train = Train { last: number, len: train.len + 1, is_closed, ..*train };
            }
            None => {
                self.trains[self.count] =
                    Train { first: number, last: number, len: 1, size, is_closed: false };
                self.count += 1;
            }
        }
    }

    pub(super) fn trains(&self) -> &[Train] {
        &self.trains[..self.count]
    }

    /// The numbers of a train's datagrams, in their order.
    pub(super) fn members(&self, train: Train) -> impl Iterator<Item = u8> {
        let after = |number: &u8| Some(self.next[usize::from(*number)]);
        std::iter::successors(Some(train.first), after).take(train.len.into())
    }
}

impl Train {
    /// Whether a datagram of a size can come into it.
    fn takes(&self, size: u16) -> bool {
        let fits = |size: u16| (1..=SIZE_MAX).contains(&usize::from(size));
        !self.is_closed && fits(size) && fits(self.size) && (size <= self.size || self.len == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trains as `SIZE: NUMBERS`, of datagrams as (client, size).
    fn trains(datagrams: &[(char, usize)]) -> Vec<String> {
        let mut trains = Trains::new();
        for ((client, size), number) in datagrams.iter().zip(0..) {
            trains.add(number, *size, |other| datagrams[usize::from(other)].0 == *client);
        }
        let show = |train: &Train| {
            let members: Vec<String> = trains.members(*train).map(|number| number.to_string()).collect();
            format!("{}: {}", train.size, members.join(" "))
        };
        trains.trains().iter().map(show).collect()
    }

    #[test]
    fn all_of_a_train_are_for_one_client_and_of_one_size_but_the_last() {
        assert_eq!(trains(&[]), [""; 0]);
        assert_eq!(
            trains(&[('a', 50), ('b', 50), ('a', 50), ('b', 50), ('a', 50)]),
            ["50: 0 2 4", "50: 1 3"]
        );
        assert_eq!(trains(&[('a', 50), ('a', 40), ('a', 50), ('a', 50)]), ["50: 0 1", "50: 2 3"]);
        assert_eq!(
            trains(&[('a', 40), ('a', 50), ('a', 40)]),
            ["50: 1 0", "40: 2"],
            "the longer one in front"
        );
        assert_eq!(trains(&[('a', 40), ('a', 40), ('a', 50)]), ["40: 0 1", "50: 2"]);
    }

    #[test]
    fn what_may_not_fit_into_a_packet_travels_alone() {
        assert_eq!(trains(&[('a', 1233), ('a', 1233), ('a', 70_000)]), ["1233: 0", "1233: 1", "65535: 2"]);
        assert_eq!(trains(&[('a', 1233), ('a', 40), ('a', 1232)]), ["1233: 0", "1232: 2 1"]);
        assert_eq!(trains(&[('a', 0), ('a', 0)]), ["0: 0", "0: 1"]);
    }

    #[test]
    fn a_whole_batch_may_be_one_train_or_none() {
        assert_eq!(trains(&[('a', 50); BATCH]).len(), 1);
        let strangers: Vec<(char, usize)> = ('A'..).take(BATCH).map(|client| (client, 50)).collect();
        assert_eq!(trains(&strangers).len(), BATCH);
    }
}
