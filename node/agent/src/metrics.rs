//! `/metrics` (Prometheus text format 0.0.4) and `/proxyMode`.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use fairlead_kernel::KernelError;

use crate::{
    health,
    report::{PodReport, Reporter},
    stats::{SyncStats, bucket_bound},
};

/// A metric per pod: name, help, where the number comes from.
type PodMetric = (&'static str, &'static str, fn(&PodReport) -> u64);

#[rustfmt::skip]
const POD_METRICS: &[PodMetric] = &[
    ("fairlead_pod_receive_bytes_total", "Bytes delivered to the pod.", |pod| pod.receive_bytes),
    ("fairlead_pod_receive_packets_total", "Packets delivered to the pod.", |pod| pod.receive_packets),
    ("fairlead_pod_transmit_bytes_total", "Bytes the pod sent.", |pod| pod.transmit_bytes),
    ("fairlead_pod_transmit_packets_total", "Packets the pod sent.", |pod| pod.transmit_packets),
    ("fairlead_pod_retransmits_total", "TCP segments the pod retransmitted.", |pod| pod.retransmits),
];

/// What became of connections: value of the label, where the number comes from.
type ConnectionMetric = (&'static str, fn(&PodReport) -> u64);

const CONNECTION_METRICS: &[ConnectionMetric] = &[
    ("opened", |pod| pod.connections_opened),
    ("accepted", |pod| pod.connections_accepted),
    ("refused", |pod| pod.connections_refused),
];

/// Routes of the metrics endpoint.
pub(crate) fn router(reporter: Arc<Reporter>) -> Router {
    Router::new()
        .route("/proxyMode", get(proxy_mode))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health::healthz))
        .with_state(reporter)
}

async fn proxy_mode(State(reporter): State<Arc<Reporter>>) -> &'static str {
    reporter.mode.as_str()
}

async fn metrics(State(reporter): State<Arc<Reporter>>) -> Response {
    match render(&reporter) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn render(reporter: &Reporter) -> Result<String, KernelError> {
    let mut text = Text::default();
    let stats = reporter.stats.read();
    sync_metrics(&mut text, &stats);
    pod_metrics(&mut text, &reporter.pods()?);

    text.head("fairlead_drops_total", "counter", "Packets and connections not let through, by reason.");
    for (reason, count) in reporter.drops(None)? {
        text.sample("fairlead_drops_total", &format!("{{reason=\"{reason}\"}}"), count);
    }
    text.single("fairlead_events_lost_total", "counter", "Connection records lost.", reporter.events_lost()?);
    text.single("fairlead_services", "gauge", "Frontends programmed.", stats.usage.frontends);
    text.single("fairlead_backends", "gauge", "Backend slots in use.", stats.usage.backends);
    text.head("fairlead_map_capacity", "gauge", "Entries a map can hold.");
    for map in reporter.maps() {
        text.sample("fairlead_map_capacity", &format!("{{map=\"{}\"}}", map.name), map.capacity);
    }
    text.head("fairlead_map_entries", "gauge", "Entries of a map in use.");
    for map in reporter.maps() {
        text.sample("fairlead_map_entries", &format!("{{map=\"{}\"}}", map.name), map.used);
    }
    let connected = *reporter.feed.borrow() == fairlead_wire::client::ConnectionState::Connected;
    text.single("fairlead_feed_connected", "gauge", "Whether the feed is connected.", u8::from(connected));
    Ok(text.0)
}

fn sync_metrics(text: &mut Text, stats: &SyncStats) {
    let name = "kubeproxy_sync_proxy_rules_duration_seconds";
    text.head(name, "histogram", "Time that applying an update took.");
    let mut cumulative = 0;
    for (index, count) in stats.buckets.iter().enumerate() {
        cumulative += count;
        let bound = bucket_bound(index).as_secs_f64();
        text.sample(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), cumulative);
    }
    text.sample(&format!("{name}_bucket"), "{le=\"+Inf\"}", stats.count);
    text.sample(&format!("{name}_sum"), "", stats.sum.as_secs_f64());
    text.sample(&format!("{name}_count"), "", stats.count);
    text.single(
        "fairlead_sync_failures_total",
        "counter",
        "Updates that could not be applied.",
        stats.failures,
    );
    let sequence = stats.revision.sequence;
    text.single("fairlead_feed_revision", "gauge", "Revision of the feed that is applied.", sequence);
}

fn pod_metrics(text: &mut Text, pods: &[PodReport]) {
    for (name, help, value) in POD_METRICS {
        text.head(name, "counter", help);
        for pod in pods {
            let labels = format!("{{namespace=\"{}\",pod=\"{}\"}}", pod.namespace, pod.name);
            text.sample(name, &labels, value(pod));
        }
    }
    let name = "fairlead_pod_connections_total";
    text.head(name, "counter", "TCP connections of the pod.");
    for pod in pods {
        for (outcome, value) in CONNECTION_METRICS {
            let (namespace, pod_name) = (&pod.namespace, &pod.name);
            let labels = format!("{{namespace=\"{namespace}\",pod=\"{pod_name}\",outcome=\"{outcome}\"}}");
            text.sample(name, &labels, value(pod));
        }
    }
}

/// Text that grows. (Writing to a string cannot fail.)
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn histogram_buckets_are_cumulative_and_end_with_all() {
        let mut stats = SyncStats::default();
        for millis in [1, 3, 100_000] {
            stats.observe(Duration::from_millis(millis));
        }
        let mut text = Text::default();
        sync_metrics(&mut text, &stats);
        for line in
            ["_bucket{le=\"0.001\"} 1", "_bucket{le=\"0.004\"} 2", "_bucket{le=\"+Inf\"} 3", "_count 3"]
        {
            let line = format!("kubeproxy_sync_proxy_rules_duration_seconds{line}\n");
            assert!(text.0.contains(&line), "{line} in {}", text.0);
        }
    }
}
