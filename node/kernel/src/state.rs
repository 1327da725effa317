//! What the sync loop needs of the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
};

use fairlead_model::Prefix;
use fairlead_plan::{ObservedRoutes, ObservedServices, Op};

use crate::KernelError;

/// What the node's interfaces say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalState {
    /// Addresses of all interfaces, and whether the uplink has them. Link-local ones are not among them.
    pub addresses: BTreeMap<IpAddr, bool>,
    /// Largest network packet that the uplink takes, in bytes; while there is none, that of the last one.
    pub mtu: u32,
    /// The interfaces themselves.
    pub interfaces: Vec<Interface>,
}

/// An interface of the node, as far as it may be one by which clients outside come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// What it is (`veth`, `bridge` …); nothing when it is a network card.
    pub kind: Option<String>,
    /// Its packets have Ethernet headers, and it is not the loopback interface.
    pub is_ethernet: bool,
    /// It is a part of another one (a bridge, a bond), which has what comes by it.
    pub is_part: bool,
    /// It is the uplink.
    pub is_uplink: bool,
    /// Its addresses but link-local ones.
    pub addresses: BTreeSet<IpAddr>,
}

/// Services and routes as the kernel holds them. [`crate::Tables`] is the kernel, [`crate::FakeState`] a fake.
pub trait State: Send + 'static {
    /// Reads services and what belongs to them.
    ///
    /// # Errors
    /// A map cannot be read.
    fn observe_services(&mut self) -> Result<ObservedServices, KernelError>;

    /// Reads the routes that are ours.
    ///
    /// # Errors
    /// A map or the kernel's table cannot be read.
    fn observe_routes(&mut self) -> impl Future<Output = Result<ObservedRoutes, KernelError>> + Send;

    /// Reads the node's addresses.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn observe_local(&mut self) -> impl Future<Output = Result<LocalState, KernelError>> + Send;

    /// Has what clients outside send looked at on these interfaces (name and index), the uplink among them, and on no others.
    /// Returns the names of those where it is.
    ///
    /// # Errors
    /// A pin cannot be removed.
    fn serve_on(&mut self, interfaces: &BTreeMap<String, u32>) -> Result<Vec<String>, KernelError> {
        Ok(interfaces.keys().cloned().collect())
    }

    /// Has addresses of these networks refused that no service has; every service must be known. At most one network of each
    /// family counts.
    ///
    /// # Errors
    /// The map cannot be written.
    fn set_service_networks(&mut self, networks: &[Prefix]) -> Result<(), KernelError>;

    /// Applies operations in order; stops at the first that fails.
    ///
    /// # Errors
    /// What the failed operation met; those before it are applied.
    fn apply(&mut self, ops: &[Op]) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Puts right what others have changed beside the maps: the uplink, links, interfaces, kernel parameters. Returns what
    /// that was, in a few words each.
    ///
    /// # Errors
    /// It cannot be looked at, or not be changed.
    fn repair(&mut self) -> impl Future<Output = Result<Vec<String>, KernelError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Says that everything a complete view asks for is there. Maps that replace those of another layout go into use.
    ///
    /// # Errors
    /// A program cannot be replaced; call again.
    fn complete(&mut self) -> Result<(), KernelError>;
}
