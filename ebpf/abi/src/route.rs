//! Where the pod networks of the cluster are reached.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr16;

/// The next hop of a prefix.
///
/// An entry whose next hop is [`Addr16::UNSPECIFIED`] is this node's own pod network: an address in it that no pod
/// has is counted as [`crate::DropReason::UnknownPod`] and left to the host's stack, which answers "unreachable".
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RouteValue {
    /// Address of the node that owns the prefix, of the same family as the prefix and on the uplink's network.
    pub next_hop: Addr16,
    /// Interface to leave by; 0 is the uplink ([`crate::names::globals::UPLINK_IFINDEX`]).
    pub ifindex: u32,
}

const _: () = assert!(size_of::<RouteValue>() == 20);
