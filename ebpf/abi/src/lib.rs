//! The contract between the eBPF programs and user space: what a map key, a map value and an event record look
//! like, what maps and programs are called, and how large maps are.
//!
//! Everything here is plain bytes: `#[repr(C)]`, no padding the compiler chose, no `bool`, `enum`, `Option` or
//! `usize`. Addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`, so that one code path serves both
//! families. Ports are in network order as [`Be16`].
//!
//! This crate must never contain logic beyond conversions. Start reading at [`service`].
#![no_std]

pub mod addr;
pub mod conntrack;
pub mod event;
pub mod names;
pub mod node;
pub mod pod;
pub mod reason;
pub mod route;
pub mod service;
pub mod socket;

pub use addr::{Addr16, Be16};
pub use reason::DropReason;

/// Version of every layout in this crate. Of pinned maps of another version those are used again whose layout has not changed
/// since ([`names::MapSpec::since`]); no entry is ever taken for what it is not.
pub const LAYOUT_VERSION: u32 = 3;

/// Marks types as safe to copy to and from maps for aya.
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]
mod user {
    macro_rules! pod {
        ($($ty:ty),* $(,)?) => { $(
            // SAFETY: the type is `repr(C)`, has no padding (zerocopy's `IntoBytes` is derived) and every bit
            // pattern is valid (zerocopy's `FromBytes` is derived).
            unsafe impl aya::Pod for $ty {}
        )* };
    }

    pod!(
        crate::Addr16,
        crate::service::ServiceKey,
        crate::service::ServiceValue,
        crate::service::BackendValue,
        crate::service::AffinityKey,
        crate::service::AffinityValue,
        crate::service::SourceRange,
        crate::socket::OriginKey,
        crate::socket::OriginValue,
        crate::conntrack::ConntrackKey,
        crate::conntrack::ConntrackValue,
        crate::conntrack::FragmentKey,
        crate::conntrack::FragmentValue,
        crate::node::AddressValue,
        crate::node::NodeValue,
        crate::node::AnswersValue,
        crate::node::ServiceNetwork,
        crate::pod::PodValue,
        crate::pod::NearPod,
        crate::pod::InterfaceValue,
        crate::pod::PodCounters,
        crate::pod::DropKey,
        crate::route::RouteValue,
    );
}
