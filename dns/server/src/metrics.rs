//! Counters, gauges and histograms under CoreDNS's names, so that its dashboards and alerts work.
//!
//! Every label has a fixed set of values; nothing that a client sends becomes a label. A metric lives as long as the
//! process: a reloaded Corefile goes on counting where the old one was.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

mod ledger;
mod site;
mod text;

pub(crate) use ledger::{Ledger, Line, Tally};
pub(crate) use site::{Place, SiteMetrics};

/// Upper bounds in seconds: CoreDNS's 16 buckets from a quarter of a millisecond, each twice the last.
const DURATION_BOUNDS: [f64; 16] = [
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];
/// Upper bounds in bytes: CoreDNS's.
const SIZE_BOUNDS: [f64; 14] = [
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16_000.0, 32_000.0, 48_000.0,
    64_000.0,
];

/// How a question came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
    Https,
    Quic,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Address of the client.
    pub(crate) peer: SocketAddr,
    /// Address that was asked.
    pub(crate) local: SocketAddr,
    pub(crate) transport: Transport,
}

/// A metric's name and what it says.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
}

/// A counter.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

/// A value that goes up and down.
#[derive(Default)]
pub(crate) struct Gauge(AtomicU64);

/// A histogram with fixed bounds.
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One per bound and one above them all.
    buckets: Box<[Counter]>,
    /// In nanoseconds or bytes.
    sum: Counter,
    /// What the sum is divided by to get the unit of the bounds.
    scale: f64,
}

/// All metrics of the process.
#[derive(Default)]
pub(crate) struct Registry {
    families: Mutex<BTreeMap<&'static str, (&'static Family, Rows)>>,
    sites: Mutex<BTreeMap<(String, String), Arc<SiteMetrics>>>,
}

/// By labels as they are written.
type Rows = BTreeMap<String, Value>;

enum Value {
    Counter(Arc<Counter>),
    Gauge(Arc<Gauge>),
    Histogram(Arc<Histogram>),
    /// A gauge that is read when it is asked for.
    Read(Reader),
    /// The same with a counter.
    ReadCounter(Reader),
}

type Reader = Box<dyn Fn() -> u64 + Send>;

impl Transport {
    /// What it runs over, as CoreDNS counts it: 0 for UDP, 1 for TCP.
    pub(crate) fn base(self) -> usize {
        usize::from(self != Self::Udp)
    }
}

impl Counter {
    pub(crate) fn add(&self) {
        self.add_many(1);
    }

    /// Nothing costs nothing.
    pub(crate) fn add_many(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl Histogram {
    pub(crate) fn durations() -> Self {
        Self::new(&DURATION_BOUNDS, 1e9)
    }

    pub(crate) fn sizes() -> Self {
        Self::new(&SIZE_BOUNDS, 1.0)
    }

    fn new(bounds: &'static [f64], scale: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, buckets, sum: Counter::default(), scale }
    }

    /// Counts a duration.
    pub(crate) fn observe_duration(&self, duration: Duration) {
        self.observe_durations(duration, 1);
    }

    /// Counts something that took so long that many times.
    pub(crate) fn observe_durations(&self, duration: Duration, count: u64) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < duration.as_secs_f64());
        self.buckets[bucket].add_many(count);
        self.sum.add_many(nanoseconds.saturating_mul(count));
    }

    /// Counts values that somebody counted already.
    fn add(&self, buckets: &[u64], sum: u64) {
        self.buckets.iter().zip(buckets).for_each(|(bucket, count)| bucket.add_many(*count));
        self.sum.add_many(sum);
    }
}

impl Registry {
    /// The counter with these labels.
    pub(crate) fn counter(&self, family: &'static Family, labels: &[(&str, &str)]) -> Arc<Counter> {
        let mut found = None;
        self.with(family, labels, |value| match value {
            Some(Value::Counter(counter)) => found = Some(Arc::clone(counter)),
            value => *value = Some(Value::Counter(Arc::clone(found.insert(Arc::default())))),
        });
        found.unwrap_or_default()
    }

    /// The gauge with these labels.
    pub(crate) fn gauge(&self, family: &'static Family, labels: &[(&str, &str)]) -> Arc<Gauge> {
        let mut found = None;
        self.with(family, labels, |value| match value {
            Some(Value::Gauge(gauge)) => found = Some(Arc::clone(gauge)),
            value => *value = Some(Value::Gauge(Arc::clone(found.insert(Arc::default())))),
        });
        found.unwrap_or_default()
    }

    /// The histogram of durations with these labels.
    pub(crate) fn durations(&self, family: &'static Family, labels: &[(&str, &str)]) -> Arc<Histogram> {
        let mut found = None;
        self.with(family, labels, |value| match value {
            Some(Value::Histogram(histogram)) => found = Some(Arc::clone(histogram)),
            value => {
                let new = Arc::new(Histogram::durations());
                *value = Some(Value::Histogram(Arc::clone(found.insert(new))));
            }
        });
        found.unwrap_or_else(|| Arc::new(Histogram::durations()))
    }

    /// A gauge that is read when it is asked for; it replaces the one with the same labels.
    pub(crate) fn read(
        &self,
        family: &'static Family,
        labels: &[(&str, &str)],
        read: impl Fn() -> u64 + Send + 'static,
    ) {
        self.with(family, labels, |value| *value = Some(Value::Read(Box::new(read))));
    }

    /// A counter that is kept elsewhere; it replaces the one with the same labels.
    pub(crate) fn read_counter(
        &self,
        family: &'static Family,
        labels: &[(&str, &str)],
        read: impl Fn() -> u64 + Send + 'static,
    ) {
        self.with(family, labels, |value| *value = Some(Value::ReadCounter(Box::new(read))));
    }

    /// The counters of a zone on a listener.
    pub(crate) fn site(&self, server: &str, zone: &str) -> Arc<SiteMetrics> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_owned(), zone.to_owned());
        Arc::clone(sites.entry(key).or_insert_with(|| Arc::new(SiteMetrics::new(server, zone))))
    }

    fn with(&self, family: &'static Family, labels: &[(&str, &str)], edit: impl FnOnce(&mut Option<Value>)) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, rows) = families.entry(family.name).or_insert_with(|| (family, Rows::new()));
        let key = labels.join(",");
        let mut value = rows.remove(&key);
        edit(&mut value);
        rows.extend(value.map(|value| (key, value)));
    }
}
