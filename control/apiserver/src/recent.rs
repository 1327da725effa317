//! What was made of the last events, for all the watches that need the same of them at about the same time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fairlead_store::Event;
use serde_json::Value;

use crate::error::ApiError;
use crate::negotiate::Form;
use crate::object::{self, Owners};
use crate::resource::Resource;

/// How many results are remembered of each sort.
const LEN_MAX: usize = 16;
/// Longer lines are made by each watch for itself, so that those that are remembered take a bounded memory.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The last results: of which event, for which kind, what was asked, and what was made.
#[derive(Debug)]
pub(crate) struct Recent<A, M>(Mutex<VecDeque<Remembered<A, M>>>);

type Remembered<A, M> = (Arc<Event>, &'static Resource, A, M);

impl<A, M> Default for Recent<A, M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A: PartialEq, M: Clone> Recent<A, M> {
    fn get_or(
        &self,
        event: &Arc<Event>,
        resource: &'static Resource,
        asked: A,
        make: impl FnOnce() -> Result<M, ApiError>,
    ) -> Result<M, ApiError> {
        // The queue is whole after any panic of its user.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The very event, because several keys may have changed with one revision.
        let is_it = |(of, kind, what, _): &&Remembered<A, M>| {
            Arc::ptr_eq(of, event) && std::ptr::eq(*kind, resource) && *what == asked
        };
        if let Some((.., made)) = lock().iter().rev().find(is_it) {
            return Ok(made.clone());
        }
        let made = make()?;
        let mut all = lock();
        if all.len() == LEN_MAX {
            all.pop_front();
        }
        all.push_back((event.clone(), resource, asked, made.clone()));
        Ok(made)
    }
}

/// An event's object after and before.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) value: Option<Value>,
    pub(crate) previous: Option<Value>,
}

/// Objects, for the watches whose selectors look into them: every kubelet watches the pods of its own node, so each
/// change of a pod is looked at by as many watches as there are nodes.
pub(crate) type RecentlyDecoded = Recent<(), Arc<Decoded>>;

impl RecentlyDecoded {
    /// The objects of an event in the form of this kind.
    pub(crate) fn of(
        &self,
        event: &Arc<Event>,
        resource: &'static Resource,
    ) -> Result<Arc<Decoded>, ApiError> {
        self.get_or(event, resource, (), || {
            let decode = |stored| object::decode(resource, stored, event.revision);
            Ok(Arc::new(Decoded {
                value: event.value.as_deref().map(decode).transpose()?,
                previous: event.previous.as_deref().map(decode).transpose()?,
            }))
        })
    }
}

/// How a watch sends an event: the form, whether with owners, and as what, such as `ADDED`.
pub(crate) type Sent = (Form, Owners, &'static str);

/// Lines as they are sent: a change that a thousand watches are told of is written down once for each form.
pub(crate) type RecentlySent = Recent<Sent, Bytes>;

impl RecentlySent {
    /// The line of an event; `make` makes it when no other watch has a moment ago.
    pub(crate) fn line(
        &self,
        event: &Arc<Event>,
        resource: &'static Resource,
        sent: Sent,
        make: impl FnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let is_long =
            |value: &Option<Bytes>| value.as_ref().is_some_and(|value| value.len() > LINE_BYTES_MAX);
        if is_long(&event.value) || is_long(&event.previous) {
            return make();
        }
        self.get_or(event, resource, sent, make)
    }
}

#[cfg(test)]
mod tests {
    use fairlead_store::EventKind;
    use serde_json::json;

    use super::*;
    use crate::resource::find;

    fn event(revision: u64, message: &str) -> Arc<Event> {
        let object = json!({ "metadata": { "name": "b" }, "message": message });
        Arc::new(Event {
            revision,
            kind: EventKind::Created,
            key: "/registry/events/a/b".to_owned(),
            value: Some(Bytes::from(object.to_string())),
            previous: None,
        })
    }

    #[test]
    fn an_event_is_decoded_once_for_each_form() {
        let (core, new) = (find("", "v1", "events").unwrap(), find("events.k8s.io", "v1", "events").unwrap());
        let recent = RecentlyDecoded::default();
        let (one, other) = (event(1, "m"), event(1, "n"));
        let first = recent.of(&one, core).unwrap();
        assert!(Arc::ptr_eq(&first, &recent.of(&one, core).unwrap()));
        assert_eq!(recent.of(&one, new).unwrap().value.as_ref().unwrap()["note"], "m");
        let of_other = recent.of(&other, core).unwrap();
        assert_eq!(of_other.value.as_ref().unwrap()["message"], "n", "another key of the same revision");
        for revision in 2..40 {
            recent.of(&event(revision, "m"), core).unwrap();
        }
        assert_eq!(recent.0.lock().unwrap().len(), LEN_MAX);
        assert!(!Arc::ptr_eq(&first, &recent.of(&one, core).unwrap()));
    }

    #[test]
    fn a_line_is_made_once_for_each_way_to_send_it_unless_it_is_long() {
        let pods = find("", "v1", "pods").unwrap();
        let recent = RecentlySent::default();
        let made = std::cell::Cell::new(0);
        let ask = |event: &Arc<Event>, sent: Sent| {
            let make = || {
                made.set(made.get() + 1);
                Ok(Bytes::from_static(b"line"))
            };
            recent.line(event, pods, sent, make).unwrap();
            made.get()
        };
        let (short, long) = (event(1, "m"), event(2, &"m".repeat(LINE_BYTES_MAX)));
        let plain = (Form::Plain, Owners::Shown, "ADDED");
        assert_eq!([ask(&short, plain), ask(&short, plain)], [1, 1]);
        assert_eq!(ask(&short, (Form::Partial, Owners::Shown, "ADDED")), 2);
        assert_eq!(ask(&short, (Form::Plain, Owners::LeftOut, "ADDED")), 3);
        assert_eq!(ask(&short, (Form::Plain, Owners::Shown, "MODIFIED")), 4);
        assert_eq!(ask(&short, plain), 4, "all are remembered");
        assert_eq!([ask(&long, plain), ask(&long, plain)], [5, 6]);
    }
}
