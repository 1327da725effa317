//! The watches that keep the index true.

use std::fmt::Debug;

use fairlead_model::ObjectName;
use futures::{Stream, StreamExt, future, stream::SelectAll};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use self::said::{Right, Said};
use crate::{
    feed::Pods,
    index::Observation,
    objects::{Indexed, Kind, corefile_name},
};

mod said;

/// A stream of observations of one or more kinds.
pub(crate) type Observations = std::pin::Pin<Box<dyn Stream<Item = Observation> + Send>>;

/// What a service proxy lacks without pods.
const WITHOUT_PODS: &str = "pods' host ports are not served here, and flows are without the names of pods";

/// What is missing without the networks of services.
const WITHOUT_NETWORKS: &str =
    "an address of services that no service has is not refused; --service-cidr says where they are";

/// Observations of all kinds, for ever; of the networks of services if they are asked for.
pub(crate) fn all(client: &Client, pods: &Pods, service_networks: bool) -> SelectAll<Observations> {
    let everything = watcher::Config::default;
    let more = match pods {
        Pods::All => [
            of::<Namespace>(client, everything(), Right::Needed),
            of::<Pod>(client, everything(), Right::Needed),
            corefile(client),
        ],
        // Who wants one node's pods is a service proxy: it has no use for namespaces and the ConfigMap, and kube-proxy's
        // credentials may read neither those nor pods.
        Pods::OfNode(node) => [
            none(Kind::Namespace),
            of::<Pod>(
                client,
                everything().fields(&format!("spec.nodeName={node}")),
                Right::Wanted(WITHOUT_PODS),
            ),
            none(Kind::Corefile),
        ],
    };
    let networks = if service_networks {
        of::<ServiceCIDR>(client, everything(), Right::Wanted(WITHOUT_NETWORKS))
    } else {
        none(Kind::ServiceNetworks)
    };
    let always = [
        networks,
        of::<Node>(client, everything(), Right::Needed),
        of::<EndpointSlice>(client, everything(), Right::Needed),
        of::<Service>(client, everything(), Right::Needed),
    ];
    futures::stream::select_all(more.into_iter().chain(always))
}

fn of<K>(client: &Client, which: watcher::Config, right: Right) -> Observations
where
    K: Indexed + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    observe(Api::<K>::all(client.clone()), which, right)
}

/// The one ConfigMap that matters.
fn corefile(client: &Client) -> Observations {
    let ObjectName { namespace, name } = corefile_name();
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    observe(Api::<ConfigMap>::namespaced(client.clone(), &namespace), only, Right::Needed)
}

/// A kind that is not asked for, and of which there is nothing.
fn none(kind: Kind) -> Observations {
    let listed = [Observation::Listing(kind), Observation::Listed(kind)];
    Box::pin(futures::stream::iter(listed).chain(futures::stream::pending()))
}

fn observe<K>(api: Api<K>, which: watcher::Config, right: Right) -> Observations
where
    K: Indexed + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut said = Said::new(K::plural(&()).into_owned(), right);
    let events = watcher(api, which).default_backoff();
    Box::pin(events.filter_map(move |event| {
        let observation = match event {
            Ok(event) => {
                let warnings = said.event(&event);
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                Some(observation(&event))
            }
            Err(error) => {
                let (warning, does_without) = said.error(&error);
                if let Some(warning) = warning {
                    tracing::warn!("{warning}");
                }
                does_without.then_some(Observation::Listed(K::KIND))
            }
        };
        future::ready(observation)
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
