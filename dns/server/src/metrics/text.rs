//! Prometheus text exposition format 0.0.4.

use std::{
    fmt::Write,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
};

use super::{
    Counter, Histogram, Registry, Value,
    site::{OTHER, PLUGINS, RCODES, SiteMetrics, TYPES},
};

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];
const FAMILIES: [&str; 2] = ["1", "2"];

impl Registry {
    /// Everything as text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        self.sites_to_text(&mut text);
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        for (family, rows) in families.values() {
            let kind = match rows.values().next() {
                Some(Value::Counter(_) | Value::ReadCounter(_)) => "counter",
                Some(Value::Gauge(_) | Value::Read(_)) => "gauge",
                Some(Value::Histogram(_)) => "histogram",
                None => continue,
            };
            head(&mut text, family.name, family.help, kind);
            for (labels, value) in rows {
                match value {
                    Value::Counter(counter) => line(&mut text, family.name, labels, counter.get()),
                    Value::Gauge(gauge) => line(&mut text, family.name, labels, gauge.0.load(Relaxed)),
                    Value::Read(read) | Value::ReadCounter(read) => {
                        line(&mut text, family.name, labels, read());
                    }
                    Value::Histogram(histogram) => histogram.to_text(&mut text, family.name, labels),
                }
            }
        }
        text
    }

    fn sites_to_text(&self, text: &mut String) {
        let sites: Vec<Arc<SiteMetrics>> =
            self.sites.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        type Part = fn(&SiteMetrics, &mut String, &str);
        let parts: [(&str, &str, &str, Part); 6] = [
            (
                "coredns_dns_requests_total",
                "Counter of DNS requests made per zone, protocol and family.",
                "counter",
                SiteMetrics::requests,
            ),
            (
                "coredns_dns_responses_total",
                "Counter of response status codes.",
                "counter",
                SiteMetrics::responses,
            ),
            (
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                "histogram",
                |site, text, name| site.durations.to_text(text, name, &site.labels()),
            ),
            (
                "coredns_dns_request_size_bytes",
                "Size of the requests in bytes.",
                "histogram",
                |site, text, name| site.sizes(text, name, &site.request_sizes),
            ),
            (
                "coredns_dns_response_size_bytes",
                "Size of the responses in bytes.",
                "histogram",
                |site, text, name| site.sizes(text, name, &site.response_sizes),
            ),
            (
                "coredns_dns_do_requests_total",
                "Counter of DNS requests with DO bit set per zone.",
                "counter",
                |site, text, name| line(text, name, &site.labels(), site.dnssec_requests.get()),
            ),
        ];
        for (name, help, kind, part) in parts {
            head(text, name, help, kind);
            for site in &sites {
                part(site, text, name);
            }
        }
    }
}

impl SiteMetrics {
    fn labels(&self) -> String {
        format!(r#"server="{}",zone="{}",view="""#, self.server, self.zone)
    }

    fn requests(&self, text: &mut String, name: &str) {
        let labels = self.labels();
        for (families, protocol) in self.requests.iter().zip(PROTOCOLS) {
            for (types, family) in families.iter().zip(FAMILIES) {
                let names = TYPES.iter().map(|rtype| rtype.mnemonic().unwrap_or(OTHER)).chain([OTHER]);
                for (counter, rtype) in types.iter().zip(names).filter(|(counter, _)| counter.get() > 0) {
                    let labels = format!(r#"{labels},proto="{protocol}",family="{family}",type="{rtype}""#);
                    line(text, name, &labels, counter.get());
                }
            }
        }
    }

    fn responses(&self, text: &mut String, name: &str) {
        let labels = self.labels();
        for (counters, plugin) in self.responses.iter().zip(PLUGINS) {
            let names = RCODES.iter().map(|rcode| rcode.mnemonic().unwrap_or(OTHER)).chain([OTHER]);
            for (counter, rcode) in counters.iter().zip(names).filter(|(counter, _)| counter.get() > 0) {
                let labels = format!(r#"{labels},rcode="{rcode}",plugin="{plugin}""#);
                line(text, name, &labels, counter.get());
            }
        }
    }

    fn sizes(&self, text: &mut String, name: &str, sizes: &[Histogram; 2]) {
        for (histogram, protocol) in sizes.iter().zip(PROTOCOLS) {
            histogram.to_text(text, name, &format!(r#"{},proto="{protocol}""#, self.labels()));
        }
    }
}

impl Histogram {
    /// Appends its lines, unless it has counted nothing.
    fn to_text(&self, text: &mut String, name: &str, labels: &str) {
        let counts: Vec<u64> = self.buckets.iter().map(Counter::get).collect();
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
        let sum = self.sum.get() as f64 / self.scale;
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
