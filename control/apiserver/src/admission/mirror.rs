//! The objects of a kind, in memory, for the plugins that look at them on every write.
//!
//! A read first takes what the watch has queued. The store queues a change before it answers the writer, so a read here
//! sees every write that this server has acknowledged; those of other servers a moment later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_store::{Event, ListRequest, Store, Watch};
use serde_json::Value;

use crate::api::prefix;
use crate::error::ApiError;
use crate::object;
use crate::resource::{Resource, find};

/// A kind and its objects.
#[derive(Debug)]
pub(super) struct Mirror {
    resource: &'static Resource,
    /// Absent until somebody asks, and after the watch fell behind.
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Arc<Value>>,
    watch: Watch,
}

impl Mirror {
    pub(super) fn of(group: &str, plural: &str) -> Self {
        let resource = find(group, "v1", plural).expect("admission is about kinds in the table");
        Self { resource, state: Mutex::default() }
    }

    /// The objects, of one namespace if there are any.
    pub(super) async fn list(
        &self,
        store: &dyn Store,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let start = prefix(self.resource, namespace);
        loop {
            if let Some(found) = self.known(&start)? {
                return Ok(found);
            }
            let fresh = self.load(store).await?;
            *self.lock() = Some(fresh);
        }
    }

    /// What is known after the queued changes; `None` when that is not enough.
    fn known(&self, start: &str) -> Result<Option<Vec<Arc<Value>>>, ApiError> {
        let mut state = self.lock();
        let Some(current) = state.as_mut() else { return Ok(None) };
        loop {
            match current.watch.try_next() {
                Ok(None) => break,
                Ok(Some(event)) => current.apply(self.resource, &event)?,
                // Cut off: everything is read anew.
                Err(_) => {
                    *state = None;
                    return Ok(None);
                }
            }
        }
        let found = current.objects.range(start.to_owned()..).take_while(|(key, _)| key.starts_with(start));
        Ok(Some(found.map(|(_, object)| object.clone()).collect()))
    }

    async fn load(&self, store: &dyn Store) -> Result<State, ApiError> {
        let all = prefix(self.resource, None);
        let listing = store.list(ListRequest::prefix(all.as_str())).await?;
        let watch = store.watch(&all, listing.revision).await?;
        let mut objects = BTreeMap::new();
        for entry in listing.entries {
            let object = object::decode(self.resource, &entry.value, entry.mod_revision)?;
            objects.insert(entry.key, Arc::new(object));
        }
        Ok(State { objects, watch })
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        // After a panic in the middle of an event the map is older than the watch by one change of one object.
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state = poisoned.into_inner();
            *state = None;
            state
        })
    }
}

impl State {
    fn apply(&mut self, resource: &'static Resource, event: &Event) -> Result<(), ApiError> {
        match &event.value {
            None => drop(self.objects.remove(&event.key)),
            Some(value) => {
                let object = object::decode(resource, value, event.revision)?;
                self.objects.insert(event.key.clone(), Arc::new(object));
            }
        }
        Ok(())
    }
}
