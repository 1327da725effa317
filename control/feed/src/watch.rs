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

use crate::{feed::Pods, index::Observation, objects::Indexed};

/// A stream of observations of one or more kinds.
pub(crate) type Observations = std::pin::Pin<Box<dyn Stream<Item = Observation> + Send>>;

/// Observations of all five kinds, for ever.
pub(crate) fn all(client: &Client, pods: &Pods) -> SelectAll<Observations> {
    let everything = watcher::Config::default;
    let of_pods = match pods {
        Pods::All => everything(),
        Pods::OfNode(node) => everything().fields(&format!("spec.nodeName={node}")),
    };
    futures::stream::select_all([
        of::<Namespace>(client, everything()),
        of::<Node>(client, everything()),
        of::<EndpointSlice>(client, everything()),
        of::<Service>(client, everything()),
        of::<Pod>(client, of_pods),
    ])
}

fn of<K>(client: &Client, which: watcher::Config) -> Observations
where
    K: Indexed + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(Api::<K>::all(client.clone()), which).default_backoff();
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
