//! What the sync loop needs of the kernel.

use std::future::Future;

use fairlead_plan::{ObservedRoutes, ObservedServices, Op};

use crate::KernelError;

/// Services and routes as the kernel holds them. [`crate::Tables`] is the kernel, [`crate::FakeState`] a fake.
pub trait State: Send + 'static {
    /// Reads services and backends.
    ///
    /// # Errors
    /// A map cannot be read.
    fn observe_services(&mut self) -> Result<ObservedServices, KernelError>;

    /// Reads the routes that are ours.
    ///
    /// # Errors
    /// A map or the kernel's table cannot be read.
    fn observe_routes(&mut self) -> impl Future<Output = Result<ObservedRoutes, KernelError>> + Send;

    /// Applies operations in order; stops at the first that fails.
    ///
    /// # Errors
    /// What the failed operation met; those before it are applied.
    fn apply(&mut self, ops: &[Op]) -> impl Future<Output = Result<(), KernelError>> + Send;
}
