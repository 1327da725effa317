//! Prometheus text exposition format 0.0.4.

use std::{fmt::Write, sync::atomic::Ordering::Relaxed};

use super::{Counter, Histogram, Metrics, OTHER, RCODES, TYPES};
use crate::{cache::Cache, forward::Forwarder};

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];
const FAMILIES: [&str; 2] = ["1", "2"];

impl Metrics {
    /// Everything as text.
    pub(crate) fn to_text(&self, forwarder: &Forwarder) -> String {
        let mut text = String::with_capacity(16 * 1024);
        self.requests(&mut text);
        self.responses(&mut text);
        self.histograms(&mut text);
        self.cache(&mut text, forwarder.cache());
        self.forward(&mut text, forwarder);
        let own = [
            ("fairlead_dns_dropped_total", "Packets that got no answer.", &self.dropped),
            ("fairlead_dns_updates_total", "Updates of the cluster that were applied.", &self.updates),
        ];
        for (name, help, counter) in own {
            head(&mut text, name, help, "counter");
            line(&mut text, name, "", counter.get());
        }
        text
    }

    fn labels(&self, zone: usize) -> String {
        format!(r#"server="{}",zone="{}",view="""#, self.server, self.zones[zone])
    }

    fn requests(&self, text: &mut String) {
        let name = "coredns_dns_requests_total";
        head(text, name, "Counter of DNS requests made per zone, protocol and family.", "counter");
        for (zone, protocols) in self.requests.iter().enumerate() {
            let labels = self.labels(zone);
            for (families, protocol) in protocols.iter().zip(PROTOCOLS) {
                for (types, family) in families.iter().zip(FAMILIES) {
                    let names = TYPES.iter().map(|(_, name)| *name).chain([OTHER]);
                    for (counter, rtype) in types.iter().zip(names).filter(|(counter, _)| counter.get() > 0) {
                        let labels =
                            format!(r#"{labels},proto="{protocol}",family="{family}",type="{rtype}""#);
                        line(text, name, &labels, counter.get());
                    }
                }
            }
        }
    }

    fn responses(&self, text: &mut String) {
        let name = "coredns_dns_responses_total";
        head(text, name, "Counter of response status codes.", "counter");
        // What answers in each area, by CoreDNS's plugin names.
        let plugins = ["kubernetes", "kubernetes", "forward"];
        for ((zone, counters), plugin) in self.responses.iter().enumerate().zip(plugins) {
            let labels = self.labels(zone);
            let names = RCODES.iter().map(|(_, name)| *name).chain([OTHER]);
            for (counter, rcode) in counters.iter().zip(names).filter(|(counter, _)| counter.get() > 0) {
                let labels = format!(r#"{labels},rcode="{rcode}",plugin="{plugin}""#);
                line(text, name, &labels, counter.get());
            }
        }
    }

    fn histograms(&self, text: &mut String) {
        let name = "coredns_dns_request_duration_seconds";
        head(text, name, "Histogram of the time (in seconds) each request took per zone.", "histogram");
        for (zone, histogram) in self.durations.iter().enumerate() {
            histogram.to_text(text, name, &self.labels(zone));
        }
        let tables = [
            ("coredns_dns_request_size_bytes", "Size of the requests in bytes.", &self.request_sizes),
            ("coredns_dns_response_size_bytes", "Size of the responses in bytes.", &self.response_sizes),
        ];
        for (name, help, table) in tables {
            head(text, name, help, "histogram");
            for (zone, protocols) in table.iter().enumerate() {
                for (histogram, protocol) in protocols.iter().zip(PROTOCOLS) {
                    let labels = format!(r#"{},proto="{protocol}""#, self.labels(zone));
                    histogram.to_text(text, name, &labels);
                }
            }
        }
    }

    fn cache(&self, text: &mut String, cache: &Cache) {
        let server = format!(r#"server="{}",zones=".",view="""#, self.server);
        let success = format!(r#"{server},type="success""#);
        let denial = format!(r#"{server},type="denial""#);
        head(text, "coredns_cache_entries", "The number of elements in the cache.", "gauge");
        line(text, "coredns_cache_entries", &success, cache.len());
        let hits = "coredns_cache_hits_total";
        head(text, hits, "The count of cache hits.", "counter");
        line(text, hits, &success, self.cache_hits.get());
        line(text, hits, &denial, self.cache_denial_hits.get());
        let rows: [(&str, &str, &Counter); 3] = [
            ("coredns_cache_requests_total", "The count of cache requests.", &self.cache_requests),
            ("coredns_cache_misses_total", "The count of cache misses.", &self.cache_misses),
            ("coredns_cache_evictions_total", "The count of cache evictions.", &self.cache_evictions),
        ];
        for (name, help, counter) in rows {
            head(text, name, help, "counter");
            line(text, name, &server, counter.get());
        }
    }

    fn forward(&self, text: &mut String, forwarder: &Forwarder) {
        let name = "coredns_forward_max_concurrent_rejects_total";
        head(text, name, "Counter of queries rejected because too many were waiting.", "counter");
        line(text, name, "", self.forward_rejects.get());
        let name = "coredns_proxy_request_duration_seconds";
        head(text, name, "Histogram of the time each proxied request took.", "histogram");
        for (address, durations) in forwarder.upstreams() {
            let labels = format!(r#"proxy_name="forward",to="{address}""#);
            durations.to_text(text, name, &labels);
        }
    }
}

impl Histogram {
    /// Appends its lines, unless it has counted nothing.
    fn to_text(&self, text: &mut String, name: &str, labels: &str) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return;
        }
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&counts) {
            below += count;
            line(text, &bucket, &format!(r#"{labels},le="{bound}""#), below);
        }
        line(text, &bucket, &format!(r#"{labels},le="+Inf""#), total);
        // Exact up to 2^53 nanoseconds, which is 104 days of answering.
        #[expect(clippy::cast_precision_loss, reason = "a sum of a histogram is a float")]
        let sum = self.sum.load(Relaxed) as f64 / self.scale;
        line(text, &format!("{name}_sum"), labels, sum);
        line(text, &format!("{name}_count"), labels, total);
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all text");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let result = if labels.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{labels}}} {value}")
    };
    result.expect("a string takes all text");
}
