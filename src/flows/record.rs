//! A flow record as a line for people.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::Value;

use crate::output::{bytes, duration};

/// What a line shows of a record.
#[derive(Debug, Deserialize)]
pub(super) struct FlowRecord {
    time_unix_ns: u64,
    source: End,
    destination: End,
    #[serde(default)]
    service: Option<Service>,
    verdict: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    bytes_sent: u64,
    #[serde(default)]
    bytes_received: u64,
    #[serde(default)]
    rtt_us: u64,
    #[serde(default)]
    state: String,
}

/// One side of a connection.
#[derive(Debug, Deserialize)]
struct End {
    address: SocketAddr,
    #[serde(default)]
    pod: Option<String>,
    #[serde(default)]
    node: Option<String>,
}

/// The service address that was asked for.
#[derive(Debug, Deserialize)]
struct Service {
    #[serde(default)]
    name: Option<String>,
    address: SocketAddr,
}

impl FlowRecord {
    /// Reads a record.
    pub(super) fn deserialize_from(record: &Value) -> anyhow::Result<Self> {
        Self::deserialize(record).with_context(|| format!("this version does not know the flow record {record}"))
    }
}

impl fmt::Display for FlowRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = i128::from(self.time_unix_ns);
        let time = Timestamp::from_nanosecond(nanoseconds).unwrap_or_default().to_zoned(TimeZone::system());
        write!(f, "{}  {} → ", time.strftime("%H:%M:%S%.3f"), self.source)?;
        if let Some(service) = &self.service {
            match &service.name {
                Some(name) => write!(f, "{name} ({}) → ", service.address)?,
                None => write!(f, "{} → ", service.address)?,
            }
        }
        match &self.destination.node {
            Some(node) if self.destination.pod.is_some() => write!(f, "{}@{node}", self.destination)?,
            _ => write!(f, "{}", self.destination)?,
        }
        match &self.reason {
            Some(reason) => write!(f, "  {}: {reason}", self.verdict)?,
            None => write!(f, "  {}", self.verdict)?,
        }
        if self.state == "started" {
            write!(f, "  begins")?;
        } else {
            write!(f, "  {} ↑ {} ↓", bytes(self.bytes_sent), bytes(self.bytes_received))?;
        }
        if self.rtt_us > 0 {
            write!(f, "  rtt {}", duration(Duration::from_micros(self.rtt_us)))?;
        }
        Ok(())
    }
}

impl fmt::Display for End {
    /// `demo/client:41234`, `node-1:41234`, or the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pod.as_ref().or(self.node.as_ref()) {
            Some(name) => write!(f, "{name}:{}", self.address.port()),
            None => write!(f, "{}", self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::FlowRecord;

    fn line(record: &serde_json::Value) -> String {
        let line = FlowRecord::deserialize_from(record).unwrap().to_string();
        // The time of day depends on the machine's zone.
        line.split_once("  ").unwrap().1.to_owned()
    }

    #[test]
    fn a_line_reads_from_client_over_service_to_backend() {
        let record = json!({
            "time_unix_ns": 1_700_000_000_123_000_000_u64,
            "source": {"address": "10.244.1.3:41234", "pod": "demo/client-abc", "node": "node-1"},
            "destination": {"address": "10.244.2.7:8080", "pod": "demo/echo-xyz", "node": "node-2"},
            "service": {"name": "demo/echo", "address": "10.96.3.4:80"},
            "verdict": "forwarded", "bytes_sent": 1229, "bytes_received": 340, "rtt_us": 92, "state": "ended"
        });
        assert_eq!(
            line(&record),
            "demo/client-abc:41234 → demo/echo (10.96.3.4:80) → demo/echo-xyz:8080@node-2  forwarded  1.2 KiB ↑ 340 B ↓  rtt 92 µs"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let record = json!({
            "time_unix_ns": 0, "state": "ended",
            "source": {"address": "[fd00:29::b]:9", "node": "node-1"},
            "destination": {"address": "192.0.2.1:80"},
            "service": {"address": "[fd00:96::5]:80"},
            "verdict": "denied", "reason": "no-endpoints"
        });
        assert_eq!(
            line(&record),
            "node-1:9 → [fd00:96::5]:80 → 192.0.2.1:80  denied: no-endpoints  0 B ↑ 0 B ↓"
        );
    }
}
