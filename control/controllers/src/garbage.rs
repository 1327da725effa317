//! Garbage collection by owner references: what nobody owns any more goes.

pub mod graph;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::SelectAll};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Discovery,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ApiResource, PartialObjectMeta},
    discovery::{Scope, verbs},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use graph::{Action, Graph, Item};

/// Kinds that come and go too often to be worth watching, and own nothing.
const NOT_WATCHED: [&str; 2] = ["events", "leases"];

/// Pause before something that failed is tried again, and between attempts to discover.
const RETRY: Duration = Duration::from_secs(1);

/// A kind that is collected.
#[derive(Clone)]
struct Kind {
    resource: ApiResource,
    namespaced: bool,
}

type Event = (usize, watcher::Event<PartialObjectMeta<DynamicObject>>);
type Events = std::pin::Pin<Box<dyn futures::Stream<Item = Event> + Send>>;

/// Collects until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let kinds = loop {
        let found = tokio::select! {
            found = discover(&client) => found,
            () = shutdown.cancelled() => return,
        };
        match found {
            Ok(kinds) => break kinds,
            Err(error) => {
                tracing::warn!(%error, "the garbage collector cannot discover the API; trying again");
            }
        }
        tokio::select! {
            () = sleep(RETRY) => {}
            () = shutdown.cancelled() => return,
        }
    };
    let mut events = watch(&client, &kinds);
    let mut collector = Collector::new(client, kinds);
    loop {
        let retry = collector.retry_at;
        let pause = async move {
            match retry {
                Some(at) => sleep_until(at).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(event) = events.next() => collector.observe(event),
            () = pause => collector.retry(),
        }
        while let Some(Some(event)) = events.next().now_or_never() {
            collector.observe(event);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = collector.collect() => {}
        }
    }
}

async fn discover(client: &Client) -> Result<Vec<Kind>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let collected = resources.filter(|(resource, caps)| {
        [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| caps.supports_operation(verb))
            && !NOT_WATCHED.contains(&resource.plural.as_str())
    });
    let kind = |(resource, caps): (ApiResource, kube::discovery::ApiCapabilities)| Kind {
        resource,
        namespaced: caps.scope == Scope::Namespaced,
    };
    Ok(collected.map(kind).collect())
}

fn watch(client: &Client, kinds: &[Kind]) -> SelectAll<Events> {
    let streams = kinds.iter().enumerate().map(|(at, kind)| {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &kind.resource);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let events: Events =
            Box::pin(events.filter_map(move |event| future::ready(event.ok().map(|event| (at, event)))));
        events
    });
    futures::stream::select_all(streams)
}

/// The graph, and what has to be looked at.
struct Collector {
    client: Client,
    kinds: Vec<Kind>,
    graph: Graph,
    /// UIDs seen since the listing of a kind began.
    listing: HashMap<usize, HashSet<String>>,
    listed: HashSet<usize>,
    dirty: VecDeque<String>,
    failed: HashSet<String>,
    retry_at: Option<Instant>,
}

impl Collector {
    fn new(client: Client, kinds: Vec<Kind>) -> Self {
        Self {
            client,
            kinds,
            graph: Graph::default(),
            listing: HashMap::new(),
            listed: HashSet::new(),
            dirty: VecDeque::new(),
            failed: HashSet::new(),
            retry_at: None,
        }
    }

    fn observe(&mut self, (kind, event): Event) {
        match event {
            watcher::Event::Init => {
                self.listing.insert(kind, HashSet::new());
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                let item = Item::new(kind, &object.metadata);
                if let Some(seen) = self.listing.get_mut(&kind) {
                    seen.insert(item.uid.clone());
                }
                self.dirty.extend(self.graph.put(item));
            }
            watcher::Event::Delete(object) => {
                self.dirty.extend(self.graph.remove(object.metadata.uid.as_deref().unwrap_or_default()));
            }
            watcher::Event::InitDone => {
                let seen = self.listing.remove(&kind).unwrap_or_default();
                for uid in self.graph.uids_of(kind).filter(|uid| !seen.contains(uid)).collect::<Vec<_>>() {
                    self.dirty.extend(self.graph.remove(&uid));
                }
                self.listed.insert(kind);
            }
        }
    }

    fn retry(&mut self) {
        self.retry_at = None;
        self.dirty.extend(self.failed.drain());
    }

    /// Does what the graph asks for. Nothing before every kind has been listed: until then every owner may exist.
    async fn collect(&mut self) {
        if self.listed.len() < self.kinds.len() {
            return;
        }
        while let Some(uid) = self.dirty.pop_front() {
            for action in self.graph.evaluate(&uid) {
                if let Err(error) = self.act(&action).await {
                    tracing::debug!(%error, ?action, "the garbage collector looks again");
                    self.failed.insert(uid.clone());
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    fn api(&self, item: &Item) -> Api<DynamicObject> {
        let kind = &self.kinds[item.kind];
        match &item.namespace {
            Some(namespace) if kind.namespaced => {
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource)
            }
            _ => Api::all_with(self.client.clone(), &kind.resource),
        }
    }

    async fn act(&mut self, action: &Action) -> Result<(), kube::Error> {
        match action {
            Action::Delete { item, absent, foreground } => {
                for owner in absent {
                    if self.exists(item, owner).await? {
                        // Its watch is behind; when it arrives the item is looked at again.
                        return Ok(());
                    }
                }
                let policy =
                    if *foreground { PropagationPolicy::Foreground } else { PropagationPolicy::Background };
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions {
                        uid: Some(item.uid.clone()),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                tracing::debug!(
                    name = item.name,
                    kind = self.kinds[item.kind].resource.kind,
                    "its owners are gone"
                );
                accept(self.api(item).delete(&item.name, &params).await.map(drop))
            }
            Action::RemoveOwners { item, uids } => {
                let current = self.api(item).get_metadata_opt(&item.name).await?;
                let Some(current) = current.filter(|now| now.metadata.uid.as_deref() == Some(&item.uid))
                else {
                    return Ok(());
                };
                let mut owners = current.metadata.owner_references.unwrap_or_default();
                owners.retain(|owner| !uids.contains(&owner.uid));
                let version = current.metadata.resource_version;
                let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}});
                self.patch(item, patch).await
            }
            Action::RemoveFinalizer { item, finalizer } => {
                let current = self.api(item).get_metadata_opt(&item.name).await?;
                let Some(current) = current.filter(|now| now.metadata.uid.as_deref() == Some(&item.uid))
                else {
                    return Ok(());
                };
                let mut finalizers = current.metadata.finalizers.unwrap_or_default();
                finalizers.retain(|one| one != finalizer);
                let version = current.metadata.resource_version;
                let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
                self.patch(item, patch).await
            }
        }
    }

    async fn patch(&self, item: &Item, patch: serde_json::Value) -> Result<(), kube::Error> {
        let api = self.api(item);
        accept(api.patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
    }

    /// Asks the API whether an owner that the graph does not have exists all the same. An owner of a kind that is not
    /// known counts as existing.
    async fn exists(&self, item: &Item, owner: &OwnerReference) -> Result<bool, kube::Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let same = |kind: &&Kind| kind.resource.group == group && kind.resource.kind == owner.kind;
        let Some(kind) = self.kinds.iter().find(same) else { return Ok(true) };
        let api: Api<DynamicObject> = match &item.namespace {
            Some(namespace) if kind.namespaced => {
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource)
            }
            _ => Api::all_with(self.client.clone(), &kind.resource),
        };
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid)))
    }
}

/// An object that is gone, or is another one by now, needs nothing.
fn accept(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result,
    }
}
