//! What a reader of the feed holds: everything by name, joined.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{Change, EndpointSlice, Node, ObjectName, Pod, Prefix, Revision, Service, Update};

/// Texts that many endpoints have.
#[derive(Clone, Debug, Default)]
struct Shared(BTreeSet<Arc<str>>);

impl Shared {
    /// Puts the copy in place that the others have.
    fn share(&mut self, text: &mut Arc<str>) {
        match self.0.get(text) {
            Some(known) => text.clone_from(known),
            None => drop(self.0.insert(text.clone())),
        }
    }

    /// Forgets what nobody has any more.
    fn forget(&mut self) {
        self.0.retain(|text| Arc::strong_count(text) > 1);
    }
}

impl PartialEq for Shared {
    /// How a view keeps its texts is no part of what it says.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Shared {}

/// The cluster as of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    revision: Revision,
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Names of a service's slices, in order.
    slices_of: BTreeMap<ObjectName, Vec<ObjectName>>,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<ObjectName, Pod>,
    pods_by_address: BTreeMap<IpAddr, ObjectName>,
    namespaces: BTreeSet<String>,
    service_networks: BTreeMap<String, Vec<Prefix>>,
    corefile: Option<String>,
    /// Names of nodes and zones.
    shared: Shared,
}

impl View {
    /// The revision this view has reached; the default one until the first snapshot.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether a complete snapshot has been applied. Nothing may be deleted from the kernel before.
    pub fn is_complete(&self) -> bool {
        self.revision != Revision::default()
    }

    /// Applies a complete update; returns the services it touched, so that a reader redoes only those.
    /// After a snapshot that is every service of the old and of the new view.
    pub fn apply(&mut self, update: Update) -> BTreeSet<ObjectName> {
        let mut touched = BTreeSet::new();
        if update.snapshot {
            touched.extend(self.services.keys().cloned());
            touched.extend(self.slices_of.keys().cloned());
            *self = Self::default();
            // What is kept lies together then, not between the leftovers of decoding, which keep its pages from being given
            // back.
            update.changes.iter().for_each(|change| self.apply_change(change.copied(), &mut touched));
        } else {
            update.changes.into_iter().for_each(|change| self.apply_change(change, &mut touched));
        }
        self.revision = update.revision;
        touched
    }

    /// All services by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// One service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The slices of a service, by name.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All pods that have addresses.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// The pod with an address of its own.
    pub fn pod_by_address(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.get(self.pods_by_address.get(&address)?)
    }

    /// Whether the namespace exists.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// One slice.
    pub fn slice(&self, name: &ObjectName) -> Option<&EndpointSlice> {
        self.slices.get(name)
    }

