//! The Kubernetes REST API over the store.
//!
//! A request goes through one chain: what it asks ([`request`]) → who asks (`authn`) → the verb (`verbs/`) or
//! subresource (`subresource/`) → the rules of the kind ([`resource`]) → the store. A kind is a row of
//! [`resource::RESOURCES`]; verbs know kinds only by their rows. Objects are kept as bytes and decoded only where a
//! rule or selector looks into them.
//!
//! The server forgets old events; nothing else happens on its own: what should follow from an object is a
//! controller's business. Start
//! reading at `api.rs`.

pub mod authn;
pub mod body;
pub mod error;
pub mod patch;
pub mod pki;
pub mod protobuf;
pub mod request;
pub mod resource;
pub mod selector;
pub mod table;

mod addresses;
mod admission;
mod api;
mod apply;
mod bootstrap;
mod commit;
mod component_status;
mod compress;
mod discovery;
mod expiry;
mod furnish;
#[cfg(test)]
mod fuzz;
mod kubelet;
mod limit;
mod masters;
mod negotiate;
mod object;
mod openapi;
mod recent;
mod review;
mod server;
mod subresource;
mod tls;
mod verbs;

use std::net::IpAddr;
use std::path::PathBuf;

pub use crate::addresses::{PortRange, PortRangeError, RepairError};
pub use crate::bootstrap::BootstrapError;
pub use crate::error::ApiError;
pub use crate::furnish::FurnishError;
pub use crate::limit::Limits;
pub use crate::pki::Pki;
pub use crate::server::{ApiServer, InProcess};

/// How the API server is set up.
#[derive(Debug)]
pub struct Config {
    /// Where `pki/` is.
    pub state_dir: PathBuf,
    /// Bound sockets to serve on; all speak TLS. The first one's port is that of the Service `kubernetes`.
    pub listeners: Vec<std::net::TcpListener>,
    /// The addresses by which nodes and pods reach the server.
    pub advertise: Vec<IpAddr>,
    /// Whether other servers may be on the same store.
    pub shares_store: bool,
    /// Further DNS names of the server.
    pub server_names: Vec<String>,
    /// Where Service addresses come from: one network, or one of each family, the primary family first.
    pub service_networks: Vec<ipnet::IpNet>,
    /// Where the node ports of Services come from.
    pub service_node_ports: PortRange,
    /// The domain of cluster DNS, such as `cluster.local`.
    pub cluster_domain: String,
    /// The addresses of the cluster DNS Service, the primary family first; empty for no such Service.
    pub cluster_dns: Vec<IpAddr>,
    /// Where to write the administrator's kubeconfig.
    pub admin_kubeconfig: Option<PathBuf>,
    /// The server's URL in that kubeconfig.
    pub admin_server_url: String,
}

/// Why the API server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or certificate cannot be used.
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    /// A certificate file is not PEM.
    #[error("a stored certificate or key is not valid PEM; remove it from the pki directory to make it anew")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// Client certificates cannot be checked.
    #[error("cannot set up the check of client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// A socket cannot be used.
    #[error("cannot use a listening socket")]
    Listener(#[source] std::io::Error),
    /// The objects of the system cannot be made.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}
