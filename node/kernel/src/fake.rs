//! A kernel in memory, for tests of what sits above.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use fairlead_abi::service::{BackendValue, ServiceKey, ServiceValue};
use fairlead_model::Prefix;
use fairlead_plan::{ObservedRoutes, ObservedServices, Op};

use crate::{KernelError, LocalState, State};

/// Holds what was applied; clones share it.
#[derive(Clone, Debug, Default)]
pub struct FakeState(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<ServiceKey, ServiceValue>,
    /// Everything but the frontends.
    rest: ObservedServices,
    routes: ObservedRoutes,
    local: LocalState,
    completed: usize,
    damaged: Vec<String>,
    applied: usize,
    fail_next: Option<usize>,
    service_networks: Vec<Prefix>,
}

impl FakeState {
    /// Networks of whose addresses those that no service has are refused.
    pub fn service_networks(&self) -> Vec<Prefix> {
        self.with(|inner| inner.service_networks.clone())
    }

    /// The backends that new connections to a frontend may get under the policy Cluster.
    pub fn active(&self, key: &ServiceKey) -> Option<Vec<BackendValue>> {
        self.with(|inner| {
            let value = inner.services.get(key)?;
            let first = value.first + value.skip;
            let backend = |slot| {
                let index = inner.rest.slots.get(slot as usize)?;
                inner.rest.backends.get(index).copied()
            };
            Some((first..first + value.active).map(|slot| backend(slot).unwrap_or_default()).collect())
        })
    }

    /// Sets what the node's interfaces say.
    pub fn set_local(&self, local: LocalState) {
        self.with(|inner| inner.local = local);
    }

    /// How often it was said that everything is there.
    pub fn completed(&self) -> usize {
        self.with(|inner| inner.completed)
    }

    /// Routes as they are.
    pub fn routes(&self) -> ObservedRoutes {
        self.with(|inner| inner.routes.clone())
    }

    /// How many operations have been applied.
    pub fn applied(&self) -> usize {
        self.with(|inner| inner.applied)
    }

    /// Somebody else removes a frontend.
    pub fn remove(&self, key: &ServiceKey) {
        self.with(|inner| inner.services.remove(key));
    }

    /// Somebody else removes something beside the maps.
    pub fn damage(&self, what: &str) {
        self.with(|inner| inner.damaged.push(what.to_owned()));
    }

    /// The kernel forgets its routes, as when their interface goes.
    pub fn forget_routes(&self) {
        self.with(|inner| inner.routes.kernel.clear());
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
            ..inner.rest.clone()
        }))
    }

    async fn observe_routes(&mut self) -> Result<ObservedRoutes, KernelError> {
        Ok(self.routes())
    }

    fn set_service_networks(&mut self, networks: &[Prefix]) -> Result<(), KernelError> {
        self.with(|inner| inner.service_networks = networks.to_vec());
        Ok(())
    }

    async fn observe_local(&mut self) -> Result<LocalState, KernelError> {
        Ok(self.with(|inner| inner.local.clone()))
    }

    async fn repair(&mut self) -> Result<Vec<String>, KernelError> {
        Ok(self.with(|inner| std::mem::take(&mut inner.damaged)))
    }

    fn complete(&mut self) -> Result<(), KernelError> {
        self.with(|inner| inner.completed += 1);
        Ok(())
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
        let rest = &mut self.rest;
        match *op {
            Op::WriteBackend { index, value } => drop(rest.backends.insert(index, value)),
            Op::WriteSlots { first, ref backends } => {
                let (first, end) = (first as usize, first as usize + backends.len());
                rest.slots.resize(rest.slots.len().max(end), 0);
                rest.slots[first..end].copy_from_slice(backends);
            }
            Op::PutService { key, value } => drop(self.services.insert(key, value)),
            Op::DeleteService { key } => drop(self.services.remove(&key)),
            Op::PutSourceRange { service_id, range } => {
                rest.source_ranges.insert((service_id, range));
            }
            Op::DeleteSourceRange { service_id, range } => {
                rest.source_ranges.remove(&(service_id, range));
            }
            Op::EndFlows { .. } => {}
            Op::PutAddress { address, flags } => drop(rest.addresses.insert(address, flags)),
            Op::DeleteAddress { address } => drop(rest.addresses.remove(&address)),
            Op::PutNode { value } => rest.node = value,
            Op::PutRoute { prefix, next_hop } => drop(self.routes.map.insert(prefix, next_hop)),
            Op::DeleteRoute { prefix } => drop(self.routes.map.remove(&prefix)),
            Op::PutKernelRoute { prefix, next_hop } => drop(self.routes.kernel.insert(prefix, next_hop)),
            Op::DeleteKernelRoute { prefix } => drop(self.routes.kernel.remove(&prefix)),
        }
    }
}
