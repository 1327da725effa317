//! Services and their slices as the feed says them, packed: a zone is made from few of them at a time.
//!
//! Of a hundred thousand endpoints the zone needs addresses and names. What else the feed says of them, and what the zone
//! would need again when one slice of a service changes, is kept as bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fairlead_model::{Change, EndpointSlice, ObjectName, Revision, Update, View};
use fairlead_wire::proto;
use prost::Message;

/// `NAMESPACE/NAME`, in one allocation.
type Key = Box<str>;

/// Everything but pods and nodes.
#[derive(Default)]
pub(crate) struct Catalog {
    services: BTreeMap<Key, Packed>,
    /// The service of each slice.
    owners: BTreeMap<Key, Box<str>>,
    namespaces: BTreeSet<String>,
    revision: Revision,
}

/// A service and its slices; one may be there without the other.
#[derive(Default)]
struct Packed {
    service: Option<Box<[u8]>>,
    /// By the name of the slice, in order.
    slices: Vec<(Box<str>, Box<[u8]>)>,
}

impl Catalog {
    /// Whether a complete snapshot has been applied.
    pub(crate) fn is_complete(&self) -> bool {
        self.revision != Revision::default()
    }

    /// Number of services.
    pub(crate) fn len(&self) -> usize {
        self.services.values().filter(|packed| packed.service.is_some()).count()
    }

    /// Applies an update; gives the services it touched: after a snapshot all that are and all that were.
    pub(crate) fn apply(&mut self, update: Update) -> BTreeSet<ObjectName> {
        let mut touched = BTreeSet::new();
        if update.snapshot {
            touched.extend(std::mem::take(self).services.keys().map(|key| object_name(key)));
        }
        self.revision = update.revision;
        for change in update.changes {
            self.apply_change(change, &mut touched);
        }
        touched
    }

    /// Some services as they are, and all namespaces.
    pub(crate) fn view<'a>(&self, services: impl IntoIterator<Item = &'a ObjectName>) -> View {
        let found = services.into_iter().filter_map(|name| self.services.get(&key(name)));
        let packed = found.flat_map(|packed| {
            packed
                .slices
                .iter()
                .map(|(_, bytes)| bytes)
                .chain(&packed.service)
                .filter_map(|bytes| unpack(bytes))
        });
        let namespaces = self.namespaces.iter().cloned().map(Change::PutNamespace);
        let mut view = View::default();
        view.apply(Update {
            revision: self.revision,
            snapshot: false,
            changes: namespaces.chain(packed).collect(),
        });
        view
    }

    fn apply_change(&mut self, change: Change, touched: &mut BTreeSet<ObjectName>) {
        match change {
            Change::PutService(service) => {
                let name = service.name.clone();
                let packed = self.services.entry(key(&name)).or_default();
                packed.service = Some(pack(Change::PutService(service)));
                touched.insert(name);
            }
            Change::DeleteService(name) => {
                if let Some(packed) = self.services.get_mut(&key(&name)) {
                    packed.service = None;
                }
                self.tidy(&name);
                touched.insert(name);
            }
            Change::PutSlice(slice) => {
                self.remove_slice(&slice.name, touched);
                let service = ObjectName::new(&slice.name.namespace, &slice.service);
                self.owners.insert(key(&slice.name), slice.service.as_str().into());
                let slices = &mut self.services.entry(key(&service)).or_default().slices;
                let name: Box<str> = (&*slice.name.name).into();
                let at = slices.partition_point(|(other, _)| *other < name);
                slices.insert(at, (name, pack(Change::PutSlice(lean(slice)))));
                slices.shrink_to_fit();
                touched.insert(service);
            }
            Change::DeleteSlice(name) => self.remove_slice(&name, touched),
            Change::PutNamespace(name) => drop(self.namespaces.insert(name)),
            Change::DeleteNamespace(name) => drop(self.namespaces.remove(&name)),
            Change::PutPod(_)
            | Change::DeletePod(_)
            | Change::PutNode(_)
            | Change::DeleteNode(_)
            | Change::PutServiceNetworks { .. }
            | Change::DeleteServiceNetworks(_)
            | Change::PutCorefile(_)
            | Change::DeleteCorefile => {}
        }
    }

    fn remove_slice(&mut self, name: &ObjectName, touched: &mut BTreeSet<ObjectName>) {
        let Some(service) = self.owners.remove(&key(name)) else { return };
        let service = ObjectName::new(&name.namespace, &*service);
        if let Some(packed) = self.services.get_mut(&key(&service)) {
            packed.slices.retain(|(other, _)| **other != *name.name);
        }
        self.tidy(&service);
        touched.insert(service);
    }

    /// Forgets a service of which nothing is left.
    fn tidy(&mut self, name: &ObjectName) {
        let key = key(name);
        let is_gone = |packed: &Packed| packed.service.is_none() && packed.slices.is_empty();
        if self.services.get(&key).is_some_and(is_gone) {
            self.services.remove(&key);
        }
    }
}

