//! The keys that there are, in memory: that there are none, and how many follow a page of a list, is said here and not
//! by reading their values.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase, ReadableTable};

use super::schema::CURRENT;
use crate::error::During;
use crate::{Event, EventKind, Revision, StoreError};

/// The keys of the newest committed state.
#[derive(Debug)]
pub(super) struct Keys(RwLock<State>);

#[derive(Debug)]
struct State {
    keys: BTreeSet<Box<str>>,
    revision: Revision,
}

impl Keys {
    /// The keys in a database that nobody writes to.
    pub(super) fn read(database: &Database, revision: Revision) -> Result<Self, StoreError> {
        Ok(Self(RwLock::new(State::read(database, revision)?)))
    }

    /// Forgets what is not in a database that nobody writes to.
    pub(super) fn read_again(&self, database: &Database, revision: Revision) -> Result<(), StoreError> {
        let state = State::read(database, revision)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Takes committed changes in.
    pub(super) fn apply<'e>(&self, events: impl IntoIterator<Item = &'e Event>) {
        // Nothing in here panics in the middle of a change.
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            state.revision = event.revision;
            match event.kind {
                EventKind::Created => drop(state.keys.insert(event.key.as_str().into())),
                EventKind::Updated => {}
                EventKind::Deleted => drop(state.keys.remove(event.key.as_str())),
            }
        }
    }

    /// The newest revision, when no key has this prefix then.
    pub(super) fn nothing_under(&self, prefix: &str) -> Option<Revision> {
        let state = self.read_lock();
        let first = state.keys.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).next();
        first.is_none_or(|key| !key.starts_with(prefix)).then_some(state.revision)
    }

    /// How many keys with a prefix follow after one, of those that are wanted.
    pub(super) fn count_after(&self, prefix: &str, after: &str, wanted: impl Fn(&str) -> bool) -> usize {
        let state = self.read_lock();
        let following = state.keys.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        following.take_while(|key| key.starts_with(prefix)).filter(|key| wanted(key)).count()
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(database: &Database, revision: Revision) -> Result<Self, StoreError> {
        const READING: &str = "read the keys";
        let transaction = database.begin_read().during(READING)?;
        let current = transaction.open_table(CURRENT).during(READING)?;
        let mut keys = BTreeSet::new();
        for item in current.iter().during(READING)? {
            keys.insert(item.during(READING)?.0.value().into());
        }
        Ok(Self { keys, revision })
    }
}
