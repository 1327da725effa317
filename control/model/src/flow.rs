//! Flow records: what a person sees of a connection.

use std::net::{IpAddr, SocketAddr};

use crate::{ObjectName, Protocol};

/// One side of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowEnd {
    /// Address and port.
    pub address: SocketAddr,
    /// Pod with that address, when the reader knows one.
    pub pod: Option<ObjectName>,
    /// Node with that address, when it is a node's.
    pub node: Option<String>,
}

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Established.
    Forwarded,
    /// Refused or dropped; the name of the reason as `fairlead-abi` spells it.
    Denied(&'static str),
}

/// Where a flow is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowState {
    /// Has begun.
    Started,
    /// Has ended; counters are final.
    Ended,
}

/// A connection as one node saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flow {
    /// When the record was written, nanoseconds since the Unix epoch.
    pub time_unix_ns: u64,
    /// How long the connection has lasted, in nanoseconds; 0 when it never began.
    pub duration_ns: u64,
    /// Node that wrote the record.
    pub node: String,
    /// Where it is in its life.
    pub state: FlowState,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Who opened the connection.
    pub source: FlowEnd,
    /// Who answers it: the backend.
    pub destination: FlowEnd,
    /// The service address the client asked for.
    pub service: Option<(Option<ObjectName>, IpAddr, u16)>,
    /// What became of it.
    pub verdict: Verdict,
    /// Bytes from source to destination, as the socket counts them: SYN and FIN are one each.
    pub bytes_sent: u64,
    /// Bytes from destination to source, counted in the same way.
    pub bytes_received: u64,
    /// Smoothed round-trip time in microseconds; 0 when unmeasured.
    pub rtt_us: u32,
    /// Segments retransmitted by the side that was observed.
    pub retransmits: u32,
    /// The record comes from the socket of the source (else of the destination).
    pub seen_by_source: bool,
}
