//! Names outside the cluster: the cache, then the upstream servers, each question asked once at a time.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::timeout;

use crate::{
    cache::{Cache, Key},
    metrics::{Histogram, Metrics},
    relay::{Meaning, Reply},
    upstream::{Inquiry, Upstream, UpstreamConfig, UpstreamTransport, Via},
};

/// How long a client's question may take in all.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a server that failed is asked last.
const PENALTY: Duration = Duration::from_secs(5);
/// Answers that are kept; CoreDNS's number.
const CAPACITY: usize = 9984;

/// Every upstream server failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unanswered;

type Outcome = Result<Arc<Reply>, Unanswered>;
type Flight = BoxFuture<'static, Outcome>;

/// Asks upstream servers.
pub(crate) struct Forwarder {
    upstreams: Vec<Upstream>,
    durations: Vec<Histogram>,
    /// Until when each is asked last, because it failed.
    doubtful_until: Vec<Mutex<Instant>>,
    cache: Cache,
    /// Questions that are being asked. An entry whose askers are all gone cannot be joined any more.
    flights: Mutex<HashMap<Key, WeakShared<Flight>>>,
    metrics: Arc<Metrics>,
}

/// Takes a question off the list when it is answered or given up.
struct Landing {
    forwarder: Arc<Forwarder>,
    key: Key,
}

impl Forwarder {
    pub(crate) fn new(upstreams: &[SocketAddr], metrics: Arc<Metrics>) -> Self {
        Self {
            upstreams: upstreams.iter().map(|address| Upstream::new(config(*address))).collect(),
            doubtful_until: upstreams.iter().map(|_| Mutex::new(Instant::now())).collect(),
            durations: upstreams.iter().map(|_| Histogram::durations()).collect(),
            cache: Cache::new(CAPACITY),
            flights: Mutex::default(),
            metrics,
        }
    }

    /// Whether there is anyone to ask.
    pub(crate) fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// The upstream servers, and how long their answers took.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (SocketAddr, &Histogram)> {
        self.upstreams.iter().map(Upstream::address).zip(&self.durations)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// An answer that is at hand, and its age in seconds.
    pub(crate) fn cached(&self, inquiry: &Inquiry) -> Option<(Arc<Reply>, u32)> {
        let now = Instant::now();
        let found = self.cache.get(&key_of(inquiry)).filter(|kept| kept.expires > now);
        let found = found.map(|kept| {
            let age = now.saturating_duration_since(kept.stored).as_secs();
            (kept.reply, u32::try_from(age).unwrap_or(u32::MAX))
        });
        self.metrics.cache_requests.add();
        match &found {
            Some((reply, _)) if reply.meaning == Meaning::Success => self.metrics.cache_hits.add(),
            Some(_) => self.metrics.cache_denial_hits.add(),
            None => self.metrics.cache_misses.add(),
        }
        found
    }

    /// Asks the upstream servers, or joins those who are asking the same.
    pub(crate) async fn resolve(self: &Arc<Self>, inquiry: Inquiry) -> Outcome {
        let flight = self.flight(inquiry);
        flight.await
    }

    fn flight(self: &Arc<Self>, inquiry: Inquiry) -> Shared<Flight> {
        let key = key_of(&inquiry);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let landing = Landing { forwarder: Arc::clone(self), key: key.clone() };
        let flight = async move {
            let forwarder = &landing.forwarder;
            let reply = timeout(DEADLINE, forwarder.ask_all(&inquiry)).await.unwrap_or(Err(Unanswered))?;
            let keep = Duration::from_secs(reply.keep_secs.into());
            if !keep.is_zero()
                && forwarder.cache.insert(landing.key.clone(), Arc::clone(&reply), keep, Instant::now())
            {
                forwarder.metrics.cache_evictions.add();
            }
            Ok(reply)
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }

    async fn ask_all(&self, inquiry: &Inquiry) -> Outcome {
        let doubtful = |index: &usize| *self.doubt(*index) > Instant::now();
        let (last, first): (Vec<_>, Vec<_>) = (0..self.upstreams.len()).partition(doubtful);
        for index in first.into_iter().chain(last) {
            let (upstream, durations) = (&self.upstreams[index], &self.durations[index]);
            let began = Instant::now();
            let mut answer = upstream.exchange(inquiry, Via::Udp).await;
            if answer.as_ref().is_ok_and(Reply::truncated) {
                // Without TCP the client still gets the truncated answer and can try TCP itself.
                answer = upstream.exchange(inquiry, Via::Tcp).await.or(answer);
            }
            match answer {
                Ok(reply) => {
                    durations.observe_duration(began.elapsed());
                    return Ok(Arc::new(reply));
                }
                Err(error) => {
                    *self.doubt(index) = Instant::now() + PENALTY;
                    tracing::debug!(upstream = %upstream.address(), name = %inquiry.question.name, %error, "upstream DNS server failed");
                }
            }
        }
        Err(Unanswered)
    }

    fn doubt(&self, index: usize) -> MutexGuard<'_, Instant> {
        self.doubtful_until[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.forwarder.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

fn config(address: SocketAddr) -> UpstreamConfig {
    UpstreamConfig {
        address,
        transport: UpstreamTransport::Plain,
        expire: Duration::from_secs(10),
        read_timeout: Duration::from_secs(2),
        source: None,
        random_case: false,
    }
}

fn key_of(inquiry: &Inquiry) -> Key {
    Key {
        name: inquiry.question.name.to_lower_wire(),
        rtype: inquiry.question.rtype,
        dnssec_ok: inquiry.dnssec_ok,
        checking_disabled: inquiry.checking_disabled,
    }
}
