//! The network side: interfaces, addresses, routes, namespaces, kernel parameters.

pub mod addresses;
mod dummy;
pub mod interfaces;
pub mod namespace;
pub mod netlink;
pub mod overlay;
pub mod sockets;
pub mod sysctl;

pub use addresses::{LocalChange, LocalChanges};
pub use namespace::Namespace;
pub use netlink::{Link, Netlink};
