//! The path of most questions: an answer that was given before, and is still true, is given again.
//!
//! An answer that lasts depends on nothing but its question and the cluster, or the time. It is kept as the bytes that
//! were sent; the next client gets them with its own id, in the case it asked, its addresses shuffled, its TTLs run down.
//! When the service behind it changes, or when it expires, the chain is asked anew: there is no time at which a stale
//! answer is given.
//! Each worker has a memo of its own, so there is nothing to lock.

use std::{hash::BuildHasher, ops::Range, time::Instant};

use fairlead_zone::{RecordType, Stamp};
use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use crate::{
    chain::Lasting,
    codec::{Glance, HEADER_LEN, Key, RawRecord, counts, question_end, u16_at},
};

/// Answers that all workers of a listener together remember, twice: young ones and old ones.
const ANSWERS_MAX: usize = 32_768;
/// Answers that each worker may remember, however many there are.
const ANSWERS_MIN: usize = 2048;
/// Larger answers are not worth their memory.
const ANSWER_LEN_MAX: usize = 1232;

/// Sizes of what a packet begins with, and of what follows the name of its question.
const ID_LEN: usize = 2;
const QUESTION_TAIL_LEN: usize = 4;

/// Record types whose data is a name that is not compressed (RFC 2782): its case would be that of an earlier question.
const SRV: u16 = 33;
const ADDRESSES: [u16; 2] = [1, 28];

/// What one worker remembers; `T` is what an answer is counted as.
pub(crate) struct Memo<T> {
    /// Answers go from young to old when there are too many young ones, and back when they are asked for again; what
    /// nobody asks for falls off the end.
    young: HashTable<Kept<T>>,
    old: HashTable<Kept<T>>,
    hasher: DefaultHashBuilder,
    max: usize,
    /// The chain they are from.
    routes: usize,
    random: Random,
}

/// An answer that was given.
struct Kept<T> {
    /// The key, the answer without its id and its question, and where in a whole answer the TTLs are that run down.
    bytes: Box<[u8]>,
    key_len: u16,
    answer_end: u16,
    good: Good,
    tally: T,
    /// Records that are shuffled.
    run: Option<Run>,
    /// It repeats the name of the question in other places than the question.
    spells_name: bool,
}

/// How long an answer is good.
enum Good {
    /// Until this changes.
    While(Stamp),
    /// For a time.
    Between(Instant, Instant),
}

/// Address records of one size, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    start: u16,
    size: u16,
    count: u16,
}

/// Numbers that need not be secret, only spread (xorshift).
struct Random(u64);

impl<T: Copy> Memo<T> {
    /// For one of several workers.
    pub(crate) fn new(workers: usize) -> Self {
        let max = (ANSWERS_MAX / workers.max(1)).max(ANSWERS_MIN) / 2;
        let random = Random(rand::random::<u64>() | 1);
        let hasher = DefaultHashBuilder::default();
        Self { young: HashTable::new(), old: HashTable::new(), hasher, max, routes: 0, random }
    }

    /// Forgets everything that came from other routes than these, and says whether it did.
    pub(crate) fn follow(&mut self, routes: usize) -> bool {
        let others = self.routes != routes;
        if others {
            self.routes = routes;
            self.young.clear();
            self.old.clear();
        }
        others
    }

    /// Turns a question into its answer, when that is known and still true; gives its length, and what it is counted as.
    pub(crate) fn answer(
        &mut self,
        key: &Key,
        glance: &Glance,
        now: Instant,
        packet: &mut [u8],
    ) -> Option<(usize, T)> {
        let key = key.as_bytes();
        let hash = self.hasher.hash_one(key);
        let kept = match self.young.find(hash, |kept| kept.key() == key) {
            Some(kept) if kept.is_good(now) => kept,
            _ => {
                let entry = self.old.find_entry(hash, |kept| kept.key() == key).ok()?;
                let (kept, _) = entry.remove();
                if !kept.is_good(now) {
                    return None;
                }
                self.put(hash, kept)
            }
        };
        if kept.spells_name && !glance.lower {
            return None;
        }
        let len = kept.write(HEADER_LEN + glance.name_len + QUESTION_TAIL_LEN, glance.size_max, packet)?;
        kept.age(packet, now);
        let (run, tally) = (kept.run, kept.tally);
        if let Some(run) = run {
            run.shuffle(packet, &mut self.random);
        }
        Some((len, tally))
    }