fn key(name: &ObjectName) -> Key {
    format!("{}/{}", name.namespace, name.name).into()
}

/// A namespace has no slash in its name.
fn object_name(key: &str) -> ObjectName {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    ObjectName::new(namespace, name)
}

/// A slice without what no name needs.
fn lean(mut slice: EndpointSlice) -> EndpointSlice {
    for endpoint in &mut slice.endpoints {
        endpoint.node = Arc::default();
        endpoint.hint_nodes = Box::default();
        endpoint.hint_zones = Box::default();
    }
    slice
}

fn pack(change: Change) -> Box<[u8]> {
    proto::Change::from(change).encode_to_vec().into()
}

/// What was packed here is read here: it cannot fail.
fn unpack(bytes: &[u8]) -> Option<Change> {
    proto::Change::decode(bytes).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Endpoint, Service};
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> ObjectName {
        ObjectName::new("demo", format!("n{number}"))
    }

    fn slice(number: u8, service: u8) -> Change {
        let endpoint = Endpoint {
            hostname: format!("h{number}").into(),
            pod: format!("p{number}").into(),
            ..Endpoint::ready_at([10, 244, service, number].into(), "")
        };
        Change::PutSlice(EndpointSlice {
            name: name(number),
            service: format!("n{service}"),
            ports: Vec::new(),
            endpoints: vec![endpoint],
            ..EndpointSlice::default()
        })
    }

    fn changes() -> impl Strategy<Value = Change> {
        let number = || 0..4u8;
        prop_oneof![
            number().prop_map(|n| Change::PutService(Service { name: name(n), ..Service::default() })),
            number().prop_map(|n| Change::DeleteService(name(n))),
            (number(), number()).prop_map(|(n, service)| slice(n, service)),
            number().prop_map(|n| Change::DeleteSlice(name(n))),
            Just(Change::PutNamespace("demo".into())),
            Just(Change::DeleteNamespace("demo".into())),
        ]
    }

    proptest! {
        /// Whatever happens, it holds what a view of everything holds, and touches at least the same.
        #[test]
        fn a_catalog_is_a_view_in_less_space(
            history in proptest::collection::vec((any::<bool>(), proptest::collection::vec(changes(), 0..6)), 1..12),
        ) {
            let (mut catalog, mut view) = (Catalog::default(), View::default());
            for ((snapshot, changes), sequence) in history.into_iter().zip(1..) {
                let update = Update { revision: Revision { epoch: 1, sequence }, snapshot, changes };
                let touched = catalog.apply(update.clone());
                prop_assert!(view.apply(update).iter().all(|name| touched.contains(name)
                    || view.service(name).is_none() && view.slices_of(name).next().is_none()));
                let all: Vec<ObjectName> = (0..4).map(name).collect();
                prop_assert_eq!(catalog.view(&all), view.clone());
                prop_assert_eq!(catalog.len(), view.services().count());
            }
        }
    }
}
