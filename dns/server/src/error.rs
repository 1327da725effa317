//! What can keep the server from starting or end it.

use std::{io, net::SocketAddr};

use fairlead_zone::NameError;

/// Why the server could not start or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The cluster domain is no name.
    #[error("the cluster domain {domain:?} is not a domain name: {source}; use one like cluster.local")]
    ClusterDomain {
        /// As configured.
        domain: String,
        /// What is wrong.
        source: NameError,
    },
    /// Nothing to listen on.
    #[error("the DNS server has no listen address; give the addresses of the node")]
    NoListenAddress,
    /// A wildcard address, from which answers would leave with another source address.
    #[error(
        "the DNS server cannot listen on {address}: answers must leave from the address that was asked; give the addresses of the node one by one"
    )]
    WildcardListenAddress {
        /// As configured.
        address: SocketAddr,
    },
    /// A socket could not be bound.
    #[error(
        "cannot listen on {address} ({protocol}) for {purpose}: {source}; is another server running there, or the address missing on this host?"
    )]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// DNS, metrics, health, readiness.
        purpose: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A bound socket failed.
    #[error("the socket on {address} ({protocol}) failed: {source}")]
    Socket {
        /// Where it was bound.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
