//! Services: a hash look-up for the frontend, two array look-ups for the backend, one commit point.
//!
//! A service port of one address family is a *block*: its endpoints have an entry each in `BACKENDS`, which stays where it
//! is for as long as the endpoint serves, and a contiguous range of `SLOTS` names those that new connections may choose
//! from. Every frontend of the block (cluster address, node port, load balancer's address …) is a [`ServiceValue`] that
//! points at the range. A change writes new backends, then a new range, then the frontends' values, so a reader sees the
//! old set or the new one (never a mixture). Ranges and backends are reused only after a grace period; each
//! [`BackendValue`] has a generation, and whoever remembers a backend remembers that generation, too.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr16, Be16};

/// `IPPROTO_TCP` (RFC 9293).
pub const TCP: u8 = 6;
/// `IPPROTO_UDP` (RFC 768).
pub const UDP: u8 = 17;
/// `IPPROTO_SCTP` (RFC 9260).
pub const SCTP: u8 = 132;

/// [`ServiceKey::scope`] of a frontend on the address in the key.
pub const SCOPE_ADDRESS: u8 = 0;
/// [`ServiceKey::scope`] of a frontend on every address in `ADDRESSES` that serves node ports. The key's address is
/// `0.0.0.0` (mapped) or `::`, for the family.
pub const SCOPE_NODE_PORT: u8 = 1;

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
    /// `SCOPE_*`.
    pub scope: u8,
}

const _: () = assert!(size_of::<ServiceKey>() == 20);

/// What a frontend leads to: two windows over one range of `SLOTS`. `first .. first+local` are the backends of a Local
/// traffic policy, `first+skip .. first+skip+active` those of the policy Cluster. Where both policies choose the same
/// local backends, `skip` is 0 and the first window is the beginning of the second.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceValue {
    /// First slot of the range.
    pub first: u32,
    /// Number of backends that a new connection may choose from under the policy Cluster.
    pub active: u32,
    /// Number of backends on this node that it may choose from under the policy Local.
    pub local: u32,
    /// Where the window of the policy Cluster begins, counted from `first`.
    pub skip: u32,
    /// First slot of the Maglev table; meaningful when `table_len` is not 0.
    pub table: u32,
    /// Length of the Maglev table over the backends of the policy Cluster; 0 is a choice by chance.
    pub table_len: u32,
    /// Bits of `SERVICE_*`.
    pub flags: u32,
    /// Session affinity by client in seconds; 0 is none.
    pub affinity_secs: u32,
    /// Identifies the block in events, affinity and connections; assigned by user space, never 0, not reused while
    /// anything may remember it.
    pub service_id: u32,
    /// Counts the commits of this frontend.
    pub generation: u32,
}

const _: () = assert!(size_of::<ServiceValue>() == 40);

/// [`ServiceValue::flags`]: every client uses the Local window (`internalTrafficPolicy: Local` of a cluster address).
pub const SERVICE_INTERNAL_LOCAL: u32 = 1 << 0;
/// [`ServiceValue::flags`]: clients outside the cluster use the Local window (`externalTrafficPolicy: Local` of an external
/// frontend). Clients inside use the other one.
pub const SERVICE_EXTERNAL_LOCAL: u32 = 1 << 1;
/// [`ServiceValue::flags`]: an external frontend: a node port, a load balancer's or an external address, a host port.
pub const SERVICE_EXTERNAL: u32 = 1 << 2;
/// [`ServiceValue::flags`]: only clients in `SOURCE_RANGES` may use the frontend.
pub const SERVICE_SOURCE_RANGES: u32 = 1 << 3;
/// [`ServiceValue::flags`], with [`SERVICE_SOURCE_RANGES`]: an address of this node is in the ranges, so its own processes may.
pub const SERVICE_HOST_ALLOWED: u32 = 1 << 4;
/// [`ServiceValue::flags`]: the service has endpoints somewhere, though perhaps none for this frontend on this node.
/// Without it a connection is refused; with it, it is dropped.
pub const SERVICE_HAS_ENDPOINTS: u32 = 1 << 5;
/// [`ServiceValue::flags`]: clients outside the cluster may not use the frontend (a cluster address that the node keeps
/// to itself).
pub const SERVICE_INSIDE_ONLY: u32 = 1 << 6;

/// One slot: a backend's index in `BACKENDS`.
pub type SlotValue = u32;

/// One backend of a block.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BackendValue {
    /// Endpoint address.
    pub addr: Addr16,
    /// Endpoint port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Bits of `BACKEND_*`.
    pub flags: u8,
    /// Changes whenever the entry is given to another endpoint; never 0 for a live one.
    pub generation: u32,
}

const _: () = assert!(size_of::<BackendValue>() == 24);

/// [`BackendValue::flags`]: new connections may choose it under the policy Cluster, so a remembered choice stands.
pub const BACKEND_CLUSTER: u8 = 1 << 0;
/// [`BackendValue::flags`]: new connections may choose it under the policy Local.
pub const BACKEND_LOCAL: u8 = 1 << 1;
/// [`BackendValue::flags`]: it serves, if only what has begun: datagrams of a known flow still go there.
pub const BACKEND_SERVING: u8 = 1 << 2;
/// [`BackendValue::flags`]: it is on this node.
pub const BACKEND_HERE: u8 = 1 << 3;
/// [`BackendValue::flags`]: its address is a node's, not a pod's.
pub const BACKEND_HOST: u8 = 1 << 4;

/// A client of a service with session affinity.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityKey {
    /// Address of a client outside, or [`Addr16::from_cookie`] of a client's network namespace.
    pub client: Addr16,
    /// [`ServiceValue::service_id`].
    pub service_id: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 20);

/// The client's backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityValue {
    /// When the client last opened a connection: nanoseconds of `CLOCK_MONOTONIC`.
    pub used_ns: u64,
    /// Index in `BACKENDS`.
    pub backend: u32,
    /// [`BackendValue::generation`] at that moment; the entry is void when the backend's differs.
    pub generation: u32,
}

const _: () = assert!(size_of::<AffinityValue>() == 16);

/// Data of a key of `SOURCE_RANGES`; its prefix length is 32 plus the range's over the 128-bit mapped form.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SourceRange {
    /// [`ServiceValue::service_id`].
    pub service_id: u32,
    /// Network address.
    pub addr: Addr16,
}

const _: () = assert!(size_of::<SourceRange>() == 20);
