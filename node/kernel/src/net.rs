//! The network side: interfaces, addresses, routes, namespaces, kernel parameters.

mod dummy;
pub mod interfaces;
pub mod namespace;
pub mod netlink;
pub mod sysctl;

pub use namespace::Namespace;
pub use netlink::{Link, Netlink};