    /// Remembers an answer as it was sent; `rotate` when its addresses are to be shuffled each time.
    pub(crate) fn learn(
        &mut self,
        (key, glance): (&Key, &Glance),
        answer: &[u8],
        rotate: bool,
        (lasting, tally): (&Lasting, T),
    ) {
        // For a client that takes little, additional records may have been left out that others get.
        if answer.len() > ANSWER_LEN_MAX || key.has_edns() && glance.size_max < ANSWER_LEN_MAX {
            return;
        }
        let question_end = HEADER_LEN + glance.name_len + QUESTION_TAIL_LEN;
        let Some(shape) = Shape::of(answer, question_end) else { return };
        if shape.spells_name && !glance.lower {
            return;
        }
        let runs_down = matches!(lasting, Lasting::Kept(aging) if !aging.keep_ttl);
        let ttls: &[u16] = if runs_down { &shape.ttls } else { &[] };
        let ttls: Vec<u8> = ttls.iter().flat_map(|at| at.to_ne_bytes()).collect();
        let key = key.as_bytes();
        let bytes = [key, &answer[ID_LEN..HEADER_LEN], &answer[question_end..]].concat();
        let (Ok(key_len), Ok(answer_end)) = (u16::try_from(key.len()), u16::try_from(bytes.len())) else {
            return;
        };
        let kept = Kept {
            bytes: [bytes, ttls].concat().into(),
            key_len,
            answer_end,
            run: shape.run.filter(|_| rotate),
            spells_name: shape.spells_name,
            good: lasting.into(),
            tally,
        };
        self.put(self.hasher.hash_one(key), kept);
    }

    fn put(&mut self, hash: u64, kept: Kept<T>) -> &Kept<T> {
        if self.young.len() >= self.max {
            self.old = std::mem::take(&mut self.young);
        }
        let hasher = |kept: &Kept<T>| self.hasher.hash_one(kept.key());
        match self.young.entry(hash, |known| known.key() == kept.key(), hasher) {
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = kept;
                entry.into_mut()
            }
            Entry::Vacant(entry) => entry.insert(kept).into_mut(),
        }
    }
}

impl From<&Lasting> for Good {
    fn from(lasting: &Lasting) -> Self {
        match lasting {
            Lasting::Cluster(stamp) => Self::While(stamp.clone()),
            Lasting::Kept(aging) => Self::Between(aging.since, aging.expires),
        }
    }
}

impl<T> Kept<T> {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len.into()]
    }

    fn is_good(&self, now: Instant) -> bool {
        match &self.good {
            Good::While(stamp) => stamp.is_current(),
            Good::Between(_, expires) => *expires > now,
        }
    }

    /// Writes the answer around the id and the question that a packet has, when it is not too large; gives its length.
    fn write(&self, question_end: usize, size_max: usize, packet: &mut [u8]) -> Option<usize> {
        let answer = &self.bytes[self.key_len.into()..self.answer_end.into()];
        let (head, records) = answer.split_at_checked(HEADER_LEN - ID_LEN)?;
        let len = question_end + records.len();
        let answer = packet.get_mut(..len).filter(|_| len <= size_max)?;
        answer[ID_LEN..HEADER_LEN].copy_from_slice(head);
        answer[question_end..].copy_from_slice(records);
        Some(len)
    }

    /// Takes the time since it was written from the TTLs of a copy.
    fn age(&self, answer: &mut [u8], now: Instant) {
        let Good::Between(since, _) = self.good else { return };
        let age = now.saturating_duration_since(since).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let (places, _) = self.bytes[self.answer_end.into()..].as_chunks();
        for at in places.iter().map(|at| usize::from(u16::from_ne_bytes(*at))) {
            if let Some(ttl) = answer.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
            }
        }
    }
}

/// Puts the addresses of an answer in random order.
pub(crate) fn shuffle(answer: &mut [u8]) {
    let shape = question_end(answer).and_then(|end| Shape::of(answer, end));
    if let Some(run) = shape.and_then(|shape| shape.run) {
        run.shuffle(answer, &mut Random(rand::random::<u64>() | 1));
    }
}

/// What an answer is made of, as far as patching it goes.
struct Shape {
    run: Option<Run>,
    spells_name: bool,
    /// Where TTLs are.
    ttls: Vec<u16>,
}

impl Shape {
    /// Walks over the records behind the question.
    fn of(answer: &[u8], question_end: usize) -> Option<Self> {
        let [_, answers, authorities, additionals] = counts(answer)?;
        let mut shape = Self { run: None, spells_name: false, ttls: Vec::new() };
        let mut at = question_end;
        for index in 0..answers + authorities + additionals {
            let record = RawRecord::read(answer, at)?;
            let size = record.end - at;
            let is_pointer = answer[at] >= 0xc0;
            if index < answers && is_pointer && ADDRESSES.contains(&record.rtype.0) {
                match &mut shape.run {
                    // All of one owner, written alike: whatever points to one of them may as well point to another.
                    Some(run)
                        if run.range().end == at
                            && usize::from(run.size) == size
                            && answer[run.range().start..][..4] == answer[at..][..4] =>
                    {
                        run.count += 1;
                    }
                    Some(_) => {}
                    run @ None => {
                        let (start, size) = (u16::try_from(at).ok()?, u16::try_from(size).ok()?);
                        *run = Some(Run { start, size, count: 1 });
                    }
                }
            }
            shape.spells_name |= record.rtype.0 == SRV;
            if record.rtype != RecordType::OPT {
                shape.ttls.push(u16::try_from(record.ttl_at).ok()?);
            }
            at = record.end;
        }
        shape.run = shape.run.filter(|run| run.count > 1);
        // Records end where the message does.
        (at == answer.len() && u16_at(answer, 4)? == 1).then_some(shape)
    }
}

