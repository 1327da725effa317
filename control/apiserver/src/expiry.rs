//! Events are kept for an hour (kube-apiserver's `--event-ttl`).

use std::sync::Arc;
use std::time::Duration;

use fairlead_store::{Entry, ListRequest, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, prefix};
use crate::error::chain_of;
use crate::resource::find;

const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);
const SWEEP_EVERY: Duration = Duration::from_secs(300);
const PAGE_LEN: usize = 500;

/// When an event last happened.
const TIMES: &[&str] =
    &["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];

/// Removes old events until `shutdown`.
pub(crate) async fn run(api: Arc<Api>, shutdown: CancellationToken) {
    let mut sweeps = interval(SWEEP_EVERY);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = sweeps.tick() => {}
        }
        match sweep(&api, Timestamp::now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "removed old events"),
            Err(error) => tracing::warn!(error = chain_of(&error), "cannot remove old events"),
        }
    }
}

/// Removes the events that are older than their time at `now`; returns how many.
async fn sweep(api: &Api, now: Timestamp) -> Result<usize, StoreError> {
    let events = find("", "v1", "events").expect("events are in the table of kinds");
    let mut request = ListRequest { limit: Some(PAGE_LEN), ..ListRequest::prefix(prefix(events, None)) };
    let mut removed = 0;
    loop {
        let listing = api.store.list(request.clone()).await?;
        for entry in listing.entries.iter().filter(|entry| is_old(entry, now)) {
            match api.store.delete(&entry.key, Some(entry.mod_revision)).await {
                Ok(_) => removed += 1,
                // It happened again, or somebody removed it.
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        request.after = listing.entries.last().map(|entry| entry.key.clone());
        if listing.remaining == 0 {
            return Ok(removed);
        }
    }
}

fn is_old(entry: &Entry, now: Timestamp) -> bool {
    let Ok(event) = serde_json::from_slice::<Value>(&entry.value) else { return false };
    let times = TIMES.iter().filter_map(|path| event.pointer(path)?.as_str()?.parse::<Timestamp>().ok());
    times.max().is_some_and(|last| now.duration_since(last) > EVENT_TTL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_as_old_as_its_last_occurrence() {
        let entry = |event: Value| Entry {
            key: "/registry/events/a/b".to_owned(),
            value: event.to_string().into(),
            create_revision: 1,
            mod_revision: 1,
        };
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let created = json!({ "creationTimestamp": "2026-01-01T10:00:00Z" });
        assert!(is_old(&entry(json!({ "metadata": created })), now));
        let repeated = json!({ "metadata": created, "lastTimestamp": "2026-01-01T11:30:00Z" });
        assert!(!is_old(&entry(repeated), now));
        assert!(!is_old(&entry(json!({ "metadata": {} })), now));
    }
}
