//! Connections that the link and driver programs translate. What the socket hooks translate is not here.
//!
//! A connection has two entries, one per direction, each found by the packet's own addresses and ports and telling what
//! they become. Either names the other: the reverse of what an entry's packets become is the key of the other entry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr16, Be16};

/// Addresses and ports of a packet. Of an ICMP echo both ports are its identifier.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConntrackKey {
    /// Source address.
    pub src: Addr16,
    /// Destination address.
    pub dst: Addr16,
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Reserved, 0.
    pub _pad: [u8; 3],
}

const _: () = assert!(size_of::<ConntrackKey>() == 40);

/// What the packets of one direction become.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConntrackValue {
    /// When the last packet of this direction passed: nanoseconds of `CLOCK_MONOTONIC`, written at most once a second.
    pub seen_ns: u64,
    /// Source address after translation.
    pub src: Addr16,
    /// Destination address after translation.
    pub dst: Addr16,
    /// Source port after translation.
    pub src_port: Be16,
    /// Destination port after translation.
    pub dst_port: Be16,
    /// Bits of `CT_*`, of both directions.
    pub flags: u16,
    /// Reserved, 0.
    pub _pad: u16,
    /// Node to hand the packet to over the overlay, or [`Addr16::UNSPECIFIED`].
    pub node: Addr16,
    /// Index in `BACKENDS`.
    pub backend: u32,
    /// [`crate::service::BackendValue::generation`] when it was chosen. A datagram of another generation chooses anew.
    pub generation: u32,
    /// [`crate::service::ServiceValue::service_id`].
    pub service_id: u32,
    /// Reserved, 0.
    pub _pad2: u32,
}

const _: () = assert!(size_of::<ConntrackValue>() == 80);

/// [`ConntrackValue::flags`]: the entry of the replies; else of what the client sends.
pub const CT_REPLY: u16 = 1 << 0;
/// [`ConntrackValue::flags`]: a packet of the other direction was seen.
pub const CT_ANSWERED: u16 = 1 << 1;
/// [`ConntrackValue::flags`]: the client has sent FIN.
pub const CT_CLIENT_FIN: u16 = 1 << 2;
/// [`ConntrackValue::flags`]: the backend has sent FIN.
pub const CT_BACKEND_FIN: u16 = 1 << 3;
/// [`ConntrackValue::flags`]: one side has sent RST.
pub const CT_RESET: u16 = 1 << 4;
/// [`ConntrackValue::flags`]: the client's address was replaced with the node's and a port of its reserved range.
pub const CT_MASQUERADED: u16 = 1 << 5;
/// [`ConntrackValue::flags`]: the host's stack replaces the client's address on the packet's way to the backend.
pub const CT_STACK_MASQUERADES: u16 = 1 << 6;

/// Which packet a fragment without a transport header belongs to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr16,
    /// Destination address.
    pub dst: Addr16,
    /// Identification of the fragmented packet.
    pub id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Reserved, 0.
    pub _pad: [u8; 3],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// The ports that its first fragment had.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentValue {
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
}

const _: () = assert!(size_of::<FragmentValue>() == 4);
