//! Following the cluster: updates in, a new zone published for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fairlead_model::{ObjectName, Update, View};
use fairlead_zone::{Name, Zone, ZoneConfig};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Labelled,
    catalog::Catalog,
    metrics::{Counter, Family, Registry},
};

/// Services that are unpacked at a time.
const PART: usize = 256;

const UPDATES: Family =
    Family { name: "fairlead_dns_updates_total", help: "Updates of the cluster that were applied." };

/// What is known of the cluster, for every `kubernetes` plugin with its own zones and options.
pub(crate) struct Cluster {
    state: Mutex<State>,
    updates: Arc<Counter>,
    /// The Corefile that the cluster keeps.
    corefile: watch::Sender<Option<String>>,
}

/// What the feed has said.
#[derive(Default)]
pub(crate) struct Known {
    catalog: Catalog,
    /// Pods only.
    pods: View,
}

struct State {
    zone: Zone,
    readers: Vec<Weak<ClusterNames>>,
    /// What was last known of the objects that match a selector.
    selected: BTreeMap<(Labelled, String), BTreeSet<ObjectName>>,
}

/// The names of the cluster as one `kubernetes` plugin serves them.
pub(crate) struct ClusterNames {
    pub(crate) zone: ArcSwap<Zone>,
    /// Written under the lock of the state.
    config: ArcSwap<ZoneConfig>,
}

impl Cluster {
    /// Nothing is known yet.
    pub(crate) fn new(registry: &Registry) -> Self {
        let zone = Zone::new(ZoneConfig::new(Name::root()));
        let state = Mutex::new(State { zone, readers: Vec::new(), selected: BTreeMap::new() });
        Self { state, updates: registry.counter(&UPDATES, &[]), corefile: watch::Sender::new(None) }
    }

    /// The Corefile that the cluster keeps, if it does.
    pub(crate) fn corefile(&self) -> watch::Receiver<Option<String>> {
        self.corefile.subscribe()
    }

    /// The names with a plugin's options, from now on.
    pub(crate) fn names(&self, config: ZoneConfig) -> Arc<ClusterNames> {
        let config = Arc::new(config);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let zone = ArcSwap::from_pointee(state.zone.with_config(&config));
        let names = Arc::new(ClusterNames { zone, config: ArcSwap::new(config) });
        state.readers.push(Arc::downgrade(&names));
        names
    }

    /// The objects that matched a selector when somebody last asked.
    pub(crate) fn selected(&self, kind: Labelled, selector: &str) -> Option<BTreeSet<ObjectName>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.selected.get(&(kind, selector.to_owned())).cloned()
    }

    /// Remembers the objects that match a selector.
    pub(crate) fn select(&self, kind: Labelled, selector: &str, objects: BTreeSet<ObjectName>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.selected.insert((kind, selector.to_owned()), objects);
    }

    /// Changes the options of a plugin.
    pub(crate) fn configure(&self, names: &ClusterNames, change: impl FnOnce(&mut ZoneConfig)) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = ZoneConfig::clone(&names.config.load());
        change(&mut config);
        let config = Arc::new(config);
        names.zone.store(Arc::new(state.zone.with_config(&config)));
        names.config.store(config);
        state.zone.outdate_all();
    }

    /// Publishes the Corefile that an update leaves.
    fn take_corefile(&self, update: &Update) {
        let kept = update.changes.iter().rev().find_map(|change| match change {
            fairlead_model::Change::PutCorefile(text) => Some(Some(text.clone())),
            fairlead_model::Change::DeleteCorefile => Some(None),
            _ => None,
        });
        if let Some(text) = kept.or(update.snapshot.then_some(None)) {
            self.corefile.send_if_modified(|known| {
                let changed = *known != text;
                *known = text;
                changed
            });
        }
    }

    /// Readers see the zone before the update or after it.
    pub(crate) fn apply(&self, known: &mut Known, mut update: Update) {
        for change in &mut update.changes {
            if let fairlead_model::Change::PutPod(pod) = change {
                // A name needs the address and the namespace only.
                (pod.uid, pod.node) = (String::new(), String::new());
            }
        }
        let names: BTreeSet<_> = update.changes.iter().filter_map(changed_pod).cloned().collect();
        let addresses_before = addresses(&known.pods, &names);
        let snapshot = update.snapshot;
        self.take_corefile(&update);
        known.apply_pods(&mut update);
        let touched = known.catalog.apply(update);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.zone.clone();
        let all: Vec<&ObjectName> = touched.iter().collect();
        // A part at a time, so that not all of a large cluster is unpacked at once. The empty part of an update without
        // services tells the zone of namespaces.
        for part in all.chunks(PART).chain(all.is_empty().then_some(&all[..])) {
            let view = known.catalog.view(part.iter().copied());
            state.zone.apply(&view, &part.iter().map(|name| (*name).clone()).collect(), serial());
        }
        if snapshot {
            state.zone.replace_pods(&known.pods);
        } else {
            let changed = addresses_before.into_iter().chain(addresses(&known.pods, &names));
            state.zone.update_pods(&known.pods, changed);
        }
        let zone = &state.zone;
        let readers: Vec<Arc<ClusterNames>> = state.readers.iter().filter_map(Weak::upgrade).collect();
        for reader in &readers {
            reader.zone.store(Arc::new(zone.with_config(&reader.config.load())));
        }
        zone.outdate(&before, &touched);
        state.readers.retain(|reader| reader.strong_count() > 0);
        self.updates.add();
        drop(state);
    }
}

impl Known {
    /// Takes the pods out of an update.
    fn apply_pods(&mut self, update: &mut Update) {
        let is_pod = |change: &mut fairlead_model::Change| changed_pod(change).is_some();
        let changes = update.changes.extract_if(.., is_pod).collect();
        self.pods.apply(Update { changes, ..*update });
    }
}

fn changed_pod(change: &fairlead_model::Change) -> Option<&ObjectName> {
    match change {
        fairlead_model::Change::PutPod(pod) => Some(&pod.name),
        fairlead_model::Change::DeletePod(name) => Some(name),
        _ => None,
    }
}

fn addresses(view: &View, pods: &BTreeSet<ObjectName>) -> Vec<std::net::IpAddr> {
    pods.iter().filter_map(|name| view.pod(name)).flat_map(|pod| pod.addresses.iter().copied()).collect()
}

/// Applies updates until shutdown. When the source ends, the last zone stays.
pub(crate) async fn follow(
    mut updates: BoxStream<'static, Update>,
    mut known: Known,
    cluster: Arc<Cluster>,
    shutdown: CancellationToken,
) {
    loop {
        let update = tokio::select! {
            update = updates.next() => update,
            () = shutdown.cancelled() => return,
        };
        let Some(update) = update else {
            tracing::warn!("the source of updates ended; the names of the cluster stay as they are");
            shutdown.cancelled().await;
            return;
        };
        let first = !known.catalog.is_complete();
        cluster.apply(&mut known, update);
        if first && known.catalog.is_complete() {
            tracing::info!(services = known.catalog.len(), "the names of the cluster are complete");
        }
    }
}

/// The time in seconds: the SOA's serial, modulo 2^32 as serials are (RFC 1982).
pub(crate) fn serial() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() & u64::from(u32::MAX)) as u32
}
