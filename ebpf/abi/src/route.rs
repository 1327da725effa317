//! Where the pod networks of other nodes are reached.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr16;

/// The next hop of a prefix.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RouteValue {
    /// Address of the node that owns the prefix, of the same family as the prefix and on the uplink's network.
    pub next_hop: Addr16,
    /// Interface to leave by (the uplink).
    pub ifindex: u32,
}

const _: () = assert!(size_of::<RouteValue>() == 20);