    /// All slices by name.
    pub fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values()
    }

    /// One pod.
    pub fn pod(&self, name: &ObjectName) -> Option<&Pod> {
        self.pods.get(name)
    }

    /// All namespaces by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(String::as_str)
    }

    /// The networks of services' addresses, by who names them.
    pub fn service_networks(&self) -> impl Iterator<Item = (&str, &[Prefix])> {
        self.service_networks.iter().map(|(name, networks)| (name.as_str(), networks.as_slice()))
    }

    /// The text of the cluster's Corefile, if it keeps one.
    pub fn corefile(&self) -> Option<&str> {
        self.corefile.as_deref()
    }

    /// Whether applying the change would alter anything.
    pub fn would_change(&self, change: &Change) -> bool {
        match change {
            Change::PutService(service) => self.service(&service.name) != Some(service),
            Change::DeleteService(name) => self.services.contains_key(name),
            Change::PutSlice(slice) => self.slice(&slice.name) != Some(slice),
            Change::DeleteSlice(name) => self.slices.contains_key(name),
            Change::PutNode(node) => self.node(&node.name) != Some(node),
            Change::DeleteNode(name) => self.nodes.contains_key(name),
            Change::PutPod(pod) => self.pod(&pod.name) != Some(pod),
            Change::DeletePod(name) => self.pods.contains_key(name),
            Change::PutNamespace(name) => !self.has_namespace(name),
            Change::DeleteNamespace(name) => self.has_namespace(name),
            Change::PutServiceNetworks { name, networks } => {
                self.service_networks.get(name) != Some(networks)
            }
            Change::DeleteServiceNetworks(name) => self.service_networks.contains_key(name),
            Change::PutCorefile(text) => self.corefile() != Some(text),
            Change::DeleteCorefile => self.corefile.is_some(),
        }
    }

    /// Everything as changes to nothing, in an order that a reader can apply.
    pub fn to_changes(&self) -> Vec<Change> {
        let namespaces = self.namespaces.iter().cloned().map(Change::PutNamespace);
        let nodes = self.nodes.values().cloned().map(Change::PutNode);
        let slices = self.slices.values().cloned().map(Change::PutSlice);
        let services = self.services.values().cloned().map(Change::PutService);
        let pods = self.pods.values().cloned().map(Change::PutPod);
        let corefile = self.corefile.iter().cloned().map(Change::PutCorefile);
        let networks = self.service_networks.iter().map(|(name, networks)| Change::PutServiceNetworks {
            name: name.clone(),
            networks: networks.clone(),
        });
        corefile
            .chain(networks)
            .chain(namespaces)
            .chain(nodes)
            .chain(slices)
            .chain(services)
            .chain(pods)
            .collect()
    }

    fn apply_change(&mut self, change: Change, touched: &mut BTreeSet<ObjectName>) {
        match change {
            Change::PutService(service) => {
                touched.insert(service.name.clone());
                self.services.insert(service.name.clone(), service);
            }
            Change::DeleteService(name) => {
                self.services.remove(&name);
                touched.insert(name);
            }
            Change::PutSlice(mut slice) => {
                for endpoint in &mut slice.endpoints {
                    self.shared.share(&mut endpoint.node);
                    self.shared.share(&mut endpoint.zone);
                }
                self.remove_slice(&slice.name, touched);
                let service = ObjectName::new(&slice.name.namespace, &slice.service);
                let slices = self.slices_of.entry(service.clone()).or_insert_with(|| Vec::with_capacity(1));
                if let Err(place) = slices.binary_search(&slice.name) {
                    slices.insert(place, slice.name.clone());
                }
                touched.insert(service);
                self.slices.insert(slice.name.clone(), slice);
            }
            Change::DeleteSlice(name) => self.remove_slice(&name, touched),
            Change::PutNode(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Change::DeleteNode(name) => {
                self.nodes.remove(&name);
                self.shared.forget();
            }
            Change::PutPod(pod) => {
                self.remove_pod(&pod.name);
                if !pod.host_network {
                    let names = pod.addresses.iter().map(|address| (*address, pod.name.clone()));
                    self.pods_by_address.extend(names);
                }
                self.pods.insert(pod.name.clone(), pod);
            }
            Change::DeletePod(name) => self.remove_pod(&name),
            Change::PutNamespace(name) => {
                self.namespaces.insert(name);
            }
            Change::DeleteNamespace(name) => {
                self.namespaces.remove(&name);
            }
            Change::PutServiceNetworks { name, networks } => {
                self.service_networks.insert(name, networks);
            }
            Change::DeleteServiceNetworks(name) => {
                self.service_networks.remove(&name);
            }
            Change::PutCorefile(text) => self.corefile = Some(text),
            Change::DeleteCorefile => self.corefile = None,
        }
    }

    fn remove_slice(&mut self, name: &ObjectName, touched: &mut BTreeSet<ObjectName>) {
        let Some(old) = self.slices.remove(name) else { return };
        let service = ObjectName::new(&name.namespace, &old.service);
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.retain(|slice| slice != name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        touched.insert(service);
    }

    fn remove_pod(&mut self, name: &ObjectName) {
        let Some(old) = self.pods.remove(name) else { return };
        for address in old.addresses {
            if self.pods_by_address.get(&address) == Some(name) {
                self.pods_by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str) -> Change {
        Change::PutSlice(EndpointSlice {
            name: ObjectName::new("demo", name),
            service: service.into(),
            ..EndpointSlice::default()
        })
    }

    fn delta(sequence: u64, changes: Vec<Change>) -> Update {
        Update { revision: Revision { epoch: 1, sequence }, snapshot: false, changes }
    }

    #[test]
    fn a_slice_that_moves_to_another_service_touches_both() {
        let mut view = View::default();
        view.apply(delta(1, vec![slice("s", "old")]));
        let touched = view.apply(delta(2, vec![slice("s", "new")]));
        assert_eq!(touched, BTreeSet::from([ObjectName::new("demo", "new"), ObjectName::new("demo", "old")]));
        assert_eq!(view.slices_of(&ObjectName::new("demo", "old")).count(), 0);
        assert_eq!(view.slices_of(&ObjectName::new("demo", "new")).count(), 1);
    }

    #[test]
    fn an_address_follows_the_pod_that_had_it_last() {
        let pod = |name: &str| {
            Change::PutPod(Pod {
                name: ObjectName::new("demo", name),
                addresses: vec![IpAddr::from([10, 244, 0, 5])],
                ..Pod::default()
            })
        };
        let mut view = View::default();
        view.apply(delta(1, vec![pod("a"), pod("b"), Change::DeletePod(ObjectName::new("demo", "a"))]));
        let found = view.pod_by_address(IpAddr::from([10, 244, 0, 5])).expect("b has it");
        assert_eq!(&*found.name.name, "b");
    }

    #[test]
    fn a_change_that_repeats_what_is_known_changes_nothing() {
        let mut view = View::default();
        let put = slice("s", "svc");
        assert!(view.would_change(&put));
        view.apply(delta(1, vec![put.clone()]));
        assert!(!view.would_change(&put));
        assert!(view.would_change(&slice("s", "other")));
        assert!(!view.would_change(&Change::DeletePod(ObjectName::new("demo", "none"))));
    }

    #[test]
    fn replaying_a_view_as_changes_gives_the_same_view() {
        let mut view = View::default();
        let corefile = Change::PutCorefile(". {\n}".into());
        let network = Prefix { address: IpAddr::from([10, 96, 0, 0]), length: 16 };
        let networks = Change::PutServiceNetworks { name: "kubernetes".into(), networks: vec![network] };
        view.apply(delta(
            1,
            vec![slice("s", "svc"), Change::PutNamespace("demo".into()), networks, corefile],
        ));
        let mut copy = View::default();
        copy.apply(Update { revision: view.revision(), snapshot: true, changes: view.to_changes() });
        assert_eq!(copy, view);
    }
}
