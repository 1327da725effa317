//! What the controllers know: every object of the kinds they work on, as far as they ask for it ([`Slim`]), kept true by
//! watches and by their own writes.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Resource, runtime::watcher};
use serde_json::Value;
use tokio::sync::watch;

mod slim;

pub use slim::Slim;

/// Namespace and name; cluster-wide objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An object before and after a change.
#[derive(Clone, Debug)]
pub struct Changed<K> {
    /// As it was; `None` when it is new.
    pub old: Option<Arc<K>>,
    /// As it is; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Changed<K> {
    /// The object, as it is or else as it was.
    pub fn latest(&self) -> &K {
        self.new.as_deref().or(self.old.as_deref()).expect("a change has at least one side")
    }

    /// Both sides that exist.
    pub fn sides(&self) -> impl Iterator<Item = &K> {
        self.old.as_deref().into_iter().chain(self.new.as_deref())
    }
}

/// UIDs of deleted objects that are remembered, so that a late answer does not bring one back.
const TOMBSTONES_MAX: usize = 4096;

/// The objects of one kind. Its writers are the watch and the controllers' own writes; the newer version wins.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    listed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    tombstones: HashSet<String>,
    tombstone_order: VecDeque<String>,
    /// Keys put since the listing began; `None` outside a listing.
    listing: Option<HashSet<Key>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            tombstones: HashSet::new(),
            tombstone_order: VecDeque::new(),
            listing: None,
        };
        Self { inner: RwLock::new(inner), listed: watch::Sender::new(false) }
    }
}

/// Versions are numbers that grow (guaranteed since Kubernetes 1.35, true before).
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

impl<K> Inner<K> {
    fn bury(&mut self, uid: String) {
        if self.tombstones.insert(uid.clone()) {
            self.tombstone_order.push_back(uid);
        }
        while self.tombstone_order.len() > TOMBSTONES_MAX {
            if let Some(oldest) = self.tombstone_order.pop_front() {
                self.tombstones.remove(&oldest);
            }
        }
    }
}

