//! The feed as a source of updates.

use fairlead_model::Update;
use fairlead_wire::{FeedEndpoint, Subscription};
use futures::Stream;

/// The updates of a feed, read in the name of a node; it reconnects for as long as it takes and never ends.
pub fn feed_updates(endpoint: FeedEndpoint, node: &str) -> impl Stream<Item = Update> + Send + 'static {
    futures::stream::unfold(Subscription::new(endpoint, node), |mut subscription| async move {
        Some((subscription.next().await, subscription))
    })
}
