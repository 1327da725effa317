//! The zone: what DNS knows of the cluster at one moment.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hasher},
    net::IpAddr,
    sync::Arc,
};

use fairlead_model::{ObjectName, View};

use crate::{
    Name, Question, Stamp,
    entry::{Entry, Kind, PortLists},
    owners::Owners,
    selection::Selection,
    shards::Shards,
    stamp::Versions,
};

/// What the zone is built for, and how it shows what it knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneConfig {
    /// Domains of the cluster, usually `cluster.local` alone; addresses have their names in the first one.
    pub domains: Vec<Name>,
    /// Zones below `in-addr.arpa` and `ip6.arpa` that it answers for.
    pub reverse_zones: Vec<Name>,
    /// How long clients may keep a record.
    pub ttl_secs: u32,
    /// The service that leads to this server; it is the zone's name server.
    pub dns_service: ObjectName,
    /// Addresses of this server, for the name server's name while the service does not exist.
    pub addresses: Vec<IpAddr>,
    /// Names of pods by address.
    pub pods: Pods,
    /// Endpoints without a hostname are named after their pods.
    pub endpoint_pod_names: bool,
    /// Services without a ready endpoint do not exist.
    pub ignore_empty: bool,
    /// Endpoints have no records.
    pub no_endpoints: bool,
    /// Headless services have names for their endpoints in one topology zone.
    pub zonal: bool,
    /// The namespaces that exist.
    pub namespaces: Selection<Box<str>>,
    /// The services that exist.
    pub services: Selection<ObjectName>,
    /// The pods that exist, as `NAMESPACE/NAME`.
    pub pod_names: Selection<Box<str>>,
}

/// Which names `a-b-c-d.<namespace>.pod.<domain>` exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pods {
    /// None.
    Disabled,
    /// Every address, in every namespace that exists.
    Insecure,
    /// Those of pods, in their namespace.
    Verified,
}

/// An immutable state of the zone. A copy shares everything that does not change afterwards, so that a writer copies,
/// applies an update and publishes the copy while readers keep the old one.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(crate) config: Arc<ZoneConfig>,
    /// By `<service>.<namespace>` in lower case.
    services: Shards<Box<[u8]>, Arc<Entry>>,
    port_lists: PortLists,
    /// Services that may answer the reverse name of an address.
    owners: Owners,
    namespaces: Arc<BTreeSet<Box<[u8]>>>,
    /// Pods by their addresses, as `NAMESPACE/NAME`.
    pods: Shards<IpAddr, Box<str>>,
    pub(crate) serial: u32,
    synced: bool,
    versions: Versions,
}

impl Zone {
    /// A zone that knows nothing yet: missing names are failures, not denials, until the first complete view.
    pub fn new(config: ZoneConfig) -> Self {
        Self {
            config: Arc::new(config),
            services: Shards::new(),
            port_lists: PortLists::default(),
            owners: Owners::new(),
            namespaces: Arc::default(),
            pods: Shards::new(),
            serial: 0,
            synced: false,
            versions: Versions::new(),
        }
    }

    /// The same knowledge shown in another way.
    pub fn with_config(&self, config: &Arc<ZoneConfig>) -> Self {
        Self { config: Arc::clone(config), ..self.clone() }
    }

    /// The zone of a whole view.
    pub fn build(config: ZoneConfig, view: &View, serial: u32) -> Self {
        let mut zone = Self::new(config);
        let all = view.services().map(|service| service.name.clone()).collect();
        zone.apply(view, &all, serial);
        zone.replace_pods(view);
        zone
    }

    /// Redoes the services that an update of the view touched (see [`View::apply`]), each as a whole.
    /// The serial is that of the SOA: the time of the change in seconds since the Unix epoch.
    pub fn apply(&mut self, view: &View, touched: &BTreeSet<ObjectName>, serial: u32) {
        for name in touched {
            let lists = &mut self.port_lists;
            let entry = view.service(name).map(|service| Entry::new(service, view.slices_of(name), lists));
            self.replace(name, entry.map(Arc::new));
        }
        if !view.namespaces().map(str::as_bytes).eq(self.namespaces.iter().map(|name| &**name)) {
            self.namespaces = Arc::new(view.namespaces().map(|name| name.as_bytes().into()).collect());
        }
        self.serial = serial;
        self.synced |= view.is_complete();
    }

