//! Names outside the cluster: the cache, then the upstream servers, each question asked once at a time.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::timeout;

use crate::{
    cache::{Cache, Key},
    metrics::Metrics,
    relay::{Meaning, Reply},
    upstream::{Inquiry, Upstream},
};

/// How long a client's question may take in all.
const DEADLINE: Duration = Duration::from_secs(5);

/// Every upstream server failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unanswered;

type Outcome = Result<Arc<Reply>, Unanswered>;
type Flight = BoxFuture<'static, Outcome>;

/// Asks upstream servers.
pub(crate) struct Forwarder {
    upstreams: Vec<Upstream>,
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
            upstreams: upstreams.iter().copied().map(Upstream::new).collect(),
            cache: Cache::new(),
            flights: Mutex::default(),
            metrics,
        }
    }

    /// Whether there is anyone to ask.
    pub(crate) fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    pub(crate) fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// An answer that is at hand, and its age in seconds.
    pub(crate) fn cached(&self, inquiry: &Inquiry) -> Option<(Arc<Reply>, u32)> {
        let found = self.cache.get(&key_of(inquiry), Instant::now());
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
            if forwarder.cache.insert(landing.key.clone(), &reply, Instant::now()) {
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
        let doubtful = |upstream: &&Upstream| upstream.is_doubtful();
        let (last, first): (Vec<_>, Vec<_>) = self.upstreams.iter().partition(doubtful);
        for upstream in first.into_iter().chain(last) {
            match upstream.ask(inquiry).await {
                Ok(reply) => return Ok(Arc::new(reply)),
                Err(error) => {
                    tracing::debug!(upstream = %upstream.address, name = %inquiry.question.name, %error, "upstream DNS server failed");
                }
            }
        }
        Err(Unanswered)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.forwarder.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
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
