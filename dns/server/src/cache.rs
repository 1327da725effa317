//! A bounded cache of replies from upstream servers. Answers of the cluster's own zone are never in it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fairlead_zone::RecordType;

use crate::relay::{Meaning, Reply};

/// Number of independently locked parts.
const SHARDS: usize = 16;
/// Entries per part: 9984 in all, CoreDNS's number.
const SHARD_ENTRIES_MAX: usize = 624;
/// Larger replies are rare and not worth the memory.
const REPLY_SIZE_MAX: usize = 4096;
/// Entries looked at to find one to evict.
const EVICTION_SAMPLE: usize = 8;

/// What makes two questions the same for an upstream server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// Name in lower case, in wire form.
    pub(crate) name: Box<[u8]>,
    pub(crate) rtype: RecordType,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

/// The cache.
pub(crate) struct Cache {
    hasher: RandomState,
    shards: [Mutex<HashMap<Key, Entry>>; SHARDS],
}

struct Entry {
    reply: Arc<Reply>,
    stored: Instant,
    expires: Instant,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: Default::default() }
    }

    /// A reply that may still be used, and its age in seconds.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<(Arc<Reply>, u32)> {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.get(key)?;
        if entry.expires <= now {
            shard.remove(key);
            return None;
        }
        let age = now.saturating_duration_since(entry.stored).as_secs();
        Some((Arc::clone(&entry.reply), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps a reply as long as it allows; says whether another one had to go.
    pub(crate) fn insert(&self, key: Key, reply: &Arc<Reply>, now: Instant) -> bool {
        if reply.keep_secs == 0 || reply.size() > REPLY_SIZE_MAX {
            return false;
        }
        let expires = now + Duration::from_secs(reply.keep_secs.into());
        let entry = Entry { reply: Arc::clone(reply), stored: now, expires };
        let mut shard = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        let full = shard.len() >= SHARD_ENTRIES_MAX && !shard.contains_key(&key);
        if full {
            let sample = shard.iter().take(EVICTION_SAMPLE);
            let oldest = sample.min_by_key(|(_, entry)| entry.expires).map(|(key, _)| key.clone());
            oldest.map(|key| shard.remove(&key));
        }
        shard.insert(key, entry);
        full
    }

    /// Number of entries that are successes and denials.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let mut sizes = (0, 0);
        for shard in &self.shards {
            for entry in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                match entry.reply.meaning {
                    Meaning::Success => sizes.0 += 1,
                    Meaning::Denial | Meaning::Failure => sizes.1 += 1,
                }
            }
        }
        sizes
    }

    fn shard(&self, key: &Key) -> &Mutex<HashMap<Key, Entry>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use fairlead_zone::{Class, Name, Question};

    use super::*;

    fn key(name: &str) -> Key {
        let name = Name::parse(name).unwrap().to_lower_wire();
        Key { name, rtype: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }

    /// An answer with one address of a TTL.
    fn reply(ttl_secs: u8) -> Arc<Reply> {
        let head = [0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl_secs, 0, 4, 192, 0, 2, 1];
        let question = Question { name: Name::parse("a").unwrap(), rtype: RecordType::A, class: Class::IN };
        Arc::new(Reply::parse(&[&head[..], &record].concat(), 7, &question).unwrap())
    }

    #[test]
    fn a_reply_ages_and_is_gone_when_its_time_is_up() {
        let cache = Cache::new();
        let start = Instant::now();
        let after = |seconds| cache.get(&key("a"), start + Duration::from_secs(seconds)).map(|(_, age)| age);
        assert!(!cache.insert(key("a"), &reply(30), start));
        assert_eq!((after(0), after(29)), (Some(0), Some(29)));
        assert_eq!(cache.sizes(), (1, 0));
        assert_eq!(after(30), None);
        assert_eq!(cache.sizes(), (0, 0));
    }

    #[test]
    fn questions_differ_by_type_and_dnssec_bits_but_not_by_case() {
        let cache = Cache::new();
        let now = Instant::now();
        cache.insert(key("a"), &reply(30), now);
        assert!(cache.get(&key("A"), now).is_some());
        for other in [
            Key { rtype: RecordType::AAAA, ..key("a") },
            Key { dnssec_ok: true, ..key("a") },
            Key { checking_disabled: true, ..key("a") },
        ] {
            assert!(cache.get(&other, now).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let cache = Cache::new();
        let now = Instant::now();
        let reply = reply(30);
        let evicted =
            (0..30_000).filter(|index| cache.insert(key(&format!("n{index}")), &reply, now)).count();
        assert_eq!(cache.sizes().0 + evicted, 30_000);
        assert!(cache.sizes().0 <= SHARDS * SHARD_ENTRIES_MAX);
    }
}