impl Run {
    fn range(self) -> Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.size) * usize::from(self.count)
    }

    /// Puts the records in random order (Fisher and Yates).
    fn shuffle(self, answer: &mut [u8], random: &mut Random) {
        let (records, size) = (&mut answer[self.range()], usize::from(self.size));
        for last in (1..usize::from(self.count)).rev() {
            let other = random.below(last + 1);
            if other != last {
                let (head, tail) = records.split_at_mut(last * size);
                head[other * size..][..size].swap_with_slice(&mut tail[..size]);
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
    use std::{collections::BTreeSet, time::Duration};

    use fairlead_model::{ObjectName, View};
    use fairlead_zone::{Name, Question, RecordType, Zone, ZoneConfig};

    use super::*;
    use crate::{chain::Aging, codec::glance};

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

    fn stamp(zone: &Zone) -> Lasting {
        let name = Name::parse("a.demo.svc.cluster.local").unwrap();
        let question = Question { name, rtype: RecordType::A, class: fairlead_zone::Class::IN };
        Lasting::Cluster(zone.stamp(&question))
    }

    /// Asks a memo; gives what it says.
    fn ask(memo: &mut Memo<()>, packet: &[u8]) -> Option<Vec<u8>> {
        ask_at(memo, packet, Instant::now())
    }

    fn ask_at(memo: &mut Memo<()>, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let mut key = Key::new();
        let glanced = glance(packet, &mut key).unwrap();
        let mut buffer = [packet, &[0xff; ANSWER_LEN_MAX]].concat();
        let (len, ()) = memo.answer(&key, &glanced, now, &mut buffer)?;
        buffer.truncate(len);
        Some(buffer)
    }

    fn learn(memo: &mut Memo<()>, packet: &[u8], answer: &[u8], lasting: &Lasting) {
        let mut key = Key::new();
        let glanced = glance(packet, &mut key).unwrap();
        memo.learn((&key, &glanced), answer, true, (lasting, ()));
    }

    #[test]
    fn the_ttls_of_what_the_cache_keeps_run_down_until_it_expires() {
        let asked = question(7, "www.example.org", 1);
        // A TTL of 5, as `address` has it.
        let whole = answer(&asked, &[&address(1), &address(1)]);
        let since = Instant::now();
        let after = |secs| since + Duration::from_secs(secs);
        for (keep_ttl, left) in [(false, 2), (true, 5)] {
            let mut memo = Memo::new(1);
            let aging = Aging { since, expires: after(5), keep_ttl, counters: Default::default() };
            learn(&mut memo, &asked, &whole, &Lasting::Kept(aging));
            assert_eq!(ask_at(&mut memo, &asked, since), Some(whole.clone()));
            let later = ask_at(&mut memo, &asked, after(3)).unwrap();
            assert_eq!([later[asked.len() + 9], later[asked.len() + 25]], [left, left]);
            assert_eq!(ask_at(&mut memo, &asked, after(5)), None);
        }
    }

    #[test]
    fn records_of_different_owners_do_not_change_places() {
        let asked = question(7, "www.example.org", 1);
        let mut other = address(2);
        other[1] = 16;
        let whole = answer(&asked, &[&address(1), &other]);
        for _ in 0..50 {
            let mut shuffled = whole.clone();
            shuffle(&mut shuffled);
            assert_eq!(shuffled, whole);
        }
    }

    #[test]
    fn an_answer_is_given_again_with_the_id_and_the_case_of_who_asks() {
        let (mut memo, zone) = (Memo::new(1), zone());
        let first = question(7, "a.demo.svc.cluster.local", 1);
        assert_eq!(ask(&mut memo, &first), None);
        learn(&mut memo, &first, &answer(&first, &[&address(1)]), &stamp(&zone));
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
        learn(&mut memo, &asked, &whole, &stamp(&zone));
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
        learn(&mut memo, &asked, &whole, &stamp(&zone));
        assert_eq!(ask(&mut memo, &asked), Some(whole));
        assert_eq!(ask(&mut memo, &question(7, "A.demo.svc.cluster.local", 33)), None);
    }

    #[test]
    fn an_answer_is_forgotten_when_its_service_changes() {
        let (mut memo, zone) = (Memo::new(1), zone());
        let asked = question(7, "a.demo.svc.cluster.local", 1);
        learn(&mut memo, &asked, &answer(&asked, &[&address(1)]), &stamp(&zone));
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
        learn(&mut memo, &asked, &answer(&asked, &[&address(1)]), &stamp(&zone));
        for number in 0..5 * ANSWERS_MIN {
            let other = question(7, &format!("n{number}.demo.svc.cluster.local"), 1);
            learn(&mut memo, &other, &answer(&other, &[&address(1)]), &stamp(&zone));
            assert!(memo.young.len() + memo.old.len() <= ANSWERS_MIN);
            assert!(ask(&mut memo, &asked).is_some());
        }
    }
}