impl<K: Slim> Cache<K> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        let from = inner.objects.range(Key::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// All objects, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Takes in a version of an object; `None` when it is not newer than what is known.
    pub fn put(&self, mut object: K) -> Option<Changed<K>> {
        object.slim();
        let mut inner = self.write();
        let key = Key::of(&object);
        if object.meta().uid.as_ref().is_some_and(|uid| inner.tombstones.contains(uid)) {
            return None;
        }
        if let Some(listing) = &mut inner.listing {
            listing.insert(key.clone());
        }
        let old = inner.objects.get(&key).cloned();
        if let Some(old) = &old
            && let (Some(known), Some(offered)) = (version(old.as_ref()), version(&object))
            && offered <= known
        {
            return None;
        }
        let new = Arc::new(object);
        inner.objects.insert(key, Arc::clone(&new));
        Some(Changed { old, new: Some(new) })
    }

    /// Takes in a deletion. An object of the same name and another UID stays.
    pub fn delete(&self, key: &Key, uid: Option<&str>) -> Option<Changed<K>> {
        let mut inner = self.write();
        if let Some(uid) = uid {
            inner.bury(uid.to_owned());
        }
        let known = inner.objects.get(key)?.meta().uid.as_deref();
        if uid.is_some() && known != uid {
            return None;
        }
        let old = inner.objects.remove(key)?;
        Some(Changed { old: Some(old), new: None })
    }

    /// Takes in what a watch reports; returns what that changed.
    pub fn observe(&self, event: watcher::Event<K>) -> Vec<Changed<K>> {
        match event {
            watcher::Event::Init => {
                self.write().listing = Some(HashSet::new());
                Vec::new()
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.put(object).into_iter().collect()
            }
            watcher::Event::Delete(object) => {
                let uid = object.meta().uid.clone();
                self.delete(&Key::of(&object), uid.as_deref()).into_iter().collect()
            }
            watcher::Event::InitDone => {
                let gone: Vec<Key> = {
                    let mut inner = self.write();
                    let seen = inner.listing.take().unwrap_or_default();
                    inner.objects.keys().filter(|key| !seen.contains(key)).cloned().collect()
                };
                let changes = gone.iter().filter_map(|key| self.delete(key, None)).collect();
                self.listed.send_replace(true);
                changes
            }
        }
    }

    /// Waits for the first complete listing.
    pub async fn listed(&self) {
        let mut listed = self.listed.subscribe();
        // The sender lives as long as self.
        let _ = listed.wait_for(|listed| *listed).await;
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $field:ident: $kind:ident,)*) => {
        /// One cache per kind.
        #[derive(Debug, Default)]
        pub struct Caches {
            $($(#[$doc])* pub $field: Cache<$kind>,)*
        }

        /// A change of an object of any of the kinds.
        #[derive(Clone, Debug)]
        pub enum Touched {
            $($(#[$doc])* $kind(Changed<$kind>),)*
        }

        impl Caches {
            /// Takes in the API's answer to a write, when it is an object of one of the kinds.
            pub fn absorb(&self, kind: &str, object: Value) -> Option<Touched> {
                match kind {
                    $(stringify!($kind) => {
                        let object = serde_json::from_value(object).ok()?;
                        self.$field.put(object).map(Touched::$kind)
                    })*
                    _ => None,
                }
            }

            /// Takes in that an object is gone.
            pub fn absorb_deletion(&self, kind: &str, key: &Key, uid: &str) -> Option<Touched> {
                match kind {
                    $(stringify!($kind) => self.$field.delete(key, Some(uid)).map(Touched::$kind),)*
                    _ => None,
                }
            }

            /// Waits until every kind has been listed.
            pub async fn listed(&self) {
                $(self.$field.listed().await;)*
            }
        }

        $(impl Cached for $kind {
            fn cache(caches: &Caches) -> &Cache<Self> {
                &caches.$field
            }

            fn touched(changed: Changed<Self>) -> Touched {
                Touched::$kind(changed)
            }
        })*
    };
}

/// A kind that has a cache.
pub trait Cached: Sized {
    /// Its cache.
    fn cache(caches: &Caches) -> &Cache<Self>;

    /// A change of one of its objects.
    fn touched(changed: Changed<Self>) -> Touched;
}

kinds! {
    /// Deployments.
    deployments: Deployment,
    /// Replica sets.
    replica_sets: ReplicaSet,
    /// Pods.
    pods: Pod,
    /// Services.
    services: Service,
    /// Endpoint slices.
    slices: EndpointSlice,
    /// Nodes.
    nodes: Node,
    /// Leases.
    leases: Lease,
    /// Namespaces.
    namespaces: Namespace,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str, version: u64) -> Pod {
        let meta = serde_json::json!({"namespace": "demo", "name": name, "uid": uid, "resourceVersion": version.to_string()});
        serde_json::from_value(serde_json::json!({"metadata": meta})).expect("a pod")
    }

    #[test]
    fn the_newer_version_wins_whoever_brings_it() {
        let cache = Cache::default();
        assert!(cache.put(pod("a", "1", 5)).is_some());
        assert!(cache.put(pod("a", "1", 4)).is_none());
        assert!(cache.put(pod("a", "1", 6)).is_some());
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let cache = Cache::default();
        cache.put(pod("a", "1", 5));
        cache.observe(watcher::Event::Delete(pod("a", "1", 6)));
        assert!(cache.put(pod("a", "1", 5)).is_none());
        assert!(cache.put(pod("a", "2", 7)).is_some(), "another object of the same name");
        assert!(cache.delete(&Key::new("demo", "a"), Some("1")).is_none(), "not that one");
    }

    #[test]
    fn a_new_listing_removes_what_it_lacks_but_not_what_was_written_meanwhile() {
        let cache = Cache::default();
        cache.put(pod("old", "1", 1));
        cache.observe(watcher::Event::Init);
        cache.observe(watcher::Event::InitApply(pod("kept", "2", 2)));
        cache.put(pod("written", "3", 3));
        let gone = cache.observe(watcher::Event::InitDone);
        assert_eq!(gone.len(), 1);
        let left: Vec<_> = cache.in_namespace("demo").iter().map(|pod| Key::of(pod.as_ref()).name).collect();
        assert_eq!(left, ["kept", "written"]);
    }
}
