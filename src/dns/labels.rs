//! Objects by their labels: in a cluster from the API, which selects them itself; else from the file of manifests.

use std::{collections::BTreeSet, fmt::Debug, path::PathBuf};

use fairlead_apiserver::selector::LabelSelector;
use fairlead_dns::{Labelled, Labels, Selected};
use fairlead_model::ObjectName;
use futures::{FutureExt as _, StreamExt as _, future};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::{
    Api, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;
use tokio::time::sleep;

use super::objects;
use crate::identity::Identity;

/// Time between two attempts to become a client of the API.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The cluster's labels, watched only when a Corefile asks for them.
#[derive(Debug)]
pub(super) struct InCluster(pub(super) Identity);

/// Labels in a file.
#[derive(Debug)]
pub(super) struct InFile(pub(super) PathBuf);

impl Labels for InCluster {
    fn select(&self, kind: Labelled, selector: &str) -> Result<Selected, String> {
        LabelSelector::parse(selector).map_err(|error| error.to_string())?;
        Ok(match kind {
            Labelled::Services => watch::<Service>(self.0.clone(), selector.to_owned()),
            Labelled::Namespaces => watch::<Namespace>(self.0.clone(), selector.to_owned()),
            Labelled::Pods => watch::<Pod>(self.0.clone(), selector.to_owned()),
        })
    }
}

/// The names of a kind's objects that match, for ever.
fn watch<K>(identity: Identity, selector: String) -> Selected
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let names = async move {
        let client = loop {
            match identity.client().await {
                Ok(client) => break client,
                Err(error) => tracing::warn!("cannot ask for labels: {error:#}"),
            }
            sleep(AGAIN).await;
        };
        let which = watcher::Config::default().labels(&selector);
        let events = watcher(Api::<PartialObjectMeta<K>>::all(client), which).default_backoff();
        events.scan(Watched::default(), |watched, event| {
            future::ready(Some(match event {
                Ok(event) => watched.take(event),
                Err(error) => {
                    tracing::warn!("the watch of labels is interrupted; it is resumed: {error}");
                    None
                }
            }))
        })
    };
    names.into_stream().flatten().filter_map(future::ready).boxed()
}

/// Names of the objects that match.
#[derive(Default)]
struct Watched {
    names: BTreeSet<ObjectName>,
    /// They are being listed anew.
    listing: bool,
}

impl Watched {
    /// All names, when they are another set now and it is whole.
    fn take<K: Resource>(&mut self, event: watcher::Event<K>) -> Option<BTreeSet<ObjectName>> {
        let name = |object: &K| ObjectName::new(object.namespace().unwrap_or_default(), object.name_any());
        let changed = match event {
            watcher::Event::Init => {
                self.names.clear();
                self.listing = true;
                false
            }
            watcher::Event::InitDone => {
                self.listing = false;
                true
            }
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                self.names.insert(name(&object))
            }
            watcher::Event::Delete(object) => self.names.remove(&name(&object)),
        };
        (changed && !self.listing).then(|| self.names.clone())
    }
}

impl Labels for InFile {
    fn select(&self, kind: Labelled, selector: &str) -> Result<Selected, String> {
        let selector = LabelSelector::parse(selector).map_err(|error| error.to_string())?;
        let kind = match kind {
            Labelled::Services => "Service",
            Labelled::Namespaces => "Namespace",
            Labelled::Pods => "Pod",
        };
        let read = move |text: &str| {
            let objects = objects::read(text)?;
            let of_kind = objects.iter().filter(|object| object["kind"] == *kind);
            let matching = of_kind.filter(|object| matches(&selector, object));
            Ok(matching.map(name).collect())
        };
        objects::follow(&self.0, read).map_err(|error| format!("{error:#}"))
    }
}

fn matches(selector: &LabelSelector, object: &Value) -> bool {
    serde_json::to_value(&object["metadata"]["labels"]).is_ok_and(|labels| selector.matches_labels(&labels))
}

fn name(object: &Value) -> ObjectName {
    let part = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    ObjectName::new(part("namespace"), part("name"))
}
