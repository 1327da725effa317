//! Pods of this node: where their packets go and what is counted about them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr16;

/// A pod of this node, found by its address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PodValue {
    /// Host-side veth; its peer is the pod's `eth0`.
    pub ifindex: u32,
    /// Index into `POD_COUNTERS`. Slot 0 is the host itself and is never given to a pod.
    pub slot: u32,
    /// MAC address of the pod's `eth0`.
    pub mac: [u8; 6],
    /// MAC address of the host-side veth, which the pod has as its gateway.
    pub host_mac: [u8; 6],
}

const _: () = assert!(size_of::<PodValue>() == 20);

/// A pod in `NEAR_PODS`; an entry that nobody has is all zeros, and no pod has the unspecified address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NearPod {
    /// Its address. Another one at this index is in `PODS` alone.
    pub addr: Addr16,
    /// As in `PODS`.
    pub pod: PodValue,
}

const _: () = assert!(size_of::<NearPod>() == 36);

impl NearPod {
    /// How many entries there are for each family.
    pub const PER_FAMILY: u32 = 1_024;

    /// Where in `NEAR_PODS` a pod with this address is: at the end of the address, which is what differs between the pods of
    /// a node.
    #[inline(always)]
    pub const fn index(addr: &Addr16) -> u32 {
        let end = u32::from_be(addr.0[3]) % Self::PER_FAMILY;
        if addr.is_v4() { end } else { Self::PER_FAMILY + end }
    }
}

/// The pod behind a host-side veth; the only source addresses it may use.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InterfaceValue {
    /// IPv4 address, or [`Addr16::UNSPECIFIED`].
    pub v4: Addr16,
    /// IPv6 address, or [`Addr16::UNSPECIFIED`].
    pub v6: Addr16,
    /// Index into `POD_COUNTERS`.
    pub slot: u32,
}

const _: () = assert!(size_of::<InterfaceValue>() == 36);

/// What one CPU has counted for one pod. `rx` is what the pod received, `tx` what it sent; bytes are of the IP
/// packet, without the link header.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PodCounters {
    /// Packets delivered to the pod.
    pub rx_packets: u64,
    /// Bytes delivered to the pod.
    pub rx_bytes: u64,
    /// Packets the pod sent.
    pub tx_packets: u64,
    /// Bytes the pod sent.
    pub tx_bytes: u64,
    /// TCP connections the pod opened (established as a client).
    pub connections_opened: u64,
    /// TCP connections the pod accepted (established as a server).
    pub connections_accepted: u64,
    /// Connections and datagrams refused because their service has no backend.
    pub connections_refused: u64,
    /// TCP segments retransmitted by the pod's sockets, added when a connection ends.
    pub retransmits: u64,
}

const _: () = assert!(size_of::<PodCounters>() == 64);

/// Key of a drop counter.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropKey {
    /// Pod slot; 0 when no pod of this node is concerned.
    pub slot: u32,
    /// [`crate::DropReason`] as its number.
    pub reason: u32,
}

const _: () = assert!(size_of::<DropKey>() == 8);