    /// A stamp for the answer to a question. Take it, then load the zone to answer from: the stamp is outdated when
    /// what the answer depends on has changed in between.
    pub fn stamp(&self, question: &Question) -> Stamp {
        self.versions.stamp(self.only_service(question))
    }

    /// Outdates the stamps of answers that an update changed. To be called when readers can see this zone.
    pub fn outdate(&self, before: &Self, touched: &BTreeSet<ObjectName>) {
        if self.synced == before.synced && Arc::ptr_eq(&self.namespaces, &before.namespaces) {
            self.versions.bump(touched.iter().map(|name| hash_of(&key_of(name))));
        } else {
            self.versions.bump_all();
        }
    }

    /// Outdates the stamps of all answers: to be called when readers see the zone with another configuration.
    pub fn outdate_all(&self) {
        self.versions.bump_all();
    }

    /// The service that alone decides the answer, when there is one.
    fn only_service(&self, question: &Question) -> Option<u64> {
        let domain = self.config.domain_of(&question.name)?;
        let depth = question.name.labels().count() - domain.labels().count();
        let mut labels = question.name.labels().skip(depth.checked_sub(3)?);
        let (service, namespace, kind) = (labels.next()?, labels.next()?, labels.next()?);
        if !kind.eq_ignore_ascii_case(b"svc") {
            return None;
        }
        match self.entry(service, namespace).map(|entry| &entry.kind) {
            Some(Kind::External(_)) => None,
            Some(Kind::ClusterIp(_) | Kind::Headless) | None => {
                let key = [service, b".", namespace].concat().to_ascii_lowercase();
                Some(hash_of(&key))
            }
        }
    }

    /// Takes the pods of a whole view.
    pub fn replace_pods(&mut self, view: &View) {
        self.pods = Shards::new();
        self.update_pods(view, view.pods().flat_map(|pod| pod.addresses.iter().copied()));
    }

    /// Redoes addresses that pods got or lost.
    pub fn update_pods(&mut self, view: &View, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            let shard = self.pods.shard_mut(&address);
            match view.pod_by_address(address) {
                Some(pod) => shard.insert(address, pod_key(&pod.name)),
                None => shard.remove(&address),
            };
        }
    }

    /// The namespace of the pod with an address, when it is one of those that exist.
    pub fn namespace_of(&self, address: IpAddr) -> Option<&str> {
        let pod = self.pods.get(&address).filter(|pod| self.config.pod_names.has(&***pod))?;
        pod.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Whether a complete view has been applied, and it is known what of it to show.
    pub fn is_synced(&self) -> bool {
        let ZoneConfig { namespaces, services, pod_names, .. } = &*self.config;
        self.synced && namespaces.is_known() && services.is_known() && pod_names.is_known()
    }

    /// The zone's configuration.
    pub fn config(&self) -> &ZoneConfig {
        &self.config
    }

    /// A service by the labels of its name, in any case.
    pub(crate) fn entry(&self, service: &[u8], namespace: &[u8]) -> Option<&Arc<Entry>> {
        let mut key = [0; 127];
        let key = key.get_mut(..service.len() + 1 + namespace.len())?;
        key[..service.len()].copy_from_slice(service);
        key[service.len()] = b'.';
        key[service.len() + 1..].copy_from_slice(namespace);
        key.make_ascii_lowercase();
        let entry = self.services.get(&*key)?;
        let hidden = self.config.ignore_empty && entry.is_empty() || !self.config.shows(&entry.name);
        (!hidden).then_some(entry)
    }

    /// All services, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let exposed = |entry: &&Arc<Entry>| {
            self.config.shows(&entry.name) && !(self.config.ignore_empty && entry.is_empty())
        };
        self.services.values().filter(exposed)
    }

    /// The services that have an address.
    pub(crate) fn owners_of(&self, address: IpAddr) -> impl Iterator<Item = &Entry> {
        self.owners
            .of(address)
            .filter(|name| self.config.shows(name))
            .filter_map(|name| self.services.get(&*key_of(name)).map(|entry| &**entry))
    }

    /// Whether a namespace exists, by its label in any case.
    pub(crate) fn has_namespace(&self, label: &[u8]) -> bool {
        let label = label.to_ascii_lowercase();
        self.namespaces.contains(&*label)
            && str::from_utf8(&label).is_ok_and(|label| self.config.exposes(label))
    }

    fn replace(&mut self, name: &ObjectName, entry: Option<Arc<Entry>>) {
        let key = key_of(name);
        let addresses_of = |entry: Option<&Arc<Entry>>| -> BTreeSet<IpAddr> {
            entry.into_iter().flat_map(|entry| entry.addresses()).collect()
        };
        let old = addresses_of(self.services.get(&*key));
        let new = addresses_of(entry.as_ref());
        for address in old.difference(&new) {
            self.owners.remove(*address, name);
        }
        if let Some(entry) = &entry {
            new.difference(&old).for_each(|address| self.owners.add(*address, &entry.name));
        }
        let shard = self.services.shard_mut(&*key);
        match entry {
            Some(entry) => shard.insert(key, entry),
            None => shard.remove(&*key),
        };
    }
}

