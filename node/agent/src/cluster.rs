//! What the agent knows of the cluster; one writer (the sync loop), many readers.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, RwLock},
};

use fairlead_flows::Directory;
use fairlead_model::{Change, Node, ObjectName, Pod, Update, View};

use crate::{
    locals::Locals,
    resolver::{Life, OwnResolver},
};

/// The view and what is derived from it.
#[derive(Debug, Default)]
pub(crate) struct Cluster(RwLock<Inner>);

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) view: View,
    pub(crate) directory: Directory,
    pub(crate) locals: Locals,
    resolver: OwnResolver,
    /// Services are taken without their external addresses.
    ignore_external_addresses: bool,
}

/// What an update changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Changed {
    pub(crate) services: BTreeSet<ObjectName>,
    /// Pods of this node that have host ports, or had.
    pub(crate) pods: BTreeSet<ObjectName>,
    /// Nodes, or where addresses of services are.
    pub(crate) nodes: bool,
    pub(crate) everything: bool,
    /// How many services were put or deleted.
    pub(crate) service_changes: u64,
    /// How many slices of endpoints were put or deleted.
    pub(crate) endpoint_changes: u64,
    /// When what the slices tell of happened, as far as somebody said; nothing of a snapshot, which tells old news.
    pub(crate) triggered_unix_ns: Vec<u64>,
}

impl Cluster {
    /// With a DNS server of this node's own.
    pub(crate) fn new(resolver: OwnResolver) -> Self {
        Self(RwLock::new(Inner { resolver, ..Inner::default() }))
    }

    /// Whether services are taken without their external addresses, which whoever may write a Service chooses at will.
    pub(crate) fn ignoring_external_addresses(self, ignore: bool) -> Self {
        let mut inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.ignore_external_addresses = ignore;
        Self(RwLock::new(inner))
    }

    /// Takes note of how the node's own DNS server is.
    pub(crate) fn turn(&self, life: Life, node: &str) -> Changed {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changes = guard.resolver.turn(life);
        let revision = guard.view.revision();
        guard.apply(Update { revision, snapshot: false, changes }, node)
    }

    /// Applies a complete update under one short lock.
    pub(crate) fn apply(&self, mut update: Update, node: &str) -> Changed {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        guard.resolver.alter(&mut update);
        if guard.ignore_external_addresses {
            for change in &mut update.changes {
                if let Change::PutService(service) = change {
                    service.external_addresses.clear();
                }
            }
        }
        guard.apply(update, node)
    }

    /// Looks at it under a short lock.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One node.
    pub(crate) fn node(&self, name: &str) -> Option<Node> {
        self.read(|inner| inner.view.node(name).cloned())
    }
}

impl Inner {
    fn apply(&mut self, update: Update, node: &str) -> Changed {
        let touches_nodes = |change: &Change| {
            matches!(
                change,
                Change::PutNode(_)
                    | Change::DeleteNode(_)
                    | Change::PutServiceNetworks { .. }
                    | Change::DeleteServiceNetworks(_)
            )
        };
        let nodes = update.snapshot || update.changes.iter().any(touches_nodes);
        let snapshot = update.snapshot;
        let counts = Changed::count(&update);
        let pods = Changed::host_ports(&update, &self.view, node);
        let services = self.view.apply(update);
        self.directory.update_services(&self.view, &services);
        self.locals.update(&self.view, &services, node);
        if nodes {
            self.directory.update_nodes(&self.view);
        }
        Changed { services, pods, nodes, everything: snapshot, ..counts }
    }
}

impl Changed {
    /// Pods of this node whose host ports may have changed, looked at before the update is applied.
    fn host_ports(update: &Update, view: &View, node: &str) -> BTreeSet<ObjectName> {
        let here = |pod: &Pod| pod.node == node && !pod.host_ports.is_empty();
        let concerned = |change: &Change| match change {
            Change::PutPod(pod) if here(pod) || view.pod(&pod.name).is_some_and(here) => {
                Some(pod.name.clone())
            }
            Change::DeletePod(name) if view.pod(name).is_some_and(here) => Some(name.clone()),
            _ => None,
        };
        update.changes.iter().filter_map(concerned).collect()
    }

    /// The numbers, without the names.
    fn count(update: &Update) -> Self {
        let mut counts = Self::default();
        for change in &update.changes {
            match change {
                Change::PutService(_) | Change::DeleteService(_) => counts.service_changes += 1,
                Change::PutSlice(slice) => {
                    counts.endpoint_changes += 1;
                    if !update.snapshot && slice.triggered_unix_ns != 0 {
                        counts.triggered_unix_ns.push(slice.triggered_unix_ns);
                    }
                }
                Change::DeleteSlice(_) => counts.endpoint_changes += 1,
                _ => {}
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Revision, Service};

    use super::*;

    #[test]
    fn external_addresses_are_served_unless_they_are_ignored() {
        for ignored in [false, true] {
            let cluster = Cluster::default().ignoring_external_addresses(ignored);
            let name = ObjectName::new("demo", "web");
            let service = Service {
                name: name.clone(),
                addresses: vec![[10, 96, 0, 1].into()],
                external_addresses: vec![[192, 0, 2, 1].into()],
                load_balancer_addresses: vec![[203, 0, 113, 1].into()],
                ..Service::default()
            };
            let revision = Revision { epoch: 1, sequence: 1 };
            let changes = vec![Change::PutService(service.clone())];
            cluster.apply(Update { revision, snapshot: true, changes }, "here");
            let external_addresses = if ignored { Vec::new() } else { service.external_addresses.clone() };
            let expected = Service { external_addresses, ..service };
            assert_eq!(cluster.read(|inner| inner.view.service(&name).cloned()), Some(expected));
        }
    }
}
