//! Claims and Services brought together: at the start, and then from time to time (as upstream's repair controllers).
//!
//! A claim is written with its Service, so there is nothing to do but after a user removed an `IPAddress`, and in a store
//! that was written before there were claims.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_store::{Entry, ListRequest, StoreError};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::claims::{ADDRESSES, ALLOCATOR, Claim, MANAGED_BY, NODE_PORTS};
use super::claims_of;
use crate::api::{Api, prefix};
use crate::error::chain_of;
use crate::object;
use crate::resource::find;

/// kube-apiserver's interval.
const REPAIR_EVERY: Duration = Duration::from_secs(180);

/// Why claims and Services cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The store does not answer.
    #[error("cannot read the stored Services")]
    Store(#[from] StoreError),
    /// A stored object cannot be read.
    #[error("cannot read the stored Services: {0}")]
    Damaged(String),
}

/// Repairs until `shutdown`.
pub(crate) async fn run(api: Arc<Api>, shutdown: CancellationToken) {
    let mut repairs = interval(REPAIR_EVERY);
    repairs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    repairs.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = repairs.tick() => {}
        }
        if let Err(error) = repair(&api).await {
            tracing::warn!(error = chain_of(&error), "cannot compare Services with what they claim");
        }
    }
}

/// Claims what Services have, and removes the claims of none; then remembers which claims there are.
pub(crate) async fn repair(api: &Api) -> Result<(), RepairError> {
    let services = find("", "v1", "services").expect("Services are in the table of kinds");
    let store = &*api.store;
    let listing = store.list(ListRequest::prefix(prefix(services, None))).await?;
    let mut wanted = HashMap::new();
    for entry in &listing.entries {
        let service = object::decode(services, &entry.value, entry.mod_revision)
            .map_err(|error| RepairError::Damaged(error.to_string()))?;
        for claim in claims_of(&service) {
            if let Some(first) = wanted.insert(claim, service.clone()) {
                let (first, second) = (object::meta(&first, "name"), object::meta(&service, "name"));
                tracing::error!(?claim, first, second, "two Services have the same; recreate one of them");
            }
        }
    }
    for prefix in [ADDRESSES, NODE_PORTS] {
        // The state that the Services were read in: what was claimed since is not missing its Service.
        let request = ListRequest { at: Some(listing.revision), ..ListRequest::prefix(prefix) };
        for entry in store.list(request).await?.entries {
            let claim = Claim::of_key(&entry.key);
            let is_wanted = claim.is_some_and(|claim| wanted.remove(&claim).is_some());
            if !is_wanted && is_ours(&entry) {
                tracing::info!(key = entry.key, "removed the claim of no Service");
                settled(store.delete(&entry.key, Some(entry.mod_revision)).await)?;
            }
        }
    }
    for (claim, service) in wanted {
        tracing::info!(?claim, service = object::meta(&service, "name"), "claimed what the Service has");
        settled(store.create(&claim.key(), claim.value(&service)).await)?;
    }
    api.addresses.reload(store).await?;
    Ok(())
}

/// Users may make `IPAddress` objects of their own.
fn is_ours(entry: &Entry) -> bool {
    let managed = |object: Value| object["metadata"]["labels"][MANAGED_BY] == ALLOCATOR;
    entry.key.starts_with(NODE_PORTS) || serde_json::from_slice(&entry.value).is_ok_and(managed)
}

/// Another server may be doing the same.
fn settled<T>(outcome: Result<T, StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(StoreError::Exists { .. } | StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Ok(()),
        outcome => outcome.map(drop),
    }
}
