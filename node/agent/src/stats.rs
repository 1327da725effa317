//! Numbers about the agent's own work.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fairlead_model::Revision;
use fairlead_plan::ebpf::Usage;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{cluster::Changed, resolver::Life};

/// How many triggers are remembered while nothing can be applied.
const TRIGGERS_MAX: usize = 16_384;

/// What the sync loop has done.
#[derive(Clone, Debug)]
pub(crate) struct SyncStats {
    /// Time that applying an update took.
    pub(crate) syncs: Histogram,
    /// Time from the change of a pod or service to the kernel.
    pub(crate) programming: Histogram,
    pub(crate) failures: u64,
    /// How often somebody else had changed the maps.
    pub(crate) repairs: u64,
    /// How often something beside the maps was put right, and what that was last.
    pub(crate) upkeep: u64,
    pub(crate) last_upkeep: Option<String>,
    /// Since when something waits to be applied.
    pub(crate) pending_since: Option<Instant>,
    /// From the arrival of the last update until it was applied.
    pub(crate) last_took: Duration,
    pub(crate) last_success: Option<Instant>,
    pub(crate) last_queued: Option<Instant>,
    pub(crate) last_error: Option<String>,
    pub(crate) problems: Vec<String>,
    pub(crate) usage: Usage,
    pub(crate) routes: usize,
    /// How many have no place in the map.
    pub(crate) routes_refused: usize,
    /// Addresses of the node that serve node ports.
    pub(crate) node_port_addresses: Vec<IpAddr>,
    /// Interfaces by which clients outside are served.
    pub(crate) interfaces: Vec<String>,
    /// What has been applied completely.
    pub(crate) revision: Revision,
    pub(crate) service_changes: Changes,
    pub(crate) endpoint_changes: Changes,
    pub(crate) resolver: ResolverStats,
    /// When what waits was triggered, in nanoseconds since the Unix epoch.
    triggered_unix_ns: Vec<u64>,
}

/// Changes of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Changes {
    /// Seen and not yet in the kernel.
    pub(crate) pending: u64,
    /// Seen since the start.
    pub(crate) total: u64,
}

/// What has been applied completely.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// Identifies the life of the feed.
    pub epoch: u64,
    /// The last update's number.
    pub sequence: u64,
    /// From its arrival until it was in the kernel, in microseconds.
    pub last_sync_us: u64,
}

/// What became of the node's own DNS server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ResolverStats {
    /// How it is; nothing where nobody waits for its signs of life.
    pub(crate) life: Option<Life>,
    /// How often look-ups were led to other nodes' servers.
    pub(crate) fallbacks: u64,
}

/// [`SyncStats`] for one writer and many readers.
#[derive(Debug, Default)]
pub(crate) struct Stats(watch::Sender<SyncStats>);

impl Stats {
    pub(crate) fn read(&self) -> SyncStats {
        self.0.borrow().clone()
    }

    /// Looks at one of them under a short lock.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&SyncStats) -> T) -> T {
        look(&self.0.borrow())
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SyncStats)) {
        self.0.send_modify(change);
    }

    /// What has been applied, once that is the update with this number or a later one.
    pub(crate) async fn applied_since(&self, sequence: u64) -> Applied {
        let mut changes = self.subscribe();
        let stats = changes.wait_for(|stats| stats.revision.sequence >= sequence).await;
        let stats = stats.expect("the sender is ours");
        let Revision { epoch, sequence } = stats.revision;
        let last_sync_us = u64::try_from(stats.last_took.as_micros()).unwrap_or(u64::MAX);
        Applied { epoch, sequence, last_sync_us }
    }

    /// To wait for a change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<SyncStats> {
        self.0.subscribe()
    }
}

impl Default for SyncStats {
    fn default() -> Self {
        Self {
            // kube-proxy's buckets: 1 ms doubled 14 times.
            syncs: Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power))),
            programming: Histogram::new(programming_bounds()),
            failures: 0,
            repairs: 0,
            upkeep: 0,
            last_upkeep: None,
            pending_since: None,
            last_took: Duration::ZERO,
            last_success: None,
            last_queued: None,
            last_error: None,
            problems: Vec::new(),
            usage: Usage::default(),
            routes: 0,
            routes_refused: 0,
            node_port_addresses: Vec::new(),
            interfaces: Vec::new(),
            revision: Revision::default(),
            service_changes: Changes::default(),
            endpoint_changes: Changes::default(),
            resolver: ResolverStats::default(),
            triggered_unix_ns: Vec::new(),
        }
    }
}

/// kube-proxy's buckets of the network programming time: half a second in two, then seconds, then coarser up to 5 minutes.
fn programming_bounds() -> impl Iterator<Item = f64> {
    let range = |first: u32, step: u32, count: u32| (0..count).map(move |n| f64::from(first + step * n));
    [0.25, 0.5].into_iter().chain(range(1, 1, 59)).chain(range(60, 5, 12)).chain(range(120, 30, 7))
}

