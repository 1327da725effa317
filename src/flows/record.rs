//! A flow record as a line for people.

use std::{fmt, net::SocketAddr, time::Duration};

use fairlead_flows::record::{Record, RecordEnd, RecordService};
use jiff::{Timestamp, tz::TimeZone};

use crate::output::{bytes, duration};

/// Shows a record as `time  source → service → destination  verdict  bytes  round trip`.
pub(super) struct Line<'a>(pub(super) &'a Record);

/// Two daemons see a connection between two pods, one at each end. The one of the client knows the service that was
/// asked for; the other's record says nothing new.
pub(super) fn is_second_view(record: &Record) -> bool {
    record.observed_by == "server" && record.source.pod.is_some()
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let time: Timestamp = record.time.parse().unwrap_or_default();
        let time = time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
        write!(f, "{time}  {}", End { end: &record.source, with_node: false })?;
        if let Some(service) = &record.service {
            write!(f, " → {}", Service(service))?;
        }
        // A connection that was refused before a backend was chosen has none.
        if record.service.is_none() || !record.destination.ip.is_unspecified() {
            write!(f, " → {}", End { end: &record.destination, with_node: true })?;
        }
        if record.protocol != "TCP" {
            write!(f, "  {}", record.protocol)?;
        }
        match &record.reason {
            Some(reason) => write!(f, "  {}: {reason}", record.verdict)?,
            None => write!(f, "  {}", record.verdict)?,
        }
        match record.state.as_str() {
            "started" => write!(f, "  begins")?,
            _ if record.bytes_sent == 0 && record.bytes_received == 0 => {}
            _ => write!(f, "  {} ↑ {} ↓", bytes(record.bytes_sent), bytes(record.bytes_received))?,
        }
        if record.rtt_us > 0 {
            write!(f, "  rtt {}", duration(Duration::from_micros(record.rtt_us.into())))?;
        }
        if record.retransmits > 0 {
            write!(f, "  {} retransmitted", record.retransmits)?;
        }
        Ok(())
    }
}

/// `demo/client:41234`, `demo/echo@node-2:8080`, `node-1:53`, or the address.
struct End<'a> {
    end: &'a RecordEnd,
    with_node: bool,
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordEnd { namespace, pod, node, ip, port } = self.end;
        // A socket that was refused in `connect` has no port yet.
        let port_text = if *port == 0 { String::new() } else { format!(":{port}") };
        match (pod, node) {
            (Some(pod), node) => {
                write!(f, "{}/{pod}", namespace.as_deref().unwrap_or_default())?;
                match node {
                    Some(node) if self.with_node => write!(f, "@{node}{port_text}"),
                    _ => write!(f, "{port_text}"),
                }
            }
            (None, Some(node)) => write!(f, "{node}{port_text}"),
            (None, None) if *port == 0 => write!(f, "{ip}"),
            (None, None) => write!(f, "{}", SocketAddr::new(*ip, *port)),
        }
    }
}

/// `demo/echo (10.96.3.4:80)`, or the address of a service that is gone.
struct Service<'a>(&'a RecordService);

impl fmt::Display for Service<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordService { namespace, name, ip, port } = self.0;
        let address = SocketAddr::new(*ip, *port);
        match (namespace, name) {
            (Some(namespace), Some(name)) => write!(f, "{namespace}/{name} ({address})"),
            _ => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fairlead_flows::Record;
    use serde_json::{Value, json};

    use super::{Line, is_second_view};

    fn record(changes: Value) -> Record {
        let mut record = json!({
            "time": "2023-11-14T22:13:20.123456Z", "node": "node-1", "protocol": "TCP",
            "source": {"namespace": "demo", "pod": "client-abc", "node": "node-1", "ip": "10.244.1.3", "port": 41234},
            "service": {"namespace": "demo", "name": "echo", "ip": "10.96.3.4", "port": 80},
            "destination": {"namespace": "demo", "pod": "echo-xyz", "node": "node-2", "ip": "10.244.2.7", "port": 8080},
            "verdict": "forwarded", "bytes_sent": 1229, "bytes_received": 340, "rtt_us": 92, "retransmits": 0,
            "duration_us": 5, "state": "ended", "observed_by": "client"
        });
        if let (Value::Object(record), Value::Object(changes)) = (&mut record, changes) {
            record.extend(changes);
        }
        serde_json::from_value(record).unwrap()
    }

    fn line(record: &Record) -> String {
        let line = Line(record).to_string();
        // The time of day depends on the machine's zone.
        line.split_once("  ").unwrap().1.to_owned()
    }

    #[test]
    fn a_line_reads_from_client_over_service_to_backend() {
        assert_eq!(
            line(&record(json!({}))),
            "demo/client-abc:41234 → demo/echo (10.96.3.4:80) → demo/echo-xyz@node-2:8080  forwarded  1.2 KiB ↑ 340 B ↓  rtt 92 µs"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let denied = record(json!({
            "source": {"ip": "fd00:29::b", "port": 9, "node": "node-1"},
            "destination": {"ip": "192.0.2.1", "port": 80},
            "service": {"ip": "fd00:96::5", "port": 80},
            "verdict": "denied", "reason": "no-endpoints", "rtt_us": 0, "protocol": "UDP", "retransmits": 2
        }));
        assert_eq!(
            line(&denied),
            "node-1:9 → [fd00:96::5]:80 → 192.0.2.1:80  UDP  denied: no-endpoints  1.2 KiB ↑ 340 B ↓  2 retransmitted"
        );
        assert!(line(&record(json!({"state": "started"}))).contains("forwarded  begins  rtt"));
    }

    #[test]
    fn a_connection_refused_before_it_began_has_neither_port_nor_backend() {
        let refused = record(json!({
            "source": {"namespace": "demo", "pod": "client-abc", "node": "node-1", "ip": "10.244.1.3", "port": 0},
            "destination": {"ip": "::", "port": 0}, "bytes_sent": 0, "bytes_received": 0, "rtt_us": 0,
            "verdict": "denied", "reason": "no-endpoints"
        }));
        assert_eq!(line(&refused), "demo/client-abc → demo/echo (10.96.3.4:80)  denied: no-endpoints");
    }

    #[test]
    fn a_connection_between_pods_is_shown_once() {
        assert!(!is_second_view(&record(json!({}))));
        assert!(is_second_view(&record(json!({"observed_by": "server"}))));
        let outsider = json!({"observed_by": "server", "source": {"ip": "192.0.2.1", "port": 9}});
        assert!(!is_second_view(&record(outsider)));
    }
}