impl ZoneConfig {
    /// The usual options for a domain.
    pub fn new(domain: Name) -> Self {
        Self {
            domains: vec![domain],
            reverse_zones: Vec::new(),
            ttl_secs: 5,
            dns_service: ObjectName::new("kube-system", "kube-dns"),
            addresses: Vec::new(),
            pods: Pods::Disabled,
            endpoint_pod_names: false,
            ignore_empty: false,
            no_endpoints: false,
            zonal: false,
            namespaces: Selection::All,
            services: Selection::All,
            pod_names: Selection::All,
        }
    }

    /// The domain that a name is in; the longest, when they are nested.
    pub(crate) fn domain_of(&self, name: &Name) -> Option<&Name> {
        longest(&self.domains, name)
    }

    /// The reverse zone that a name is in.
    pub(crate) fn reverse_zone_of(&self, name: &Name) -> Option<&Name> {
        longest(&self.reverse_zones, name)
    }

    fn exposes(&self, namespace: &str) -> bool {
        self.namespaces.has(namespace)
    }

    fn shows(&self, service: &ObjectName) -> bool {
        self.exposes(&service.namespace) && self.services.has(service)
    }
}

fn longest<'a>(zones: &'a [Name], name: &Name) -> Option<&'a Name> {
    let covering = zones.iter().filter(|zone| name.find_suffix(zone).is_some());
    covering.max_by_key(|zone| zone.as_wire().len())
}

fn hash_of(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

/// A pod as [`ZoneConfig::pod_names`] has it; a namespace has no slash in its name.
pub fn pod_key(name: &ObjectName) -> Box<str> {
    format!("{}/{}", name.namespace, name.name).into()
}

fn key_of(name: &ObjectName) -> Box<[u8]> {
    let mut key = Vec::with_capacity(name.name.len() + 1 + name.namespace.len());
    key.extend_from_slice(name.name.as_bytes());
    key.push(b'.');
    key.extend_from_slice(name.namespace.as_bytes());
    key.make_ascii_lowercase();
    key.into()
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change, Revision, Service, Update};

    use super::*;

    #[test]
    fn nothing_is_remembered_of_an_address_that_is_gone() {
        let address = IpAddr::from([10, 96, 0, 9]);
        let name = ObjectName::new("demo", "a");
        let service = Service { name: name.clone(), addresses: vec![address], ..Service::default() };
        let config = ZoneConfig::new(Name::parse("cluster.local").unwrap());
        let mut view = View::default();
        let mut zone = Zone::new(config);
        for (change, owned) in [(Change::PutService(service), true), (Change::DeleteService(name), false)] {
            let revision = Revision { epoch: 1, sequence: 1 };
            let touched = view.apply(Update { revision, snapshot: false, changes: vec![change] });
            zone.apply(&view, &touched, 1);
            assert_eq!(zone.owners.of(address).next().is_some(), owned);
        }
    }
}
