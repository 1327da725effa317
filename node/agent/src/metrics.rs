//! `/metrics` (Prometheus text format 0.0.4) and `/proxyMode`.
//!
//! A metric is a row of [`METRICS`]. Those that mean what kube-proxy's mean have kube-proxy's names
//! (`pkg/proxy/metrics/metrics.go`). Labels have few values: names of this node's pods, reasons, maps, status codes.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use fairlead_abi::names::{self, MapSpec};
use fairlead_kernel::KernelError;
use jiff::{SignedDuration, Timestamp};

use crate::{
    garbage::Totals,
    health,
    locals::Missing,
    report::{MapFill, PodReport, Reporter},
    resolver::Life,
    stats::{Histogram, SyncStats},
};

/// Everything that is measured, as of one moment.
struct Scrape {
    stats: SyncStats,
    missing: Missing,
    healthz: BTreeMap<u16, u64>,
    livez: BTreeMap<u16, u64>,
    pods: Vec<PodReport>,
    drops: BTreeMap<String, u64>,
    xdp_mode: String,
    xdp_forwarded: u64,
    maps: Vec<MapFill>,
    garbage: Totals,
    sockets_ended: u64,
    events_lost: u64,
    connected: bool,
}

/// Labels with their values, and a number.
type Sample = (Vec<(&'static str, String)>, f64);

/// Where a metric's samples come from.
enum Source {
    /// One number.
    One(fn(&Scrape) -> f64),
    /// One for each combination of labels.
    Many(fn(&Scrape) -> Vec<Sample>),
    /// One for each pod of the node.
    Pod(fn(&PodReport) -> u64),
    /// Buckets, sum and count.
    Histogram(fn(&Scrape) -> &Histogram),
}

use Source::{Histogram as Buckets, Many, One, Pod};

/// Name, type, help, source.
type Metric = (&'static str, &'static str, &'static str, Source);

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

/// What becomes of connections: value of the label, where the number comes from.
type Outcome = (&'static str, fn(&PodReport) -> u64);

const OUTCOMES: [Outcome; 3] = [
    ("opened", |pod| pod.connections_opened),
    ("accepted", |pod| pod.connections_accepted),
    ("refused", |pod| pod.connections_refused),
];

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    ("kubeproxy_sync_proxy_rules_duration_seconds", HISTOGRAM, "Time that applying an update took.", Buckets(|s| &s.stats.syncs)),
    ("kubeproxy_network_programming_duration_seconds", HISTOGRAM, "Time from the change of a pod or service until the kernel had it.", Buckets(|s| &s.stats.programming)),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", GAUGE, "When an update was last applied, since the Unix epoch.", One(|s| unix_secs(s.stats.last_success))),
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", GAUGE, "When an update last arrived, since the Unix epoch.", One(|s| unix_secs(s.stats.last_queued))),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", GAUGE, "Changes of EndpointSlices that are not applied yet.", One(|s| s.stats.endpoint_changes.pending as f64)),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_total", COUNTER, "Changes of EndpointSlices seen.", One(|s| s.stats.endpoint_changes.total as f64)),
    ("kubeproxy_sync_proxy_rules_service_changes_pending", GAUGE, "Changes of Services that are not applied yet.", One(|s| s.stats.service_changes.pending as f64)),
    ("kubeproxy_sync_proxy_rules_service_changes_total", COUNTER, "Changes of Services seen.", One(|s| s.stats.service_changes.total as f64)),
    ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", GAUGE, "Services with a traffic policy Local that have endpoints, but none on this node.", Many(|s| vec![
        (vec![("traffic_policy", "internal".to_owned())], s.missing.internal as f64),
        (vec![("traffic_policy", "external".to_owned())], s.missing.external as f64),
    ])),
    ("kubeproxy_proxy_healthz_total", COUNTER, "Answers of /healthz by HTTP status.", Many(|s| codes(&s.healthz))),
    ("kubeproxy_proxy_livez_total", COUNTER, "Answers of /livez by HTTP status.", Many(|s| codes(&s.livez))),

    ("fairlead_sync_failures_total", COUNTER, "Updates that could not be applied at the first attempt.", One(|s| s.stats.failures as f64)),
    ("fairlead_map_repairs_total", COUNTER, "Times that eBPF maps were found changed by somebody else and were put right.", One(|s| s.stats.repairs as f64)),
    ("fairlead_repairs_total", COUNTER, "eBPF programs, interfaces (the uplink, when another has its name) and kernel parameters that somebody else had removed or changed and that were put right.", One(|s| s.stats.upkeep as f64)),
    ("fairlead_problems", GAUGE, "Objects that are left out because they cannot be programmed; `fairlead status` names them.", One(|s| s.stats.problems.len() as f64)),
    ("fairlead_feed_connected", GAUGE, "Whether the feed is connected.", One(|s| f64::from(u8::from(s.connected)))),
    ("fairlead_feed_revision", GAUGE, "Revision of the feed that is applied.", One(|s| s.stats.revision.sequence as f64)),
    ("fairlead_services", GAUGE, "Frontends programmed.", One(|s| s.stats.usage.frontends as f64)),
    ("fairlead_backends", GAUGE, "Backends programmed.", One(|s| f64::from(s.stats.usage.backends))),
    ("fairlead_map_entries", GAUGE, "Entries of a map in use.", Many(|s| maps(s, |map| map.used))),
    ("fairlead_map_capacity", GAUGE, "Entries a map can hold.", Many(|s| maps(s, |map| map.capacity))),
    ("fairlead_map_evictions_total", COUNTER, "Entries that a map let go of for newer ones.", Many(|s| evictions(&s.garbage))),
    ("fairlead_refused", GAUGE, "Services and pods that a full map keeps from being served completely.", One(|s| s.stats.usage.refused as f64)),
    ("fairlead_routes_refused", GAUGE, "Pod networks that do not fit into the map of routes; the host's stack carries what is sent to them.", One(|s| s.stats.routes_refused as f64)),
    ("fairlead_conntrack_removed_total", COUNTER, "Entries of translated connections that were removed because their time was over.", One(|s| s.garbage.conntrack_removed as f64)),
    ("fairlead_affinity_removed_total", COUNTER, "Clients of services with session affinity that were removed because their time was over.", One(|s| s.garbage.affinity_removed as f64)),
    ("fairlead_masqueraded_connections", GAUGE, "Connections that take a port of the range to masquerade with, as of the last look through the table.", One(|s| s.garbage.last.masqueraded as f64)),
    ("fairlead_udp_sockets_ended_total", COUNTER, "Connected UDP sockets that were ended because their backend had stopped.", One(|s| s.sockets_ended as f64)),
    ("fairlead_dns_resolver_alive", GAUGE, "Whether this node's DNS server shows signs of life; nothing on a node that waits for none.", Many(resolver_alive)),
    ("fairlead_dns_fallbacks_total", COUNTER, "Times that look-ups were led to other nodes' DNS servers because this node's showed no sign of life.", One(|s| s.stats.resolver.fallbacks as f64)),
    ("fairlead_drops_total", COUNTER, "Packets and connections not let through, by reason.", Many(|s| s.drops.iter().map(reason).collect())),
    ("fairlead_xdp_attached", GAUGE, "Where the uplink's driver program runs: mode native, generic or off.", Many(|s| vec![(vec![("mode", s.xdp_mode.clone())], 1.0)])),
    ("fairlead_xdp_forwarded_packets_total", COUNTER, "Packets that the uplink's driver program has sent on to other machines.", One(|s| s.xdp_forwarded as f64)),
    ("fairlead_events_lost_total", COUNTER, "Connection records lost.", One(|s| s.events_lost as f64)),
    ("fairlead_pod_drops_total", COUNTER, "Packets and connections of the pod not let through, by reason.", Many(|s| s.pods.iter().flat_map(pod_drops).collect())),
    ("fairlead_pod_connections_total", COUNTER, "TCP connections of the pod.", Many(|s| s.pods.iter().flat_map(outcomes).collect())),
    ("fairlead_pod_receive_bytes_total", COUNTER, "Bytes delivered to the pod.", Pod(|pod| pod.receive_bytes)),
    ("fairlead_pod_receive_packets_total", COUNTER, "Packets delivered to the pod.", Pod(|pod| pod.receive_packets)),
    ("fairlead_pod_transmit_bytes_total", COUNTER, "Bytes the pod sent.", Pod(|pod| pod.transmit_bytes)),
    ("fairlead_pod_transmit_packets_total", COUNTER, "Packets the pod sent.", Pod(|pod| pod.transmit_packets)),
    ("fairlead_pod_retransmits_total", COUNTER, "TCP segments the pod retransmitted.", Pod(|pod| pod.retransmits)),
];

