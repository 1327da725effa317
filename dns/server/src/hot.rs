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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fairlead_model::{ObjectName, View};
    use fairlead_zone::{Name, Question, RecordType, Zone, ZoneConfig};

    use super::*;
    use crate::codec::glance;

    /// A question with an id.
    fn question(id: u8, name: &str, rtype: u8) -> Vec<u8> {
        let mut bytes = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(Name::parse(name).unwrap().as_wire());
        bytes.extend_from_slice(&[0, rtype, 0, 1]);
        bytes
    }

    /// Its answer with some records that point to the question.
    fn answer(question: &[u8], records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [question, &records.concat()].concat();
        bytes[2] |= 0x84;
        bytes[7] = u8::try_from(records.len()).unwrap();
        bytes
    }

    fn address(last: u8) -> Vec<u8> {
        vec![0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, last]
    }

    /// A zone, and a stamp of an answer about a service in it.
    fn zone() -> Zone {
        Zone::new(ZoneConfig::new(Name::parse("cluster.local").unwrap()))
    }

    fn stamp(zone: &Zone) -> Stamp {
        let name = Name::parse("a.demo.svc.cluster.local").unwrap();
        zone.stamp(&Question { name, rtype: RecordType::A, class: fairlead_zone::Class::IN })
    }

    /// Asks a memo; gives what it says.
    fn ask(memo: &mut Memo<()>, packet: &[u8]) -> Option<Vec<u8>> {
        let (mut key, mut out) = (Key::new(), Vec::new());
        let glanced = glance(packet, &mut key).unwrap();
        memo.answer(&key, &glanced, packet, &mut out).is_some().then_some(out)
    }

    fn learn(memo: &mut Memo<()>, packet: &[u8], answer: &[u8], stamp: Stamp) {
        let mut key = Key::new();
        let glanced = glance(packet, &mut key).unwrap();
        memo.learn((&key, &glanced), answer, true, (stamp, ()));
    }

    #[test]
    fn an_answer_is_given_again_with_the_id_and_the_case_of_who_asks() {
        let (mut memo, zone) = (Memo::new(1), zone());
        let first = question(7, "a.demo.svc.cluster.local", 1);
        assert_eq!(ask(&mut memo, &first), None);
        learn(&mut memo, &first, &answer(&first, &[&address(1)]), stamp(&zone));
        let second = question(9, "A.demo.SVC.cluster.local", 1);
        assert_eq!(ask(&mut memo, &second), Some(answer(&second, &[&address(1)])));
        assert_eq!(ask(&mut memo, &question(9, "a.demo.svc.cluster.local", 28)), None, "another type");
        memo.follow(1);
        assert_eq!(ask(&mut memo, &second), None, "from other routes");
    }

    #[test]
    fn addresses_are_all_there_and_each_comes_first_sometimes() {
        let (mut memo, zone) = (Memo::new(1), zone());
        let asked = question(7, "a.demo.svc.cluster.local", 1);
        let records = [address(1), address(2), address(3)];
        let alias: &[u8] = &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 2, 0xc0, 14];
        let whole = answer(&asked, &[alias, &records[0], &records[1], &records[2]]);
        learn(&mut memo, &asked, &whole, stamp(&zone));
        let mut first = BTreeSet::new();
        for _ in 0..200 {
            let given = ask(&mut memo, &asked).unwrap();
            let start = asked.len() + alias.len();
            assert_eq!(given[..start], whole[..start], "aliases stay in front");
            let mut shown: Vec<&[u8]> = given[start..].chunks(16).collect();
            first.insert(shown[0][15]);
            shown.sort_unstable();
            assert_eq!(shown, records);
        }
        assert_eq!(first, BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn names_that_are_spelled_out_are_only_for_who_spells_them_so() {
        let (mut memo, zone) = (Memo::new(1), zone());
        let asked = question(7, "a.demo.svc.cluster.local", 33);
        let target = Name::parse("a.demo.svc.cluster.local").unwrap();
        let head =
            [0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0, 6 + target.as_wire().len() as u8, 0, 0, 0, 100, 0, 80];
        let whole = answer(&asked, &[&[&head[..], target.as_wire()].concat()]);
        learn(&mut memo, &asked, &whole, stamp(&zone));
        assert_eq!(ask(&mut memo, &asked), Some(whole));
        assert_eq!(ask(&mut memo, &question(7, "A.demo.svc.cluster.local", 33)), None);
    }

    #[test]
    fn an_answer_is_forgotten_when_its_service_changes() {
        let (mut memo, zone) = (Memo::new(1), zone());
        let asked = question(7, "a.demo.svc.cluster.local", 1);
        learn(&mut memo, &asked, &answer(&asked, &[&address(1)]), stamp(&zone));
        assert!(ask(&mut memo, &asked).is_some());
        let mut next = zone.clone();
        let touched = BTreeSet::from([ObjectName::new("demo", "a")]);
        next.apply(&View::default(), &touched, 1);
        assert!(ask(&mut memo, &asked).is_some(), "nobody can see the new zone yet");
        next.outdate(&zone, &touched);
        assert_eq!(ask(&mut memo, &asked), None);
    }

    #[test]
    fn the_number_of_answers_is_bounded_and_what_is_asked_for_stays() {
        let (mut memo, zone) = (Memo::new(1000), zone());
        let asked = question(7, "a.demo.svc.cluster.local", 1);
        learn(&mut memo, &asked, &answer(&asked, &[&address(1)]), stamp(&zone));
        for number in 0..5 * ANSWERS_MIN {
            let other = question(7, &format!("n{number}.demo.svc.cluster.local"), 1);
            learn(&mut memo, &other, &answer(&other, &[&address(1)]), stamp(&zone));
            assert!(memo.young.len() + memo.old.len() <= ANSWERS_MIN);
            assert!(ask(&mut memo, &asked).is_some());
        }
    }
}
