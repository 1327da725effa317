//! What CoreDNS's `prometheus` plugin counts for a zone of a server block.

use std::{net::IpAddr, time::Duration};

use fairlead_zone::{Rcode, RecordType};

use super::{Counter, Histogram, SIZE_BOUNDS, Transport};

/// Types that have a label of their own; CoreDNS's list.
pub(super) const TYPES: [RecordType; 19] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::DNSKEY,
    RecordType::DS,
    RecordType::HTTPS,
    RecordType::MX,
    RecordType::NSEC,
    RecordType::NSEC3,
    RecordType::NS,
    RecordType::PTR,
    RecordType::RRSIG,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::SVCB,
    RecordType::TXT,
    RecordType::AXFR,
    RecordType::IXFR,
    RecordType::ANY,
];
/// Response codes that have a label of their own.
pub(super) const RCODES: [Rcode; 7] = [
    Rcode::NO_ERROR,
    Rcode::FORM_ERR,
    Rcode::SERV_FAIL,
    Rcode::NX_DOMAIN,
    Rcode::NOT_IMP,
    Rcode::REFUSED,
    Rcode::BAD_VERS,
];
pub(super) const OTHER: &str = "other";
/// Plugins that answer, as the `plugin` label; the empty one is nobody.
pub(super) const PLUGINS: [&str; 16] = [
    "",
    "kubernetes",
    "cache",
    "forward",
    "hosts",
    "file",
    "template",
    "rewrite",
    "autopath",
    "acl",
    "dns64",
    "local",
    "any",
    "chaos",
    "whoami",
    "loop",
];

/// The counters.
pub(crate) struct SiteMetrics {
    pub(super) server: String,
    pub(super) zone: String,
    /// By transport, family and type.
    pub(super) requests: [[[Counter; TYPES.len() + 1]; 2]; 2],
    /// By plugin and response code.
    pub(super) responses: [[Counter; RCODES.len() + 1]; PLUGINS.len()],
    pub(super) durations: Histogram,
    /// By transport.
    pub(super) request_sizes: [Histogram; 2],
    pub(super) response_sizes: [Histogram; 2],
    pub(super) dnssec_requests: Counter,
}

/// Which of the counters an answer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    rtype: usize,
    rcode: usize,
    plugin: usize,
    dnssec_ok: bool,
}

/// Answers of one place over one transport, not yet counted.
#[derive(Default)]
pub(crate) struct Sum {
    /// By family of the client.
    answers: [u64; 2],
    request_sizes: Sizes,
    response_sizes: Sizes,
}

#[derive(Default)]
struct Sizes {
    buckets: [u64; SIZE_BOUNDS.len() + 1],
    bytes: u64,
}

impl Place {
    pub(crate) fn new(rtype: RecordType, rcode: Rcode, answered_by: &str, dnssec_ok: bool) -> Self {
        Self {
            rtype: TYPES.iter().position(|known| *known == rtype).unwrap_or(TYPES.len()),
            rcode: RCODES.iter().position(|known| *known == rcode).unwrap_or(RCODES.len()),
            plugin: PLUGINS.iter().position(|known| *known == answered_by).unwrap_or(0),
            dnssec_ok,
        }
    }
}

impl Sum {
    /// One answer more.
    pub(crate) fn add(&mut self, client: IpAddr, request_size: usize, response_size: usize) {
        self.answers[usize::from(!client.to_canonical().is_ipv4())] += 1;
        self.request_sizes.add(request_size);
        self.response_sizes.add(response_size);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.answers() == 0
    }

    pub(crate) fn answers(&self) -> u64 {
        self.answers.iter().sum()
    }
}

impl Sizes {
    fn add(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.buckets[SIZE_BOUNDS.partition_point(|bound| *bound < f64::from(bytes))] += 1;
        self.bytes += u64::from(bytes);
    }
}

impl SiteMetrics {
    pub(super) fn new(server: &str, zone: &str) -> Self {
        Self {
            server: server.into(),
            zone: zone.into(),
            requests: Default::default(),
            responses: Default::default(),
            durations: Histogram::durations(),
            request_sizes: std::array::from_fn(|_| Histogram::sizes()),
            response_sizes: std::array::from_fn(|_| Histogram::sizes()),
            dnssec_requests: Counter::default(),
        }
    }

    /// Counts answers that took equally long.
    pub(crate) fn count(&self, transport: Transport, place: Place, sum: &Sum, took: Duration) {
        let transport = transport.base();
        let answers = sum.answers();
        for (family, answers) in self.requests[transport].iter().zip(sum.answers) {
            family[place.rtype].add_many(answers);
        }
        self.responses[place.plugin][place.rcode].add_many(answers);
        let Sum { request_sizes, response_sizes, .. } = sum;
        self.request_sizes[transport].add(&request_sizes.buckets, request_sizes.bytes);
        self.response_sizes[transport].add(&response_sizes.buckets, response_sizes.bytes);
        self.durations.observe_durations(took, answers);
        if place.dnssec_ok {
            self.dnssec_requests.add_many(answers);
        }
    }
}