impl ResolverStats {
    /// It is so from now on.
    pub(crate) fn turn(&mut self, life: Life) {
        let before = self.life.replace(life);
        let lost = life != Life::Alive && before.is_none_or(|before| before == Life::Alive);
        self.fallbacks += u64::from(lost);
    }
}

impl SyncStats {
    /// An update has arrived and waits.
    pub(crate) fn queued(&mut self, changed: &Changed, arrived: Instant) {
        self.pending_since.get_or_insert(arrived);
        self.last_queued = Some(arrived);
        self.service_changes.see(changed.service_changes);
        self.endpoint_changes.see(changed.endpoint_changes);
        let room = TRIGGERS_MAX.saturating_sub(self.triggered_unix_ns.len());
        self.triggered_unix_ns.extend(changed.triggered_unix_ns.iter().take(room));
    }

    /// Everything that waited is in the kernel; the work on it took this long.
    pub(crate) fn applied(&mut self, took: Duration) {
        self.syncs.observe(took.as_secs_f64());
        if let Some(since) = self.pending_since.take() {
            self.last_took = since.elapsed();
        }
        self.last_success = Some(Instant::now());
        self.last_error = None;
        (self.service_changes.pending, self.endpoint_changes.pending) = (0, 0);
        let now = SystemTime::now();
        for triggered in std::mem::take(&mut self.triggered_unix_ns) {
            // A clock that is ahead of ours says nothing about time.
            if let Ok(age) = now.duration_since(UNIX_EPOCH + Duration::from_nanos(triggered)) {
                self.programming.observe(age.as_secs_f64());
            }
        }
    }
}

impl Changes {
    fn see(&mut self, count: u64) {
        self.pending += count;
        self.total += count;
    }
}

/// Observations by size.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    /// Upper bounds, ascending, each with how many observations are not above it and above the one before.
    buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Histogram {
    fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        Self { buckets: bounds.into_iter().map(|bound| (bound, 0)).collect(), count: 0, sum: 0.0 }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| value <= *bound) {
            *count += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    /// Upper bounds, each with how many observations are not above it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_an_update_is_told_when_that_or_a_later_one_is_applied() {
        let stats = Stats::default();
        let apply = |sequence| {
            stats.update(|stats| {
                stats.revision = Revision { epoch: 7, sequence };
                stats.last_took = Duration::from_millis(sequence);
            });
        };
        assert_eq!(stats.applied_since(0).await, Applied { epoch: 0, sequence: 0, last_sync_us: 0 });
        let mut waiting = pin!(stats.applied_since(3));
        apply(2);
        assert!(poll!(&mut waiting).is_pending());
        apply(4);
        assert_eq!(waiting.await, Applied { epoch: 7, sequence: 4, last_sync_us: 4_000 });
    }

    #[test]
    fn buckets_are_cumulative_and_as_kube_proxys() {
        let mut stats = SyncStats::default();
        for millis in [1, 3, 100_000] {
            stats.applied(Duration::from_millis(millis));
        }
        let buckets: Vec<_> = stats.syncs.cumulative().collect();
        assert_eq!(buckets[..3], [(0.001, 1), (0.002, 1), (0.004, 2)]);
        assert_eq!(buckets.last(), Some(&(16.384, 2)));
        assert_eq!(stats.syncs.count, 3);
        let bounds: Vec<f64> = programming_bounds().collect();
        assert!(bounds.is_sorted() && bounds.last() == Some(&300.0), "{bounds:?}");
        assert_eq!(bounds.len(), 80);
    }

    #[test]
    fn a_change_is_pending_until_it_is_applied_and_its_trigger_is_measured() {
        let mut stats = SyncStats::default();
        let ago = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") - Duration::from_secs(2);
        let changed = Changed {
            service_changes: 1,
            endpoint_changes: 2,
            triggered_unix_ns: vec![u64::try_from(ago.as_nanos()).expect("before 2554"), u64::MAX],
            ..Changed::default()
        };
        stats.queued(&changed, Instant::now());
        stats.queued(&changed, Instant::now());
        assert_eq!(stats.endpoint_changes, Changes { pending: 4, total: 4 });
        stats.applied(Duration::ZERO);
        assert_eq!(stats.endpoint_changes, Changes { pending: 0, total: 4 });
        assert_eq!(stats.service_changes, Changes { pending: 0, total: 2 });
        assert_eq!(stats.programming.count, 2, "an absurd trigger is left out");
        assert!(stats.programming.sum >= 4.0);
        stats.applied(Duration::ZERO);
        assert_eq!(stats.programming.count, 2, "each is measured once");
    }
}
