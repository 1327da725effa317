//! The watches that keep the index true.

use std::fmt::Debug;

use fairlead_model::ObjectName;
use futures::{Stream, StreamExt, future, stream::SelectAll};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use crate::{
    feed::Pods,
    index::Observation,
    objects::{Indexed, Kind, corefile_name},
};

/// A stream of observations of one or more kinds.
pub(crate) type Observations = std::pin::Pin<Box<dyn Stream<Item = Observation> + Send>>;

/// Observations of all kinds, for ever.
pub(crate) fn all(client: &Client, pods: &Pods) -> SelectAll<Observations> {
    let everything = watcher::Config::default;
    let (of_pods, corefile) = match pods {
        Pods::All => (everything(), corefile(client)),
        // Who wants one node's pods is a service proxy: it has no use for the ConfigMap, and no right to it.
        Pods::OfNode(node) => (everything().fields(&format!("spec.nodeName={node}")), no_corefile()),
    };
    futures::stream::select_all([
        of::<Namespace>(client, everything()),
        of::<Node>(client, everything()),
        of::<EndpointSlice>(client, everything()),
        of::<Service>(client, everything()),
        of::<Pod>(client, of_pods),
        corefile,
    ])
}

fn of<K>(client: &Client, which: watcher::Config) -> Observations
where
    K: Indexed + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    observe(Api::<K>::all(client.clone()), which)
}

/// The one ConfigMap that matters.
fn corefile(client: &Client) -> Observations {
    let ObjectName { namespace, name } = corefile_name();
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    observe(Api::<ConfigMap>::namespaced(client.clone(), &namespace), only)
}

fn no_corefile() -> Observations {
    let listed = [Observation::Listing(Kind::Corefile), Observation::Listed(Kind::Corefile)];
    Box::pin(futures::stream::iter(listed).chain(futures::stream::pending()))
}

fn observe<K>(api: Api<K>, which: watcher::Config) -> Observations
where
    K: Indexed + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(api, which).default_backoff();
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
