//! The path of most questions: an answer that was given before, and is still true, is given again.
//!
//! An answer with a stamp depends on nothing but its question and the cluster. It is kept as the bytes that were sent;
//! the next client gets them with its own id, in the case it asked, its addresses shuffled. When the service behind it
//! changes, the stamp is outdated and the chain is asked anew: there is no time at which a stale answer is given.
//! Each worker has a memo of its own, so there is nothing to lock.

use std::collections::HashMap;

use fairlead_zone::Stamp;

use crate::codec::{Glance, HEADER_LEN, Key, RawRecord, counts, u16_at};

/// Answers that all workers of a listener together remember, twice: young ones and old ones.
const ANSWERS_MAX: usize = 32_768;
/// Answers that each worker may remember, however many there are.
const ANSWERS_MIN: usize = 2048;
/// Larger answers are not worth their memory.
const ANSWER_LEN_MAX: usize = 1232;

/// Record types whose data is a name that is not compressed (RFC 2782): its case would be that of an earlier question.
const SRV: u16 = 33;
const ADDRESSES: [u16; 2] = [1, 28];

/// What one worker remembers.
pub(crate) struct Memo<T> {
    /// Answers go from young to old when there are too many young ones, and back when they are asked for again; what
    /// nobody asks for falls off the end.
    young: HashMap<Box<[u8]>, Kept<T>>,
    old: HashMap<Box<[u8]>, Kept<T>>,
    max: usize,
    /// The chain they are from.
    routes: usize,
    random: Random,
}

/// An answer that was given.
struct Kept<T> {
    bytes: Box<[u8]>,
    stamp: Stamp,
    /// What is counted each time.
    tally: T,
    /// Records that are shuffled.
    run: Option<Run>,
    /// It repeats the name of the question in other places than the question.
    spells_name: bool,
}

/// Address records of one size, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    start: usize,
    size: usize,
    count: usize,
}

/// Numbers that need not be secret, only spread (xorshift).
struct Random(u64);

impl<T> Memo<T> {
    /// For one of several workers.
    pub(crate) fn new(workers: usize) -> Self {
        let max = (ANSWERS_MAX / workers.max(1)).max(ANSWERS_MIN) / 2;
        let random = Random(rand::random::<u64>() | 1);
        Self { young: HashMap::new(), old: HashMap::new(), max, routes: 0, random }
    }

    /// Forgets everything that came from other routes than these.
    pub(crate) fn follow(&mut self, routes: usize) {
        if self.routes != routes {
            self.routes = routes;
            self.young.clear();
            self.old.clear();
        }
    }

    /// Writes the answer to a question, when it is known and still true; gives what has to be counted.
    pub(crate) fn answer(
        &mut self,
        key: &Key,
        glance: &Glance,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<&T> {
        let key = key.as_bytes();
        let current = |kept: &Kept<T>| kept.stamp.is_current();
        if !self.young.get(key).is_some_and(current) {
            self.young.remove(key);
            let (key, kept) = self.old.remove_entry(key).filter(|(_, kept)| current(kept))?;
            self.put(key, kept);
        }
        let kept = self.young.get(key)?;
        if kept.bytes.len() > glance.size_max || kept.spells_name && !glance.lower {
            return None;
        }
        out.clear();
        out.extend_from_slice(&kept.bytes);
        out[..2].copy_from_slice(&packet[..2]);
        let name = HEADER_LEN..HEADER_LEN + glance.name_len;
        out[name.clone()].copy_from_slice(&packet[name]);
        if let Some(run) = kept.run {
            run.shuffle(out, &mut self.random);
        }
        Some(&kept.tally)
    }

    /// Remembers an answer as it was sent; `rotate` when its addresses are to be shuffled each time.
    pub(crate) fn learn(
        &mut self,
        (key, glance): (&Key, &Glance),
        answer: &[u8],
        rotate: bool,
        (stamp, tally): (Stamp, T),
    ) {
        if answer.len() > ANSWER_LEN_MAX {
            return;
        }
        let Some(shape) = Shape::of(answer, HEADER_LEN + glance.name_len + 4) else { return };
        if shape.spells_name && !glance.lower {
            return;
        }
        let kept = Kept {
            bytes: answer.into(),
            run: shape.run.filter(|_| rotate),
            spells_name: shape.spells_name,
            stamp,
            tally,
        };
        self.put(key.as_bytes().into(), kept);
    }

    fn put(&mut self, key: Box<[u8]>, kept: Kept<T>) {
        if self.young.len() >= self.max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, kept);
    }
}

/// What an answer is made of, as far as patching it goes.
struct Shape {
    run: Option<Run>,
    spells_name: bool,
}

impl Shape {
    /// Walks over the records behind the question.
    fn of(answer: &[u8], question_end: usize) -> Option<Self> {
        let [_, answers, authorities, additionals] = counts(answer)?;
        let mut shape = Self { run: None, spells_name: false };
        let mut at = question_end;
        for index in 0..answers + authorities + additionals {
            let record = RawRecord::read(answer, at)?;
            let size = record.end - at;
            let is_pointer = answer[at] >= 0xc0;
            if index < answers && is_pointer && ADDRESSES.contains(&record.rtype.0) {
                match &mut shape.run {
                    Some(run) if run.start + run.size * run.count == at && run.size == size => run.count += 1,
                    Some(_) => {}
                    run @ None => *run = Some(Run { start: at, size, count: 1 }),
                }
            }
            shape.spells_name |= record.rtype.0 == SRV;
            at = record.end;
        }
        shape.run = shape.run.filter(|run| run.count > 1);
        // Records end where the message does, and every record has a TTL that does not run down.
        (at == answer.len() && u16_at(answer, 4)? == 1).then_some(shape)
    }
}

impl Run {
    /// Puts the records in random order (Fisher and Yates). Nothing points into them: their owners are pointers.
    fn shuffle(self, out: &mut [u8], random: &mut Random) {
        let records = &mut out[self.start..self.start + self.size * self.count];
        for last in (1..self.count).rev() {
            let other = random.below(last + 1);
            if other != last {
                let (head, tail) = records.split_at_mut(last * self.size);
                head[other * self.size..][..self.size].swap_with_slice(&mut tail[..self.size]);
            }
        }
    }
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half, scaled: the bias is below 2^-32 times the bound.
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }
}
