//! The last events, decoded once for all the watches whose selectors look into them.
//!
//! Every kubelet watches the pods of its own node, so each change of a pod is looked at by as many watches as there are
//! nodes, all at about the same time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_store::{Event, Revision};
use serde_json::Value;

use crate::error::ApiError;
use crate::object;
use crate::resource::Resource;

/// How many events are remembered.
const LEN_MAX: usize = 16;

/// An event's object after and before.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) value: Option<Value>,
    pub(crate) previous: Option<Value>,
}

/// The memory.
#[derive(Debug, Default)]
pub(crate) struct RecentlyDecoded {
    events: Mutex<VecDeque<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    revision: Revision,
    resource: &'static Resource,
    decoded: Arc<Decoded>,
}

impl RecentlyDecoded {
    /// The objects of an event in the form of this kind.
    pub(crate) fn get(&self, resource: &'static Resource, event: &Event) -> Result<Arc<Decoded>, ApiError> {
        let is_it =
            |known: &&Remembered| known.revision == event.revision && std::ptr::eq(known.resource, resource);
        if let Some(known) = self.lock().iter().rev().find(is_it) {
            return Ok(known.decoded.clone());
        }
        let decode = |stored| object::decode(resource, stored, event.revision);
        let decoded = Arc::new(Decoded {
            value: event.value.as_deref().map(decode).transpose()?,
            previous: event.previous.as_deref().map(decode).transpose()?,
        });
        let mut events = self.lock();
        if events.len() == LEN_MAX {
            events.pop_front();
        }
        events.push_back(Remembered { revision: event.revision, resource, decoded: decoded.clone() });
        Ok(decoded)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Remembered>> {
        // The queue is whole after any panic of its user.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fairlead_store::EventKind;
    use serde_json::json;

    use super::*;
    use crate::resource::find;

    #[test]
    fn an_event_is_decoded_once_for_each_form() {
        let event = |revision| Event {
            revision,
            kind: EventKind::Created,
            key: "/registry/events/a/b".to_owned(),
            value: Some(Bytes::from(json!({ "metadata": { "name": "b" }, "message": "m" }).to_string())),
            previous: None,
        };
        let (core, new) = (find("", "v1", "events").unwrap(), find("events.k8s.io", "v1", "events").unwrap());
        let recent = RecentlyDecoded::default();
        let first = recent.get(core, &event(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &recent.get(core, &event(1)).unwrap()));
        assert_eq!(recent.get(new, &event(1)).unwrap().value.as_ref().unwrap()["note"], "m");
        for revision in 2..40 {
            recent.get(core, &event(revision)).unwrap();
        }
        assert_eq!(recent.lock().len(), LEN_MAX);
        assert!(!Arc::ptr_eq(&first, &recent.get(core, &event(1)).unwrap()));
    }
}
