//! Following the cluster: updates in, a new zone published for each.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fairlead_model::{Change, Update, View};
use fairlead_zone::Zone;
use futures::{StreamExt, stream::BoxStream};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Applies updates until shutdown. When the source ends, the last zone stays.
pub(crate) async fn follow(
    mut updates: BoxStream<'static, Update>,
    mut view: View,
    zone: Arc<ArcSwap<Zone>>,
    metrics: Arc<Metrics>,
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
        let first = !view.is_complete();
        apply(&mut view, update, &zone);
        metrics.updates.add();
        if first && view.is_complete() {
            tracing::info!(services = view.services().count(), "the names of the cluster are complete");
        }
    }
}

/// Applies one update: readers see the zone before it or after it.
pub(crate) fn apply(view: &mut View, mut update: Update, zone: &ArcSwap<Zone>) {
    // Names of pods need no pods (they are their addresses), and pods are most of a cluster.
    update.changes.retain(|change| !matches!(change, Change::PutPod(_) | Change::DeletePod(_)));
    let touched = view.apply(update);
    let before = zone.load_full();
    let mut next = Zone::clone(&before);
    next.apply(view, &touched, serial());
    let next = Arc::new(next);
    zone.store(Arc::clone(&next));
    next.outdate(&before, &touched);
}

/// The time in seconds: the SOA's serial, modulo 2^32 as serials are (RFC 1982).
fn serial() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() & u64::from(u32::MAX)) as u32
}
