//! Counters and histograms under CoreDNS's names, so that its dashboards and alerts work.
//!
//! Every label has a fixed set of values; nothing that a client sends becomes a label.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use fairlead_zone::{Origin, Rcode, RecordType};

mod text;

/// Types that have a label of their own; CoreDNS's list, shortened to what this server meets.
const TYPES: [(RecordType, &str); 12] = [
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::MX, "MX"),
    (RecordType::NS, "NS"),
    (RecordType::PTR, "PTR"),
    (RecordType::SOA, "SOA"),
    (RecordType::SRV, "SRV"),
    (RecordType::SVCB, "SVCB"),
    (RecordType::TXT, "TXT"),
    (RecordType::ANY, "ANY"),
];
/// Response codes that have a label of their own.
const RCODES: [(Rcode, &str); 7] = [
    (Rcode::NO_ERROR, "NOERROR"),
    (Rcode::FORM_ERR, "FORMERR"),
    (Rcode::SERV_FAIL, "SERVFAIL"),
    (Rcode::NX_DOMAIN, "NXDOMAIN"),
    (Rcode::NOT_IMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::BAD_VERS, "BADVERS"),
];
const OTHER: &str = "other";

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

/// Which names a question is about: the `zone` label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Area {
    /// The cluster domain.
    Cluster,
    /// Our reverse zones.
    Reverse,
    /// Everything else.
    Outside,
}

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

impl Transport {
    /// What it runs over, as CoreDNS counts it: 0 for UDP, 1 for TCP.
    pub(crate) fn base(self) -> usize {
        usize::from(!matches!(self, Self::Udp | Self::Quic))
    }
}

/// A counter.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

/// A histogram with fixed bounds.
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One per bound and one above them all.
    buckets: Box<[AtomicU64]>,
    /// In nanoseconds or bytes.
    sum: AtomicU64,
    /// What the sum is divided by to get the unit of the bounds.
    scale: f64,
}

/// Everything this server counts.
pub(crate) struct Metrics {
    requests: [[[[Counter; TYPES.len() + 1]; 2]; 2]; 3],
    responses: [[Counter; RCODES.len() + 1]; 3],
    durations: [Histogram; 3],
    request_sizes: [[Histogram; 2]; 3],
    response_sizes: [[Histogram; 2]; 3],
    pub(crate) cache_requests: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) cache_denial_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) cache_evictions: Counter,
    pub(crate) forward_rejects: Counter,
    /// Datagrams that are no questions, and answers that could not be sent.
    pub(crate) dropped: Counter,
    /// Updates of the cluster that were applied.
    pub(crate) updates: Counter,
    /// The `server` label: scheme and port.
    server: String,
    /// The `zone` label of each area.
    zones: [String; 3],
}

impl From<Origin> for Area {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Cluster => Self::Cluster,
            Origin::Reverse => Self::Reverse,
        }
    }
}

impl Counter {
    /// Counts one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Histogram {
    /// For durations.
    pub(crate) fn durations() -> Self {
        Self::new(&DURATION_BOUNDS, 1e9)
    }

    fn sizes() -> Self {
        Self::new(&SIZE_BOUNDS, 1.0)
    }

    fn new(bounds: &'static [f64], scale: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0), scale }
    }

    /// Counts a duration.
    pub(crate) fn observe_duration(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.observe(duration.as_secs_f64(), nanoseconds);
    }

    fn observe_size(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.observe(f64::from(bytes), bytes.into());
    }

    fn observe(&self, value: f64, sum: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(sum, Relaxed);
    }
}

impl Metrics {
    /// Counters at zero for a server on a port and its cluster domain.
    pub(crate) fn new(port: u16, cluster_domain: &str) -> Self {
        let sizes = || std::array::from_fn(|_| std::array::from_fn(|_| Histogram::sizes()));
        Self {
            requests: Default::default(),
            responses: Default::default(),
            durations: std::array::from_fn(|_| Histogram::durations()),
            request_sizes: sizes(),
            response_sizes: sizes(),
            cache_requests: Counter::default(),
            cache_hits: Counter::default(),
            cache_denial_hits: Counter::default(),
            cache_misses: Counter::default(),
            cache_evictions: Counter::default(),
            forward_rejects: Counter::default(),
            dropped: Counter::default(),
            updates: Counter::default(),
            server: format!("dns://:{port}"),
            zones: [cluster_domain.into(), "arpa.".into(), ".".into()],
        }
    }

    /// Counts a question.
    pub(crate) fn request(&self, area: Area, client: Client, rtype: Option<RecordType>, size: usize) {
        let index = TYPES.iter().position(|(known, _)| Some(*known) == rtype).unwrap_or(TYPES.len());
        let (area, transport) = (area as usize, client.transport.base());
        self.requests[area][transport][usize::from(!client.peer.is_ipv4())][index].add();
        self.request_sizes[area][transport].observe_size(size);
    }

    /// Counts an answer.
    pub(crate) fn response(&self, area: Area, client: Client, rcode: Rcode, size: usize, took: Duration) {
        let index = RCODES.iter().position(|(known, _)| *known == rcode).unwrap_or(RCODES.len());
        self.responses[area as usize][index].add();
        self.response_sizes[area as usize][client.transport.base()].observe_size(size);
        self.durations[area as usize].observe_duration(took);
    }
}
