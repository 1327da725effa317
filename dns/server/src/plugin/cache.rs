//! `cache [TTL] [ZONE…] [{ … }]`: keeps answers of others.
//!
//! Answers that follow the cluster are never kept: they would only become stale. A failure is kept for some seconds,
//! so that it does not become a storm. An answer that expired may still be given, marked by its TTL, while a fresh one
//! is fetched (RFC 8767).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fairlead_zone::{Class, Rcode, RecordType};
use futures::FutureExt;
use tokio::time::timeout;

use super::{Plugins, Setup, once};
use crate::{
    cache::{Cache, Kept, Key},
    chain::{Aging, Body, Lasting, Next, Plugin, Query, Response, Serving, Zones},
    codec,
    corefile::{CorefileError, Directive},
    generation::Background,
    metrics::{Counter, Family, Registry},
    relay::{Meaning, Reply},
};

mod options;

use options::{Options, Stale};

const ENTRIES: Family =
    Family { name: "coredns_cache_entries", help: "The number of elements in the cache." };
const HITS: Family = Family { name: "coredns_cache_hits_total", help: "The count of cache hits." };
const MISSES: Family = Family {
    name: "coredns_cache_misses_total",
    help: "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.",
};
const REQUESTS: Family =
    Family { name: "coredns_cache_requests_total", help: "The count of cache requests." };
const PREFETCHES: Family = Family {
    name: "coredns_cache_prefetch_total",
    help: "The number of times the cache has prefetched a cached item.",
};
const DROPS: Family = Family {
    name: "coredns_cache_drops_total",
    help: "The number responses that are not cached, because the reply is malformed.",
};
const STALE: Family = Family {
    name: "coredns_cache_served_stale_total",
    help: "The number of requests served from stale cache entries.",
};
const EVICTIONS: Family =
    Family { name: "coredns_cache_evictions_total", help: "The count of cache evictions." };

struct Caching {
    zones: Zones,
    options: Options,
    stores: Arc<Stores>,
    background: Background,
}

/// What is kept, and what is known about it; shared with what runs in the background.
struct Stores {
    success: Arc<Cache>,
    denial: Arc<Cache>,
    /// Being refreshed.
    refreshing: Mutex<HashSet<Key>>,
    /// How often an entry was asked for lately: for prefetching only.
    popular: Mutex<HashMap<Key, (u32, Instant)>>,
    meters: Meters,
}

struct Meters {
    hits: [Arc<Counter>; 2],
    evictions: [Arc<Counter>; 2],
    misses: Arc<Counter>,
    requests: Arc<Counter>,
    prefetches: Arc<Counter>,
    drops: Arc<Counter>,
    stale: Arc<Counter>,
}

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let (zones, options) = options::read(setup, directive)?;
    let shown = zones.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (success, denial) =
        (Arc::new(Cache::new(options.success.capacity)), Arc::new(Cache::new(options.denial.capacity)));
    let registry = &setup.world.registry;
    let meters = Meters::new(registry, setup.server, &shown);
    for (kind, store) in [("success", &success), ("denial", &denial)] {
        let labels = [("server", setup.server), ("type", kind), ("view", ""), ("zones", &*shown)];
        let store = Arc::downgrade(store);
        registry.read(&ENTRIES, &labels, move || store.upgrade().map_or(0, |store| store.len() as u64));
    }
    let stores = Stores { success, denial, refreshing: Mutex::default(), popular: Mutex::default(), meters };
    let background = setup.parts.background();
    Ok(vec![Arc::new(Caching { zones, options, stores: Arc::new(stores), background })])
}

impl Meters {
    fn new(registry: &Registry, server: &str, zones: &str) -> Self {
        let plain = [("server", server), ("view", ""), ("zones", zones)];
        let typed = |family, kind| {
            registry.counter(family, &[("server", server), ("type", kind), ("view", ""), ("zones", zones)])
        };
        Self {
            hits: ["success", "denial"].map(|kind| typed(&HITS, kind)),
            evictions: ["success", "denial"].map(|kind| typed(&EVICTIONS, kind)),
            misses: registry.counter(&MISSES, &plain),
            requests: registry.counter(&REQUESTS, &plain),
            prefetches: registry.counter(&PREFETCHES, &plain),
            drops: registry.counter(&DROPS, &plain),
            stale: registry.counter(&STALE, &plain),
        }
    }
}

impl Caching {
    fn is_for(&self, query: &Query) -> bool {
        let question = &query.request.question;
        question.class == Class::IN
            && !matches!(question.rtype, RecordType::AXFR | RecordType::IXFR | RecordType::ANY)
            && self.zones.contains(&question.name)
    }

