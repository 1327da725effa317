//! What the dataplane decides, as pure functions: which backend serves a connection, where a packet of a pod goes,
//! what is counted. Built for the kernel (where `ebpf/programs` calls it) and for the host (where it is tested).
//!
//! It must never allocate, panic, loop without a constant bound, call a helper of the kernel or know where a map is:
//! maps and packets come in through the traits [`Services`],
//! [`Sockets`], [`Tables`] and [`Packet`]. Functions are `inline(always)`
//! because the verifier follows one program better than many, and because a context may not be passed on.
//!
//! Start reading at [`service`], then [`socket`] for what sockets see, [`link`] for packets and [`driver`] for those that
//! leave again at once.
#![no_std]

#[cfg(any(test, feature = "cases"))]
extern crate std;

pub mod checksum;
pub mod conntrack;
pub mod driver;
pub mod header;
mod icmp;
pub mod link;
mod nat;
pub mod packet;
mod reset;
pub mod service;
pub mod socket;
mod transport;

#[cfg(any(test, feature = "cases"))]
pub mod cases;

pub use conntrack::Connections;
pub use link::{Tables, Verdict};
pub use packet::{Headroom, Packet, Resizable};
pub use service::{Client, Services};
pub use socket::Sockets;

use fairlead_abi::Addr16;

/// Whether two addresses are equal: word by word, because the derived comparison of an array is a call to `bcmp`,
/// which is a loop over bytes in eBPF.
#[inline(always)]
pub const fn same(a: &Addr16, b: &Addr16) -> bool {
    ((a.0[0] ^ b.0[0]) | (a.0[1] ^ b.0[1]) | (a.0[2] ^ b.0[2]) | (a.0[3] ^ b.0[3])) == 0
}

/// Whether this is "no address".
#[inline(always)]
pub const fn is_unspecified(addr: &Addr16) -> bool {
    (addr.0[0] | addr.0[1] | addr.0[2] | addr.0[3]) == 0
}
