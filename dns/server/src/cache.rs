//! A bounded cache of replies from upstream servers. Answers of the cluster's own zone are never in it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fairlead_zone::RecordType;

use crate::relay::Reply;

/// Number of independently locked parts.
const SHARDS: usize = 16;
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
    shards: [Mutex<HashMap<Key, Kept>>; SHARDS],
    shard_max: usize,
}

/// A reply that is kept.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) reply: Arc<Reply>,
    pub(crate) stored: Instant,
    /// It may be kept longer, in case there is nothing better.
    pub(crate) expires: Instant,
}

impl Cache {
    /// For a number of entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { hasher: RandomState::new(), shards: Default::default(), shard_max: capacity.div_ceil(SHARDS) }
    }

    /// What is kept, whether it expired or not.
    pub(crate) fn get(&self, key: &Key) -> Option<Kept> {
        self.shard(key).lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Keeps a reply for some time; says whether another one had to go.
    pub(crate) fn insert(&self, key: Key, reply: Arc<Reply>, keep: Duration, now: Instant) -> bool {
        if reply.size() > REPLY_SIZE_MAX {
            return false;
        }
        let entry = Kept { reply, stored: now, expires: now + keep };
        let mut shard = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        let full = shard.len() >= self.shard_max && !shard.contains_key(&key);
        if full {
            let sample = shard.iter().take(EVICTION_SAMPLE);
            let oldest = sample.min_by_key(|(_, entry)| entry.expires).map(|(key, _)| key.clone());
            oldest.map(|key| shard.remove(&key));
        }
        shard.insert(key, entry);
        full
    }

    /// Forgets a reply.
    pub(crate) fn remove(&self, key: &Key) {
        self.shard(key).lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, key: &Key) -> &Mutex<HashMap<Key, Kept>> {
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
    fn questions_differ_by_type_and_dnssec_bits_but_not_by_case() {
        let (cache, now, keep) = (Cache::new(100), Instant::now(), Duration::from_secs(30));
        cache.insert(key("a"), reply(30), keep, now);
        assert!(cache.get(&key("A")).is_some_and(|kept| kept.expires == now + keep));
        for other in [
            Key { rtype: RecordType::AAAA, ..key("a") },
            Key { dnssec_ok: true, ..key("a") },
            Key { checking_disabled: true, ..key("a") },
        ] {
            assert!(cache.get(&other).is_none(), "{other:?}");
        }
        cache.remove(&key("a"));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let (cache, now) = (Cache::new(9984), Instant::now());
        let reply = reply(30);
        let insert = |index: &u32| {
            cache.insert(key(&format!("n{index}")), Arc::clone(&reply), Duration::from_secs(30), now)
        };
        let evicted = (0..30_000).filter(insert).count();
        assert_eq!(cache.len() + evicted, 30_000);
        assert!(cache.len() <= 9984);
    }
}
