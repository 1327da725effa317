//! Event records: written at the start, the end and the refusal of a connection, never per packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr16, Be16};

/// [`FlowEvent::kind`]: the connection is established.
pub const FLOW_START: u8 = 1;
/// [`FlowEvent::kind`]: the connection has ended; counters are final.
pub const FLOW_END: u8 = 2;
/// [`FlowEvent::kind`]: refused before it began; [`FlowEvent::reason`] says why.
pub const FLOW_DENIED: u8 = 3;

/// [`FlowEvent::role`]: `local` opened the connection.
pub const ROLE_CLIENT: u8 = 1;
/// [`FlowEvent::role`]: `local` accepted the connection.
pub const ROLE_SERVER: u8 = 2;

/// One record about one connection, from the socket of one side.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowEvent {
    /// When the record was written: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// When the connection was established, same clock; 0 if never, and at the end of a connection to no service, whose start
    /// had a record of its own.
    pub start_ns: u64,
    /// Socket cookie, which joins the records of one socket.
    pub cookie: u64,
    /// Bytes that the peer acknowledged (`tcp_sock.bytes_acked`), in which the kernel counts SYN and FIN as one each.
    pub bytes_sent: u64,
    /// Bytes received (`tcp_sock.bytes_received`), in which the kernel counts a FIN as one.
    pub bytes_received: u64,
    /// Address of the socket that is described.
    pub local: Addr16,
    /// The other side; of a translated connection the backend.
    pub remote: Addr16,
    /// The service address the client asked for, or [`Addr16::UNSPECIFIED`] when none was translated.
    pub service: Addr16,
    /// Port of `local`.
    pub local_port: Be16,
    /// Port of `remote`.
    pub remote_port: Be16,
    /// Port of `service`.
    pub service_port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// `FLOW_*`.
    pub kind: u8,
    /// `ROLE_*`.
    pub role: u8,
    /// Reserved, 0.
    pub _pad: [u8; 3],
    /// [`crate::DropReason`] as its number; 0 when nothing was refused.
    pub reason: u32,
    /// [`crate::service::ServiceValue::service_id`], or 0.
    pub service_id: u32,
    /// Smoothed round-trip time in microseconds (`tcp_sock.srtt_us >> 3`).
    pub srtt_us: u32,
    /// Segments retransmitted (`tcp_sock.total_retrans`).
    pub retransmits: u32,
    /// Reserved, 0.
    pub _pad2: u32,
}

const _: () = assert!(size_of::<FlowEvent>() == 120);
