//! The node itself: its addresses, and those that services have.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr16;

/// What an address that is no pod's is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AddressValue {
    /// Bits of `ADDRESS_*`.
    pub flags: u32,
}

const _: () = assert!(size_of::<AddressValue>() == 4);

/// [`AddressValue::flags`]: an interface of this node has it.
pub const ADDRESS_LOCAL: u32 = 1 << 0;
/// [`AddressValue::flags`]: node ports are served on it.
pub const ADDRESS_NODE_PORT: u32 = 1 << 1;
/// [`AddressValue::flags`]: a service has it and nobody else: a port of it that no service has is refused.
pub const ADDRESS_SERVICE: u32 = 1 << 2;
/// [`AddressValue::flags`]: another node's address.
pub const ADDRESS_NODE: u32 = 1 << 3;

/// What the programs need to know of the node; it may change while they run.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NodeValue {
    /// Address to masquerade with, or [`Addr16::UNSPECIFIED`].
    pub v4: Addr16,
    /// Address to masquerade with, or [`Addr16::UNSPECIFIED`].
    pub v6: Addr16,
    /// Largest network packet that the uplink takes, in bytes.
    pub mtu: u32,
    /// Reserved, 0.
    pub _pad: u32,
}

const _: () = assert!(size_of::<NodeValue>() == 40);

/// VXLAN network identifier of the overlay.
pub const OVERLAY_VNI: u32 = 0xfa1;

/// A token bucket of one CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AnswersValue {
    /// When tokens were last added: nanoseconds of `CLOCK_MONOTONIC`.
    pub filled_ns: u64,
    /// Tokens left.
    pub tokens: u64,
}

const _: () = assert!(size_of::<AnswersValue>() == 16);

/// ICMP errors a second and CPU, and how many may come at once: the kernel's own default (`net.ipv4.icmp_msgs_per_sec`).
pub const ANSWERS_PER_SEC: u64 = 1_000;
