//! The watches that keep the index true.

use std::fmt::Debug;

use futures::{Stream, StreamExt, future, stream::SelectAll};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use crate::{index::Observation, objects::Indexed};

/// A stream of observations of one or more kinds.
pub(crate) type Observations = std::pin::Pin<Box<dyn Stream<Item = Observation> + Send>>;

/// Observations of all five kinds, for ever.
pub(crate) fn all(client: &Client) -> SelectAll<Observations> {
    futures::stream::select_all([
        of::<Namespace>(client),
        of::<Node>(client),
        of::<EndpointSlice>(client),
        of::<Service>(client),
        of::<Pod>(client),
    ])
}

fn of<K>(client: &Client) -> Observations
where
    K: Indexed + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    Box::pin(events.filter_map(|event| {
        future::ready(match event {
            Ok(event) => Some(observation(&event)),
            Err(error) => {
                tracing::warn!(kind = ?K::KIND, %error, "the feed's watch is interrupted; it is resumed");
                None
            }
        })
    }))
}

fn observation<K: Indexed>(event: &watcher::Event<K>) -> Observation {
    match event {
        watcher::Event::Init => Observation::Listing(K::KIND),
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
            Observation::Changed(object.put())
        }
        watcher::Event::InitDone => Observation::Listed(K::KIND),
        watcher::Event::Delete(object) => Observation::Changed(object.delete()),
    }
}
