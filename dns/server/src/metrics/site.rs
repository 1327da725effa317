//! What CoreDNS's `prometheus` plugin counts for a zone of a server block.

use std::time::Duration;

use fairlead_zone::{Rcode, RecordType};

use super::{Client, Counter, Histogram};

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

/// A question and its answer, as they are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) rtype: RecordType,
    pub(crate) dnssec_ok: bool,
    pub(crate) request_size: usize,
    pub(crate) rcode: Rcode,
    pub(crate) response_size: usize,
    pub(crate) answered_by: &'static str,
    pub(crate) took: Duration,
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

    /// Counts a question with its answer.
    pub(crate) fn record(&self, client: Client, record: &Record) {
        let transport = client.transport.base();
        let family = usize::from(!client.peer.ip().to_canonical().is_ipv4());
        let rtype = TYPES.iter().position(|known| *known == record.rtype).unwrap_or(TYPES.len());
        let rcode = RCODES.iter().position(|known| *known == record.rcode).unwrap_or(RCODES.len());
        let plugin = PLUGINS.iter().position(|known| *known == record.answered_by).unwrap_or(0);
        self.requests[transport][family][rtype].add();
        self.responses[plugin][rcode].add();
        self.request_sizes[transport].observe_size(record.request_size);
        self.response_sizes[transport].observe_size(record.response_size);
        self.durations.observe_duration(record.took);
        if record.dnssec_ok {
            self.dnssec_requests.add();
        }
    }
}