/// Routes of the metrics endpoint.
pub(crate) fn router(reporter: Arc<Reporter>) -> Router {
    let health = health::router(Arc::clone(&reporter.health));
    Router::new()
        .route("/proxyMode", get(proxy_mode))
        .route("/metrics", get(metrics))
        .with_state(reporter)
        .merge(health)
}

async fn proxy_mode(State(reporter): State<Arc<Reporter>>) -> &'static str {
    reporter.mode.as_str()
}

async fn metrics(State(reporter): State<Arc<Reporter>>) -> Response {
    match Scrape::new(&reporter) {
        Ok(scrape) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], render(&scrape)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

impl Scrape {
    fn new(reporter: &Reporter) -> Result<Self, KernelError> {
        let health = &reporter.health;
        Ok(Self {
            stats: health.stats.read(),
            missing: health.cluster.read(|inner| inner.locals.missing()),
            healthz: health.healthz.read(),
            livez: health.livez.read(),
            pods: reporter.pods()?,
            drops: reporter.drops(None)?,
            xdp_mode: reporter.uplink.borrow().driver.mode.to_string(),
            xdp_forwarded: reporter.counters.carried()?,
            maps: reporter.maps(),
            garbage: *reporter.garbage.borrow(),
            sockets_ended: reporter.sockets_ended.load(Ordering::Relaxed),
            events_lost: reporter.events_lost()?,
            connected: *reporter.feed.borrow() == fairlead_wire::client::ConnectionState::Connected,
        })
    }
}

fn render(scrape: &Scrape) -> String {
    let mut text = String::new();
    for (name, kind, help, source) in METRICS {
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        match source {
            One(value) => write_sample(&mut text, name, &(Vec::new(), value(scrape))),
            Many(samples) => samples(scrape).iter().for_each(|sample| write_sample(&mut text, name, sample)),
            Pod(value) => {
                for pod in &scrape.pods {
                    write_sample(&mut text, name, &(pod_labels(pod), value(pod) as f64));
                }
            }
            Buckets(histogram) => write_histogram(&mut text, name, histogram(scrape)),
        }
    }
    text
}

fn write_histogram(text: &mut String, name: &str, histogram: &Histogram) {
    let buckets = histogram.cumulative().map(|(bound, count)| (bound.to_string(), count));
    for (bound, count) in buckets.chain([("+Inf".to_owned(), histogram.count)]) {
        write_sample(text, &format!("{name}_bucket"), &(vec![("le", bound)], count as f64));
    }
    write_sample(text, &format!("{name}_sum"), &(Vec::new(), histogram.sum));
    write_sample(text, &format!("{name}_count"), &(Vec::new(), histogram.count as f64));
}

fn write_sample(text: &mut String, name: &str, (labels, value): &Sample) {
    let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn codes(answers: &BTreeMap<u16, u64>) -> Vec<Sample> {
    answers.iter().map(|(code, count)| (vec![("code", code.to_string())], *count as f64)).collect()
}

fn maps(scrape: &Scrape, value: fn(&MapFill) -> u64) -> Vec<Sample> {
    scrape.maps.iter().map(|map| (vec![("map", map.name.clone())], value(map) as f64)).collect()
}

fn evictions(garbage: &Totals) -> Vec<Sample> {
    let of_map = |(map, evicted): (MapSpec, u64)| (vec![("map", map.name.to_owned())], evicted as f64);
    names::LRU.into_iter().zip(garbage.evicted).map(of_map).collect()
}

fn resolver_alive(scrape: &Scrape) -> Vec<Sample> {
    let alive = |life| f64::from(u8::from(life == Life::Alive));
    scrape.stats.resolver.life.map(|life| (Vec::new(), alive(life))).into_iter().collect()
}

fn reason((reason, count): (&String, &u64)) -> Sample {
    (vec![("reason", reason.clone())], *count as f64)
}

fn pod_labels(pod: &PodReport) -> Vec<(&'static str, String)> {
    vec![("namespace", pod.namespace.clone()), ("pod", pod.name.clone())]
}

fn pod_drops(pod: &PodReport) -> Vec<Sample> {
    let with_pod = |(mut labels, count): Sample| {
        labels.splice(0..0, pod_labels(pod));
        (labels, count)
    };
    pod.drops.iter().map(reason).map(with_pod).collect()
}

fn outcomes(pod: &PodReport) -> Vec<Sample> {
    let sample = |(outcome, value): Outcome| {
        let mut labels = pod_labels(pod);
        labels.push(("outcome", outcome.to_owned()));
        (labels, value(pod) as f64)
    };
    OUTCOMES.map(sample).to_vec()
}

/// A moment on the wall's clock; 0 when it never was.
fn unix_secs(moment: Option<Instant>) -> f64 {
    let ago = moment.and_then(|moment| SignedDuration::try_from(moment.elapsed()).ok());
    let then = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    then.map_or(0.0, |then| then.as_millisecond() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scrape() -> Scrape {
        let mut stats = SyncStats::default();
        stats.applied(Duration::from_millis(3));
        stats.routes_refused = 3;
        for life in [Life::Alive, Life::Silent, Life::Gone, Life::Alive, Life::Silent] {
            stats.resolver.turn(life);
        }
        let pod = PodReport {
            namespace: "demo".into(),
            name: "web-1".into(),
            uid: "u".into(),
            node: "n".into(),
            addresses: Vec::new(),
            interface: "flp1".into(),
            receive_packets: 1,
            receive_bytes: 2,
            transmit_packets: 3,
            transmit_bytes: 1 << 40,
            connections_opened: 5,
            connections_accepted: 6,
            connections_refused: 7,
            retransmits: 8,
            drops: BTreeMap::from([("no-endpoints".into(), 9)]),
        };
        Scrape {
            garbage: Totals { evicted: [7, 8], ..Totals::default() },
            sockets_ended: 0,
            stats,
            missing: Missing { internal: 1, external: 2 },
            healthz: BTreeMap::from([(200, 4), (503, 1)]),
            livez: BTreeMap::new(),
            pods: vec![pod],
            drops: BTreeMap::from([("no-endpoints".into(), 9)]),
            xdp_mode: "native".into(),
            xdp_forwarded: 12,
            maps: vec![MapFill { name: "SERVICES".into(), used: 2, capacity: 131_072 }],
            events_lost: 0,
            connected: true,
        }
    }

    #[test]
    fn every_kind_of_metric_is_written_as_prometheus_reads_it() {
        let text = render(&scrape());
        for line in [
            "# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.002\"} 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\"} 1",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\"} 1",
            "kubeproxy_sync_proxy_rules_duration_seconds_sum 0.003",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 2",
            "fairlead_dns_resolver_alive 0",
            "fairlead_dns_fallbacks_total 2",
            "fairlead_map_evictions_total{map=\"ORIGINS\"} 7",
            "fairlead_map_evictions_total{map=\"FRAGMENTS\"} 8",
            "fairlead_routes_refused 3",
            "fairlead_map_capacity{map=\"SERVICES\"} 131072",
            "fairlead_pod_transmit_bytes_total{namespace=\"demo\",pod=\"web-1\"} 1099511627776",
            "fairlead_pod_drops_total{namespace=\"demo\",pod=\"web-1\",reason=\"no-endpoints\"} 9",
            "fairlead_pod_connections_total{namespace=\"demo\",pod=\"web-1\",outcome=\"refused\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn names_say_the_type_and_are_given_once() {
        for (index, (name, kind, help, _)) in METRICS.iter().enumerate() {
            assert!(METRICS[..index].iter().all(|(other, ..)| other != name), "{name}");
            assert!(help.ends_with('.'), "{name}");
            // kube-proxy calls one gauge a total.
            let total = name.ends_with("_total") && !name.ends_with("no_local_endpoints_total");
            assert_eq!(*kind == COUNTER, total, "{name}");
        }
    }

    #[test]
    fn every_metric_is_in_the_guide() {
        let guide = include_str!("../../../docs/guides/metrics.md");
        for (name, _, help, _) in METRICS {
            assert!(guide.contains(&format!("| `{name}` |")), "docs/guides/metrics.md lacks {name}: {help}");
        }
    }
}
