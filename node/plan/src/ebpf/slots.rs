//! Which entries of an array are free: contiguous ranges, and a quarantine for those that packets may still be reading.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// How long a range that nothing leads to any more stays untouched. A reader holds a frontend's value for microseconds; a
/// second is the margin for one that is preempted.
pub const GRACE_MS: u64 = 1_000;

/// The free and the quarantined ranges of one array.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    capacity: u32,
    /// Start to length; neighbours are merged.
    free: BTreeMap<u32, u32>,
    quarantine: VecDeque<Held>,
    /// Allocation goes round, so that a slot rests as long as possible before it is given away again.
    cursor: u32,
}

#[derive(Clone, Debug)]
struct Held {
    release_ms: u64,
    first: u32,
    count: u32,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, free: BTreeMap::from([(0, capacity)]), quarantine: VecDeque::new(), cursor: 0 }
    }

    /// Takes a range that is in use already. False when it is out of bounds or (partly) taken.
    pub(super) fn adopt(&mut self, first: u32, count: u32) -> bool {
        if count == 0 {
            return true;
        }
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.capacity) else { return false };
        let Some((&start, &length)) = self.free.range(..=first).next_back() else { return false };
        if start + length < end {
            return false;
        }
        self.cut(start, length, first, count);
        true
    }

    /// A contiguous free range.
    pub(super) fn allocate(&mut self, count: u32) -> Option<u32> {
        let fits = |(_, at, room): &(u32, u32, u32)| count <= *room && *at <= self.capacity;
        let straddling = self.free.range(..self.cursor).next_back().and_then(|(&start, &length)| {
            let room = (start + length).checked_sub(self.cursor)?;
            Some((start, self.cursor, room))
        });
        let whole = |(&start, &length): (&u32, &u32)| (start, start, length);
        let behind = self.free.range(self.cursor..).map(whole);
        let before = self.free.range(..self.cursor).map(whole);
        let (start, at, _) = straddling.into_iter().chain(behind).chain(before).find(fits)?;
        let length = self.free[&start];
        self.cut(start, length, at, count);
        self.cursor = at + count;
        Some(at)
    }

    /// Gives a range back after the grace period.
    pub(super) fn quarantine(&mut self, first: u32, count: u32, now_ms: u64) {
        if count > 0 {
            self.quarantine.push_back(Held { release_ms: now_ms + GRACE_MS, first, count });
        }
    }

    /// Frees what has been in quarantine long enough; returns it.
    pub(super) fn release(&mut self, now_ms: u64) -> Vec<Range<u32>> {
        let mut released = Vec::new();
        while let Some(held) = self.quarantine.pop_front_if(|held| held.release_ms <= now_ms) {
            self.give_back(held.first, held.count);
            released.push(held.first..held.first + held.count);
        }
        released
    }

    /// When [`Self::release`] has something to do next.
    pub(super) fn next_release_ms(&self) -> Option<u64> {
        self.quarantine.front().map(|held| held.release_ms)
    }

    /// Entries that are neither free nor in quarantine.
    pub(super) fn used(&self) -> u32 {
        let held: u32 = self.quarantine.iter().map(|held| held.count).sum();
        self.capacity - self.free.values().sum::<u32>() - held
    }

    fn cut(&mut self, start: u32, length: u32, at: u32, count: u32) {
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        let rest = start + length - (at + count);
        if rest > 0 {
            self.free.insert(at + count, rest);
        }
    }

    /// Gives a range back that nobody has read.
    pub(super) fn give_back(&mut self, mut first: u32, mut count: u32) {
        if count == 0 {
            return;
        }
        if let Some((&start, &length)) = self.free.range(..first).next_back()
            && start + length == first
        {
            self.free.remove(&start);
            (first, count) = (start, length + count);
        }
        if let Some(length) = self.free.remove(&(first + count)) {
            count += length;
        }
        self.free.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_rests_in_quarantine_and_then_until_all_others_were_used() {
        let mut slots = Slots::new(10);
        assert_eq!(slots.allocate(4), Some(0));
        slots.quarantine(0, 4, 0);
        assert_eq!(slots.release(GRACE_MS - 1), []);
        assert_eq!(slots.allocate(4), Some(4));
        assert_eq!(slots.allocate(4), None, "the first four are held, two are left");
        assert_eq!(slots.release(GRACE_MS).into_iter().flatten().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(slots.allocate(2), Some(8), "the rest first");
        assert_eq!(slots.allocate(2), Some(0));
        assert_eq!(slots.used(), 8);
    }

    #[test]
    fn freed_neighbours_become_one_range_again() {
        let mut slots = Slots::new(6);
        assert_eq!([slots.allocate(2), slots.allocate(2), slots.allocate(2)], [Some(0), Some(2), Some(4)]);
        for first in [0, 4, 2] {
            slots.quarantine(first, 2, 0);
        }
        slots.release(GRACE_MS);
        assert_eq!(slots.allocate(6), Some(0));
    }

    #[test]
    fn the_rest_of_a_range_behind_the_cursor_is_used_before_its_start() {
        let mut slots = Slots::new(10);
        assert_eq!(slots.allocate(3), Some(0));
        slots.quarantine(0, 3, 0);
        slots.release(GRACE_MS);
        assert_eq!(slots.allocate(3), Some(3), "0..3 and 3..10 are one range now");
    }

    #[test]
    fn ranges_that_overlap_or_leave_the_array_are_not_adopted() {
        let mut slots = Slots::new(10);
        assert!(slots.adopt(2, 4));
        assert!(!slots.adopt(5, 2));
        assert!(!slots.adopt(8, 3));
        assert!(!slots.adopt(u32::MAX, 2));
        assert!(slots.adopt(6, 4));
        assert!(slots.adopt(7, 0));
        assert_eq!(slots.used(), 8);
    }
}
