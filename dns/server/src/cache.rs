//! A bounded cache of replies from upstream servers. Answers of the cluster's own zone are never in it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fairlead_zone::RecordType;

use crate::relay::Reply;

/// Number of independently locked parts.
const SHARDS: usize = 64;
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

/// A reply that was kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) reply: Arc<Reply>,
    pub(crate) stored: Instant,
    pub(crate) expires: Instant,
}

/// The cache. It bounds how much is kept and knows nothing about when a reply may be used.
pub(crate) struct Cache {
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<Key, Kept>>]>,
    shard_entries_max: usize,
}

impl Cache {
    /// For a number of replies.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_entries_max: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// A reply, whether it has expired or not.
    pub(crate) fn get(&self, key: &Key) -> Option<Kept> {
        self.shard(key).get(key).cloned()
    }

    /// Keeps a reply for some time; says whether another one that was still good had to go.
    pub(crate) fn insert(&self, key: Key, reply: Arc<Reply>, keep: Duration, now: Instant) -> bool {
        let mut shard = self.shard(&key);
        let full = shard.len() >= self.shard_entries_max && !shard.contains_key(&key);
        let mut evicted = false;
        if full {
            let sample = shard.iter().take(EVICTION_SAMPLE);
            let first = sample.min_by_key(|(_, kept)| kept.expires);
            if let Some((key, kept)) = first.map(|(key, kept)| (key.clone(), kept.expires)) {
                evicted = kept > now;
                shard.remove(&key);
            }
        }
        shard.insert(key, Kept { reply, stored: now, expires: now + keep });
        evicted
    }

    /// Forgets a reply.
    pub(crate) fn remove(&self, key: &Key) {
        self.shard(key).remove(key);
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Kept>> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
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

    const KEEP: Duration = Duration::from_secs(30);

    #[test]
    fn a_reply_is_kept_with_its_times_until_it_is_removed() {
        let cache = Cache::new(100);
        let now = Instant::now();
        assert!(!cache.insert(key("a"), reply(30), KEEP, now));
        let kept = cache.get(&key("A")).unwrap();
        assert_eq!((kept.stored, kept.expires), (now, now + KEEP));
        cache.remove(&key("a"));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn questions_differ_by_type_and_dnssec_bits() {
        let cache = Cache::new(100);
        cache.insert(key("a"), reply(30), KEEP, Instant::now());
        for other in [
            Key { rtype: RecordType::AAAA, ..key("a") },
            Key { dnssec_ok: true, ..key("a") },
            Key { checking_disabled: true, ..key("a") },
        ] {
            assert!(cache.get(&other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_what_expires_first_goes_first() {
        let cache = Cache::new(640);
        let now = Instant::now();
        let reply = reply(30);
        let insert =
            |index: u32, keep| cache.insert(key(&format!("n{index}")), Arc::clone(&reply), keep, now);
        let evicted = (0..3000).filter(|index| insert(*index, Duration::ZERO)).count();
        assert_eq!(evicted, 0, "what has expired is not missed");
        assert!(cache.len() <= 640);
        let evicted = (3000..9000).filter(|index| insert(*index, KEEP)).count();
        assert!(evicted > 5000 && cache.len() <= 640);
    }
}