    /// What is kept for a question, and whether as a denial. Something fresh is better than something stale, and
    /// among stale answers one with records is better.
    fn look(&self, key: &Key, now: Instant) -> Option<(Kept, bool)> {
        let (success, denial) = (self.stores.success.get(key), self.stores.denial.get(key));
        let fresh = |kept: &Kept| kept.expires > now;
        match (success, denial) {
            (Some(success), Some(denial)) if fresh(&denial) && !fresh(&success) => Some((denial, true)),
            (Some(success), Some(denial)) if fresh(&denial) && denial.stored > success.stored => {
                Some((denial, true))
            }
            (Some(success), _) => Some((success, false)),
            (None, denial) => denial.map(|denial| (denial, true)),
        }
    }

    fn hit(&self, kept: &Kept, denial: bool, now: Instant) -> Response {
        self.stores.meters.hits[usize::from(denial)].add();
        let age = now.saturating_duration_since(kept.stored).as_secs();
        let keep_ttl = self.options.keep_ttl;
        let age_secs = if keep_ttl { 0 } else { u32::try_from(age).unwrap_or(u32::MAX) };
        let body = Body::Reply { reply: Arc::clone(&kept.reply), age_secs };
        // A prefetch has to see how often an entry is asked for.
        let lasts = self.options.prefetch.is_none() && kept.expires > now;
        let meters = &self.stores.meters;
        let stable = lasts.then(|| {
            Lasting::Kept(Aging {
                since: kept.stored + Duration::from_secs(age_secs.into()),
                expires: kept.expires,
                keep_ttl,
                counters: [Arc::clone(&meters.requests), Arc::clone(&meters.hits[usize::from(denial)])],
            })
        });
        Response { stable, ..body.into() }
    }

    fn stale(&self, kept: &Kept, ttl: Duration) -> Response {
        self.stores.meters.stale.add();
        let ttl_secs = u32::try_from(ttl.as_secs()).unwrap_or(0);
        Body::Reply { reply: Arc::new(kept.reply.with_ttl(ttl_secs)), age_secs: 0 }.into()
    }

    /// Counts a hit and says whether the entry is popular and about to expire.
    fn wants_prefetch(&self, key: &Key, kept: &Kept, now: Instant) -> bool {
        let Some(prefetch) = &self.options.prefetch else { return false };
        let mut popular = self.stores.popular.lock().unwrap_or_else(PoisonError::into_inner);
        if popular.len() >= self.options.success.capacity {
            popular.retain(|_, (_, last)| now.saturating_duration_since(*last) < prefetch.within);
        }
        let (hits, last) = popular.entry(key.clone()).or_insert((0, now));
        *hits = if now.saturating_duration_since(*last) < prefetch.within { *hits + 1 } else { 1 };
        *last = now;
        let (whole, left) = (kept.expires - kept.stored, kept.expires.saturating_duration_since(now));
        *hits >= prefetch.hits
            && left.as_secs_f64() <= whole.as_secs_f64() * f64::from(prefetch.percent) / 100.0
    }

    /// Asks the plugins behind in the background, once at a time for each question.
    fn refresh(&self, key: &Key, query: &Query, next: Next<'_>) -> bool {
        let first = self.stores.refreshing.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        if !first {
            return false;
        }
        let (block, at) = next.detach();
        let (stores, options) = (Arc::clone(&self.stores), self.options.clone());
        let (own, key, mut query) = (key.clone(), key.clone(), query.clone());
        let task = async move {
            let response = Next::resume(&block, at).serve(&mut query).await;
            stores.keep(&key, &query, response, &options, true);
            stores.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        };
        let started = self.background.start(task.boxed());
        if !started {
            self.stores.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
        }
        started
    }

    async fn miss(&self, key: &Key, query: &mut Query, next: Next<'_>) -> Response {
        self.stores.meters.misses.add();
        let response = next.serve(query).await;
        self.stores.keep(key, query, response, &self.options, false)
    }

