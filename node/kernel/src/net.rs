//! The network side: interfaces, addresses, routes, namespaces, kernel parameters.

pub mod addresses;
mod dummy;
pub mod namespace;
pub mod netlink;
pub mod sysctl;

pub use namespace::Namespace;
pub use netlink::{Link, Netlink};
