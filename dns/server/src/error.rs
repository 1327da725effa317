//! What can keep the server from starting or end it.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::CorefileError;

/// Why the server could not start or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The Corefile cannot be read.
    #[error("cannot read the Corefile {}: {source}", path.display())]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The Corefile does not work.
    #[error("{0}")]
    Corefile(#[from] CorefileError),
    /// Questions that are forwarded come back.
    #[error(
        "Loop ({from} -> {to}) detected for zone {zone:?}: the server is its own upstream; let `forward` in the Corefile name another server than this one"
    )]
    Loop {
        /// Who asked what only we could ask.
        from: SocketAddr,
        /// Where.
        to: SocketAddr,
        /// Zone of the server block.
        zone: String,
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