    /// An expired answer, or a fresh one if that comes in time.
    async fn serve_stale(&self, key: Key, kept: Kept, query: &mut Query, next: Next<'_>) -> Response {
        match self.options.stale.as_ref().map(|stale| stale.verify) {
            Some(Some(patience)) => {
                let fresh = timeout(patience, self.miss(&key, query, next)).await;
                match fresh {
                    Ok(response) if response.rcode() != Rcode::SERV_FAIL => return response,
                    // The client's answer does not end the question that is on its way.
                    Err(_) => {
                        self.refresh(&key, query, next);
                    }
                    Ok(_) => {}
                }
                query.error = None;
            }
            _ => {
                self.refresh(&key, query, next);
            }
        }
        query.answered_by = "cache";
        self.stale(&kept, self.options.stale.as_ref().map_or(Duration::ZERO, |stale| stale.ttl))
    }
}

impl Stores {
    /// Keeps an answer, if it is one to keep, and gives what the client gets.
    fn keep(
        &self,
        key: &Key,
        query: &Query,
        response: Response,
        options: &Options,
        refresh: bool,
    ) -> Response {
        let reply = match &response.body {
            Body::Message(message) if message.live => return response,
            Body::Message(message) => {
                let mut bytes = Vec::new();
                let request = codec::Request { edns: None, ..query.request.clone() };
                codec::encode(&mut bytes, &request, message, true, codec::TCP_MAX);
                match Reply::parse(&bytes, request.id, &request.question) {
                    Ok(reply) => Arc::new(reply),
                    Err(_) => {
                        self.meters.drops.add();
                        return response;
                    }
                }
            }
            Body::Reply { reply, .. } => Arc::clone(reply),
            Body::Transfer(_) | Body::Silence => return response,
        };
        if reply.truncated() {
            return response;
        }
        let natural = Duration::from_secs(reply.keep_secs.into());
        let denial = reply.meaning != Meaning::Success;
        let limits = if denial { &options.denial } else { &options.success };
        let keep = match (reply.meaning, reply.rcode()) {
            (Meaning::Failure, Rcode::SERV_FAIL | Rcode::NOT_IMP) => options.failure,
            (Meaning::Failure, _) => Duration::ZERO,
            _ if limits.disabled.contains(query.name()) => Duration::ZERO,
            _ => natural.clamp(limits.ttl_min.min(limits.ttl_max), limits.ttl_max),
        };
        // A failed refresh must not shadow the stale answer that it was to replace.
        if keep.is_zero() || (refresh && reply.meaning == Meaning::Failure) {
            return response;
        }
        let ttl_secs = u32::try_from(keep.as_secs()).unwrap_or(u32::MAX);
        let shown =
            if reply.meaning == Meaning::Failure { reply } else { Arc::new(reply.with_ttl(ttl_secs)) };
        let store = if denial { &self.denial } else { &self.success };
        if store.insert(key.clone(), Arc::clone(&shown), keep, Instant::now()) {
            self.meters.evictions[usize::from(denial)].add();
        }
        if !denial {
            self.denial.remove(key);
        }
        match response.body {
            Body::Reply { age_secs: 0, .. } => {
                Response { body: Body::Reply { reply: shown, age_secs: 0 }, ..response }
            }
            _ => response,
        }
    }
}

impl Plugin for Caching {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        if !self.is_for(query) {
            return next.serve(query);
        }
        let key = Key {
            name: query.name().to_lower_wire(),
            rtype: query.rtype(),
            dnssec_ok: query.request.dnssec_ok(),
            checking_disabled: query.request.checking_disabled,
        };
        let now = Instant::now();
        self.stores.meters.requests.add();
        let stale_max = self.options.stale.as_ref().map_or(Duration::ZERO, |stale: &Stale| stale.up_to);
        match self.look(&key, now) {
            // It was asked for a moment ago and failed: what is stale is better still.
            Some((kept, true))
                if kept.expires > now && kept.reply.meaning == Meaning::Failure && !stale_max.is_zero() =>
            {
                let stale = self.stores.success.get(&key).filter(|stale| stale.expires + stale_max > now);
                let ttl = self.options.stale.as_ref().map_or(Duration::ZERO, |stale| stale.ttl);
                query.answered_by = "cache";
                let response =
                    stale.map_or_else(|| self.hit(&kept, true, now), |stale| self.stale(&stale, ttl));
                std::future::ready(response).boxed()
            }
            Some((kept, denial)) if kept.expires > now => {
                if self.wants_prefetch(&key, &kept, now) && self.refresh(&key, query, next) {
                    self.stores.meters.prefetches.add();
                }
                query.answered_by = "cache";
                std::future::ready(self.hit(&kept, denial, now)).boxed()
            }
            Some((kept, false)) if kept.expires + stale_max > now => {
                self.serve_stale(key, kept, query, next).boxed()
            }
            _ => async move { self.miss(&key, query, next).await }.boxed(),
        }
    }
}
