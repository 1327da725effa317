//! What a controller wants done, as values.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cache::Key;

/// The outcome of one reconciliation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes in order. Neighbouring creations and deletions may happen at the same time.
    pub writes: Vec<Write>,
    /// Look again then, even if nothing changes.
    pub again_in: Option<Duration>,
}

impl Plan {
    /// Looks again after `delay`, or earlier if that was said before.
    pub fn again(&mut self, delay: Duration) {
        self.again_in = Some(self.again_in.map_or(delay, |other| other.min(delay)));
    }
}

/// An object in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Path of the collection.
    pub collection: String,
    /// Kind.
    pub kind: String,
    /// Namespace and name; the name is empty when the server chooses it.
    pub key: Key,
}

impl Target {
    /// Of an object.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let key = Key::of(object);
        let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        Self { collection: K::url_path(&(), namespace), kind: K::kind(&()).into_owned(), key }
    }
}

/// An event to be written about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Another object that has to do with it.
    pub related: Option<ObjectReference>,
    /// A warning, else normal.
    pub warning: bool,
    /// Short reason in CamelCase.
    pub reason: &'static str,
    /// The sentence for people.
    pub note: String,
}

/// Events that say how a creation or deletion went.
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// The object that wanted it.
    pub regarding: ObjectReference,
    /// Reason when it succeeded.
    pub done: &'static str,
    /// Reason when it did not.
    pub failed: &'static str,
    /// What was done; the name follows: "Created pod".
    pub what: &'static str,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create an object.
    Create {
        /// Where.
        target: Target,
        /// The object.
        object: Value,
        /// Events about it.
        announce: Option<Announce>,
    },
    /// Merge-patch an object.
    Patch {
        /// Which.
        target: Target,
        /// `status`, or nothing for the object itself.
        subresource: Option<&'static str>,
        /// The patch; with `metadata.resourceVersion` it fails when the object has changed.
        patch: Value,
    },
    /// Replace an object, if it has not changed since it was read.
    Replace {
        /// Which.
        target: Target,
        /// The object with its resource version.
        object: Value,
    },
    /// Delete an object.
    Delete {
        /// Which.
        target: Target,
        /// Only if it still has this UID.
        uid: String,
        /// Another grace period than its own, in seconds.
        grace_secs: Option<u32>,
        /// Events about it.
        announce: Option<Announce>,
    },
    /// Write an event.
    Notify(Notice),
}

fn as_value<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).expect("an API object is always JSON");
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    value
}

impl Write {
    /// Creates an object.
    pub fn create<K: Resource<DynamicType = ()> + Serialize>(object: &K, announce: Option<Announce>) -> Self {
        Self::Create { target: Target::of(object), object: as_value(object), announce }
    }

    /// Replaces an object that was read before.
    pub fn replace<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::Replace { target: Target::of(object), object: as_value(object) }
    }

    /// Patches an object as it was read; fails when it has changed since.
    pub fn patch<K: Resource<DynamicType = ()>>(object: &K, mut patch: Value) -> Self {
        patch["metadata"]["resourceVersion"] = json!(object.meta().resource_version);
        Self::Patch { target: Target::of(object), subresource: None, patch }
    }

    /// Patches the status of an object, which nobody else writes.
    pub fn patch_status<K: Resource<DynamicType = ()>>(object: &K, status: &impl Serialize) -> Self {
        let patch = json!({ "status": status });
        Self::Patch { target: Target::of(object), subresource: Some("status"), patch }
    }

    /// Patches the status of an object as it was read; fails when it has changed since.
    pub fn patch_read_status<K: Resource<DynamicType = ()>>(object: &K, status: &impl Serialize) -> Self {
        let version = &object.meta().resource_version;
        let patch = json!({ "metadata": {"resourceVersion": version}, "status": status });
        Self::Patch { target: Target::of(object), subresource: Some("status"), patch }
    }

    /// Deletes an object as it was read.
    pub fn delete<K: Resource<DynamicType = ()>>(object: &K, announce: Option<Announce>) -> Self {
        let uid = object.meta().uid.clone().unwrap_or_default();
        Self::Delete { target: Target::of(object), uid, grace_secs: None, announce }
    }

    /// Deletes an object at once, without waiting for whoever runs it.
    pub fn delete_now<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let uid = object.meta().uid.clone().unwrap_or_default();
        Self::Delete { target: Target::of(object), uid, grace_secs: Some(0), announce: None }
    }

    /// The object it is about.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Create { target, .. }
            | Self::Patch { target, .. }
            | Self::Replace { target, .. }
            | Self::Delete { target, .. } => Some(target),
            Self::Notify(_) => None,
        }
    }

    /// What it does, for logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Patch { .. } => "patch",
            Self::Replace { .. } => "replace",
            Self::Delete { .. } => "delete",
            Self::Notify(_) => "notify",
        }
    }
}
