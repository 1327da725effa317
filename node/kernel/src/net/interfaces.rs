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

/// Addresses that can serve node ports: all but loopback, link-local ones and those of `except`.
///
/// # Errors
/// The kernel cannot be asked.
pub fn node_ports(except: &str) -> Result<Vec<IpAddr>, KernelError> {
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let usable = |row: &(String, IpAddr)| row.0 != except && !row.1.is_loopback() && !link_local(&row.1);
    let mut addresses: Vec<IpAddr> = all()?.into_iter().filter(usable).map(|row| row.1).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
