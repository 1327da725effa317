//! A kernel in memory, for tests of what sits above.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use fairlead_abi::service::{BackendValue, ServiceKey, ServiceValue};
use fairlead_plan::{ObservedRoutes, ObservedServices, Op};

use crate::{KernelError, State};

/// Holds what was applied; clones share it.
#[derive(Clone, Debug, Default)]
pub struct FakeState(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<ServiceKey, ServiceValue>,
    backends: HashMap<u32, BackendValue>,
    routes: ObservedRoutes,
    applied: usize,
    fail_next: Option<usize>,
}

impl FakeState {
    /// The backends that new connections to a frontend may get.
    pub fn active(&self, key: &ServiceKey) -> Option<Vec<BackendValue>> {
        self.with(|inner| {
            let value = inner.services.get(key)?;
            let slots = value.first..value.first + value.active;
            Some(slots.map(|slot| inner.backends.get(&slot).copied().unwrap_or_default()).collect())
        })
    }

    /// Routes as they are.
    pub fn routes(&self) -> ObservedRoutes {
        self.with(|inner| inner.routes.clone())
    }

    /// How many operations have been applied.
    pub fn applied(&self) -> usize {
        self.with(|inner| inner.applied)
    }

    /// The next `apply` stops with an error after this many operations.
    pub fn fail_after(&self, operations: usize) {
        self.with(|inner| inner.fail_next = Some(operations));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State for FakeState {
    fn observe_services(&mut self) -> Result<ObservedServices, KernelError> {
        Ok(self.with(|inner| ObservedServices {
            services: inner.services.iter().map(|(key, value)| (*key, *value)).collect(),
            backends: inner.backends.clone(),
        }))
    }

    async fn observe_routes(&mut self) -> Result<ObservedRoutes, KernelError> {
        Ok(self.routes())
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        self.with(|inner| {
            let limit = inner.fail_next.take();
            for (done, op) in ops.iter().enumerate() {
                if limit == Some(done) {
                    return Err(KernelError::Thread(std::io::Error::other("the fake was told to fail")));
                }
                inner.apply(op);
            }
            Ok(())
        })
    }
}

impl Inner {
    fn apply(&mut self, op: &Op) {
        self.applied += 1;
        match *op {
            Op::WriteBackend { slot, value } => drop(self.backends.insert(slot, value)),
            Op::PutService { key, value } => drop(self.services.insert(key, value)),
            Op::DeleteService { key } => drop(self.services.remove(&key)),
            Op::PutRoute { prefix, next_hop } => drop(self.routes.map.insert(prefix, next_hop)),
            Op::DeleteRoute { prefix } => drop(self.routes.map.remove(&prefix)),
            Op::PutKernelRoute { prefix, next_hop } => drop(self.routes.kernel.insert(prefix, next_hop)),
            Op::DeleteKernelRoute { prefix } => drop(self.routes.kernel.remove(&prefix)),
        }
    }
}
