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

/// A network of services' addresses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceNetwork {
    /// Network address.
    pub network: Addr16,
    /// Ones where an address of the network has the same bits; zeros only while no network is known.
    pub mask: Addr16,
}

const _: () = assert!(size_of::<ServiceNetwork>() == 32);

impl ServiceNetwork {
    /// The network with so many leading bits of the mapped form of `network`.
    pub const fn new(network: Addr16, bits: u32) -> Self {
        let mut mask = Addr16::UNSPECIFIED;
        let mut word = 0;
        while word < 4 {
            let before = 32 * word as u32;
            let ones = bits.saturating_sub(before);
            mask.0[word] = if ones >= 32 { u32::MAX } else { !(u32::MAX >> ones) }.to_be();
            word += 1;
        }
        Self { network, mask }
    }

    /// Where in `SERVICE_NETWORKS` the network of an address's family is.
    #[inline(always)]
    pub const fn index(addr: &Addr16) -> u32 {
        if addr.is_v4() { 0 } else { 1 }
    }

    /// Whether the address is in it.
    #[inline(always)]
    pub const fn covers(&self, addr: &Addr16) -> bool {
        let Self { network: Addr16(network), mask: Addr16(mask) } = self;
        // A mask is of leading bits, so its first word tells whether there is any.
        let known = mask[0] != 0;
        let differs = (addr.0[0] ^ network[0]) & mask[0]
            | (addr.0[1] ^ network[1]) & mask[1]
            | (addr.0[2] ^ network[2]) & mask[2]
            | (addr.0[3] ^ network[3]) & mask[3];
        known && differs == 0
    }
}

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
