//! Services: one hash look-up, one array look-up, one commit point.
//!
//! A frontend maps to a [`ServiceValue`] that points at a contiguous range of backend slots. A change writes the new
//! range first and then the one hash value, so a reader sees the old set or the new one (never a mixture). Slots are
//! reused only after a grace period; each [`BackendValue`] carries the generation it was written with, and whoever
//! remembers a backend remembers that generation too.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr16, Be16};

/// `IPPROTO_TCP` (RFC 9293).
pub const TCP: u8 = 6;
/// `IPPROTO_UDP` (RFC 768).
pub const UDP: u8 = 17;
/// `IPPROTO_SCTP` (RFC 9260).
pub const SCTP: u8 = 132;

/// [`ServiceKey::scope`] of a frontend that in-cluster clients use (ClusterIP).
pub const SCOPE_INTERNAL: u8 = 0;

/// A frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceKey {
    /// Service address.
    pub addr: Addr16,
    /// Service port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// [`SCOPE_INTERNAL`]; other scopes are for NodePort and LoadBalancer frontends.
    pub scope: u8,
}

const _: () = assert!(size_of::<ServiceKey>() == 20);

/// What a frontend leads to. Slots are laid out local first, then remote, then terminating:
/// `first .. first+local` are ready on this node, `.. first+active` are all ready ones,
/// `.. first+active+terminating` serve established flows only.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceValue {
    /// First backend slot of the range.
    pub first: u32,
    /// Number of backends a new connection may choose from, counted from `first`.
    pub active: u32,
    /// How many of the active ones are on this node; they come first.
    pub local: u32,
    /// Number of terminating backends behind the active ones.
    pub terminating: u32,
    /// Bits of `SERVICE_*`.
    pub flags: u32,
    /// Session affinity by client in seconds; 0 is none.
    pub affinity_secs: u32,
    /// Identifies the service in events and in [`OriginValue`]; assigned by user space, never 0, not reused while
    /// anything may remember it.
    pub service_id: u32,
    /// Counts the commits of this frontend.
    pub generation: u32,
}

const _: () = assert!(size_of::<ServiceValue>() == 32);

/// [`ServiceValue::flags`]: choose among the local backends only (internalTrafficPolicy Local).
pub const SERVICE_LOCAL_ONLY: u32 = 1 << 0;

/// One backend slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BackendValue {
    /// Endpoint address.
    pub addr: Addr16,
    /// Endpoint port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Reserved, 0.
    pub flags: u8,
    /// Changes whenever the slot is given to another endpoint; never 0 for a live slot.
    pub generation: u32,
}

const _: () = assert!(size_of::<BackendValue>() == 24);

/// A socket and the backend it talks to; what `recvmsg` and `getpeername` know.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OriginKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Backend address.
    pub addr: Addr16,
    /// Backend port.
    pub port: Be16,
    /// Reserved, 0.
    pub _pad: [u8; 6],
}

const _: () = assert!(size_of::<OriginKey>() == 32);

/// What the socket was aimed at before translation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OriginValue {
    /// Service address.
    pub addr: Addr16,
    /// Service port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Reserved, 0.
    pub _pad: u8,
    /// [`ServiceValue::service_id`].
    pub service_id: u32,
    /// Slot of the backend that was chosen.
    pub slot: u32,
    /// [`BackendValue::generation`] at that moment; the entry is void when the slot's differs.
    pub backend_generation: u32,
}

const _: () = assert!(size_of::<OriginValue>() == 32);
