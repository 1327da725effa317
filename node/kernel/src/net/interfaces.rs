//! The addresses of this network namespace's interfaces.

use std::net::IpAddr;

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::KernelError;

/// Every address with the name of its interface.
///
/// # Errors
/// The kernel cannot be asked.
pub fn all() -> Result<Vec<(String, IpAddr)>, KernelError> {
    let interfaces = getifaddrs()
        .map_err(|errno| KernelError::file("listing addresses of", "network interfaces")(errno.into()))?;
    let address = |storage: &SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(interfaces.filter_map(|row| Some((row.interface_name, address(row.address.as_ref()?)?))).collect())
}
