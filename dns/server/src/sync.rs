//! Following the cluster: updates in, a new zone published for each.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fairlead_model::{Update, View};
use fairlead_zone::{Name, Zone, ZoneConfig};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Counter, Family, Registry};

const UPDATES: Family =
    Family { name: "fairlead_dns_updates_total", help: "Updates of the cluster that were applied." };

/// What is known of the cluster, for every `kubernetes` plugin with its own zones and options.
pub(crate) struct Cluster {
    state: Mutex<State>,
    updates: Arc<Counter>,
    /// The Corefile that the cluster keeps.
    corefile: watch::Sender<Option<String>>,
}

struct State {
    zone: Zone,
    readers: Vec<Weak<ClusterNames>>,
}

/// The names of the cluster as one `kubernetes` plugin serves them.
pub(crate) struct ClusterNames {
    pub(crate) zone: ArcSwap<Zone>,
    config: Arc<ZoneConfig>,
}

impl Cluster {
    /// Nothing is known yet.
    pub(crate) fn new(registry: &Registry) -> Self {
        let zone = Zone::new(ZoneConfig::new(Name::root()));
        let state = Mutex::new(State { zone, readers: Vec::new() });
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
        let names = Arc::new(ClusterNames { zone, config });
        state.readers.push(Arc::downgrade(&names));
        names
    }

    /// Readers see the zone before the update or after it.
    fn apply(&self, view: &mut View, mut update: Update) {
        for change in &mut update.changes {
            if let fairlead_model::Change::PutPod(pod) = change {
                // A name needs the address and the namespace only.
                (pod.uid, pod.node) = (String::new(), String::new());
            }
        }
        let pods: BTreeSet<_> = update.changes.iter().filter_map(changed_pod).cloned().collect();
        let addresses_before = addresses(view, &pods);
        let snapshot = update.snapshot;
        let touched = view.apply(update);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.zone.clone();
        state.zone.apply(view, &touched, serial());
        if snapshot {
            state.zone.replace_pods(view);
        } else {
            state.zone.update_pods(view, addresses_before.into_iter().chain(addresses(view, &pods)));
        }
        let zone = &state.zone;
        let readers: Vec<Arc<ClusterNames>> = state.readers.iter().filter_map(Weak::upgrade).collect();
        for reader in &readers {
            reader.zone.store(Arc::new(zone.with_config(&reader.config)));
        }
        zone.outdate(&before, &touched);
        state.readers.retain(|reader| reader.strong_count() > 0);
        self.updates.add();
    }
}

fn changed_pod(change: &fairlead_model::Change) -> Option<&fairlead_model::ObjectName> {
    match change {
        fairlead_model::Change::PutPod(pod) => Some(&pod.name),
        fairlead_model::Change::DeletePod(name) => Some(name),
        _ => None,
    }
}

fn addresses(view: &View, pods: &BTreeSet<fairlead_model::ObjectName>) -> Vec<std::net::IpAddr> {
    pods.iter().filter_map(|name| view.pod(name)).flat_map(|pod| pod.addresses.iter().copied()).collect()
}

/// Applies updates until shutdown. When the source ends, the last zone stays.
pub(crate) async fn follow(
    mut updates: BoxStream<'static, Update>,
    cluster: Arc<Cluster>,
    shutdown: CancellationToken,
) {
    let mut view = View::default();
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
        let first = !view.is_complete();
        cluster.apply(&mut view, update);
        if first && view.is_complete() {
            tracing::info!(services = view.services().count(), "the names of the cluster are complete");
        }
    }
}

/// The time in seconds: the SOA's serial, modulo 2^32 as serials are (RFC 1982).
pub(crate) fn serial() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() & u64::from(u32::MAX)) as u32
}
