//! A flow as it leaves the process: JSON with field names that stay.

use std::net::IpAddr;

use fairlead_model::{Flow, FlowEnd, FlowState, ObjectName, Verdict};
use serde::{Deserialize, Serialize};

/// One side of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordEnd {
    /// Namespace of the pod; absent when the address is not a pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Node with the address or of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// The service a client asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordService {
    /// Namespace; absent when the service is gone already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// A flow for export.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When the record was written, RFC 3339.
    pub time: String,
    /// Node that wrote it.
    pub node: String,
    /// Who opened the connection.
    pub source: RecordEnd,
    /// The service it asked for, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<RecordService>,
    /// Who answers.
    pub destination: RecordEnd,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// `forwarded` or `denied`.
    pub verdict: String,
    /// Why it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Payload bytes from source to destination.
    pub bytes_sent: u64,
    /// Payload bytes from destination to source.
    pub bytes_received: u64,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Segments retransmitted by the observed side.
    pub retransmits: u32,
    /// How long the connection has lasted, in microseconds; 0 when it began before the agent did, and not by a service.
    pub duration_us: u64,
    /// `started` or `ended`.
    pub state: String,
    /// Whose socket was observed: `client` or `server`.
    pub observed_by: String,
}

impl From<&Flow> for Record {
    fn from(flow: &Flow) -> Self {
        let (verdict, reason) = match flow.verdict {
            Verdict::Forwarded => ("forwarded", None),
            Verdict::Denied(reason) => ("denied", Some(reason.to_owned())),
        };
        let state = match flow.state {
            FlowState::Started => "started",
            FlowState::Ended => "ended",
        };
        Self {
            time: rfc3339(flow.time_unix_ns),
            node: flow.node.clone(),
            source: RecordEnd::from(&flow.source),
            service: flow.service.as_ref().map(|(name, ip, port)| {
                let (namespace, name) = parts(name.as_ref());
                RecordService { namespace, name, ip: *ip, port: *port }
            }),
            destination: RecordEnd::from(&flow.destination),
            protocol: flow.protocol.as_str().to_owned(),
            verdict: verdict.to_owned(),
            reason,
            bytes_sent: flow.bytes_sent,
            bytes_received: flow.bytes_received,
            rtt_us: flow.rtt_us,
            retransmits: flow.retransmits,
            duration_us: flow.duration_ns / 1_000,
            state: state.to_owned(),
            observed_by: if flow.seen_by_source { "client" } else { "server" }.to_owned(),
        }
    }
}

impl From<&FlowEnd> for RecordEnd {
    fn from(end: &FlowEnd) -> Self {
        let (namespace, pod) = parts(end.pod.as_ref());
        Self { namespace, pod, node: end.node.clone(), ip: end.address.ip(), port: end.address.port() }
    }
}

/// Which flows a reader wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlowFilter {
    /// `NAME` or `NAMESPACE/NAME` of a pod on either side.
    pub pod: Option<String>,
    /// `forwarded` or `denied`.
    pub verdict: Option<String>,
    /// Not older than this, nanoseconds since the Unix epoch.
    pub since_unix_ns: u64,
}

impl FlowFilter {
    /// Whether the reader wants this one.
    pub fn admits(&self, flow: &Flow) -> bool {
        let pod = |end: &FlowEnd, wanted: &str| match (&end.pod, wanted.split_once('/')) {
            (Some(pod), Some((namespace, name))) => *pod.namespace == *namespace && *pod.name == *name,
            (Some(pod), None) => *pod.name == *wanted,
            (None, _) => false,
        };
        let pods = self.pod.as_deref().is_none_or(|w| pod(&flow.source, w) || pod(&flow.destination, w));
        let denied = matches!(flow.verdict, Verdict::Denied(_));
        let verdict = self.verdict.as_deref().is_none_or(|wanted| (wanted == "denied") == denied);
        pods && verdict && flow.time_unix_ns >= self.since_unix_ns
    }
}

fn parts(name: Option<&ObjectName>) -> (Option<String>, Option<String>) {
    (name.map(|n| n.namespace.to_string()), name.map(|n| n.name.to_string()))
}

/// Microseconds are what a person can use and what sorts as text.
fn rfc3339(unix_ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use fairlead_model::Protocol;

    use super::*;

    fn flow() -> Flow {
        Flow {
            time_unix_ns: 1_700_000_000_123_456_789,
            duration_ns: 2_500_000,
            node: "node-1".into(),
            state: FlowState::Ended,
            protocol: Protocol::Tcp,
            source: FlowEnd {
                address: ([10, 244, 0, 5], 40_000).into(),
                pod: Some(ObjectName::new("demo", "client")),
                node: Some("node-1".into()),
            },
            destination: FlowEnd { address: ([10, 244, 1, 7], 8080).into(), pod: None, node: None },
            service: Some((Some(ObjectName::new("demo", "echo")), IpAddr::from([10, 96, 0, 20]), 80)),
            verdict: Verdict::Forwarded,
            bytes_sent: 1,
            bytes_received: 2,
            rtt_us: 30,
            retransmits: 0,
            seen_by_source: true,
        }
    }

    #[test]
    fn field_names_and_order_stay() {
        let json = serde_json::to_string(&Record::from(&flow())).expect("serialises");
        assert_eq!(
            json,
            r#"{"time":"2023-11-14T22:13:20.123456Z","node":"node-1","source":{"namespace":"demo","pod":"client","node":"node-1","ip":"10.244.0.5","port":40000},"service":{"namespace":"demo","name":"echo","ip":"10.96.0.20","port":80},"destination":{"ip":"10.244.1.7","port":8080},"protocol":"TCP","verdict":"forwarded","bytes_sent":1,"bytes_received":2,"rtt_us":30,"retransmits":0,"duration_us":2500,"state":"ended","observed_by":"client"}"#
        );
        let read: Record = serde_json::from_str(&json).expect("reads back");
        assert_eq!(read, Record::from(&flow()));
    }

    #[test]
    fn a_filter_looks_at_both_pods_the_verdict_and_the_time() {
        let admits = |filter: FlowFilter| filter.admits(&flow());
        let pod = |name: &str| FlowFilter { pod: Some(name.into()), ..FlowFilter::default() };
        assert!(admits(FlowFilter::default()));
        assert!(admits(pod("client")) && admits(pod("demo/client")));
        assert!(!admits(pod("other/client")) && !admits(pod("echo")));
        assert!(!admits(FlowFilter { verdict: Some("denied".into()), ..FlowFilter::default() }));
        assert!(!admits(FlowFilter { since_unix_ns: flow().time_unix_ns + 1, ..FlowFilter::default() }));
    }
}
