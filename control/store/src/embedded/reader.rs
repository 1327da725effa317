//! Reads on a redb snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::keys::Keys;
use super::partition;
use super::schema::{CURRENT, CurrentRecord, LogRecord, META, META_REVISION, read_meta};
use crate::error::During;
use crate::{Entry, Event, EventKind, ListRequest, Listing, Revision, StoreError};

const LISTING: &str = "list keys";
const HISTORY: &str = "read the history";

pub(super) fn revision(database: &Database) -> Result<Revision, StoreError> {
    let transaction = database.begin_read().during("read the revision")?;
    read_meta(&transaction.open_table(META).during("read the revision")?, META_REVISION)
}

pub(super) fn get(database: &Database, key: &str) -> Result<Option<Entry>, StoreError> {
    let transaction = database.begin_read().during("read a key")?;
    let current = transaction.open_table(CURRENT).during("read a key")?;
    let Some(found) = current.get(key).during("read a key")? else { return Ok(None) };
    Ok(Some(CurrentRecord::decode(key, found.value())?.to_entry(key)))
}

/// One page. How many entries follow is exact but for writes that are committed meanwhile; whether any do is exact.
pub(super) fn list(database: &Database, keys: &Keys, request: &ListRequest) -> Result<Listing, StoreError> {
    let transaction = database.begin_read().during(LISTING)?;
    let newest = newest(&transaction, request.at, &request.prefix)?;
    let revision = request.at.unwrap_or(newest);
    let changed = Changed::since(&transaction, request, revision, newest)?;
    let mut before = changed.keys.iter().peekable();
    let mut page = Page::new(request);

    let current = transaction.open_table(CURRENT).during(LISTING)?;
    let start = match &request.after {
        Some(after) => Bound::Excluded(after.as_str()),
        None => Bound::Included(request.prefix.as_str()),
    };
    for item in current.range::<&str>((start, Bound::Unbounded)).during(LISTING)? {
        let (key, record) = item.during(LISTING)?;
        let key = key.value();
        if !key.starts_with(&request.prefix) {
            break;
        }
        while let Some((other, place)) = before.next_if(|(other, _)| other.as_str() < key) {
            page.push(|| changed.entry(other, *place))?;
        }
        match before.next_if(|(other, _)| *other == key) {
            Some((_, place)) => page.push(|| changed.entry(key, *place))?,
            None => page.push(|| Ok(Some(CurrentRecord::decode(key, record.value())?.to_entry(key))))?,
        }
        if page.followed {
            break;
        }
    }
    for (key, place) in before {
        page.push(|| changed.entry(key, *place))?;
    }
    let remaining = match (page.followed, page.is_long()) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => following(&page, keys, request, &changed).max(1),
    };
    Ok(Listing { entries: page.entries, revision, remaining })
}

/// How many entries follow after a page: the keys that are there, and were at its revision; and those that were only then.
fn following(page: &Page, keys: &Keys, request: &ListRequest, changed: &Changed) -> usize {
    let last = page.entries.last().map(|entry| entry.key.as_str()).or(request.after.as_deref());
    // A page for which there is no room begins at the prefix, which is no key itself.
    let last = last.unwrap_or(&request.prefix);
    let unchanged = keys.count_after(&request.prefix, last, |key| !changed.keys.contains_key(key));
    let earlier = changed.keys.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
    unchanged + earlier.filter(|(_, place)| place.is_some()).count()
}

/// The events under `prefix` with `after < revision <= until`.
pub(super) fn history(
    database: &Database,
    prefix: &str,
    after: Revision,
    until: Revision,
) -> Result<VecDeque<Arc<Event>>, StoreError> {
    let transaction = database.begin_read().during(HISTORY)?;
    newest(&transaction, Some(after), prefix)?;
    let mut events = VecDeque::new();
    if after >= until {
        return Ok(events);
    }
    for part in partition::of_prefix(prefix) {
        let log = transaction.open_table(part.log).during(HISTORY)?;
        for item in log.range(after + 1..=until).during(HISTORY)? {
            let (revision, record) = item.during(HISTORY)?;
            let revision = revision.value();
            let record = LogRecord::decode(revision, record.value())?;
            if record.key.starts_with(prefix) {
                events.push_back(record.to_event(revision));
            }
        }
    }
    // Of two partitions one came after the other.
    events.make_contiguous().sort_unstable_by_key(|event| event.revision);
    Ok(events)
}

/// The newest revision of the snapshot, when `at` is within its history of keys with a prefix.
fn newest(transaction: &ReadTransaction, at: Option<Revision>, prefix: &str) -> Result<Revision, StoreError> {
    let meta = transaction.open_table(META).during(HISTORY)?;
    let current = read_meta(&meta, META_REVISION)?;
    let mut compacted = 0;
    for part in partition::of_prefix(prefix) {
        compacted = compacted.max(read_meta(&meta, part.compacted)?);
    }
    match at {
        Some(requested) if requested > current => Err(StoreError::FutureRevision { requested, current }),
        Some(requested) if requested < compacted => Err(StoreError::Compacted { requested, compacted }),
        _ => Ok(current),
    }
}

/// The requested keys that changed after a revision, and what they were at it.
struct Changed {
    logs: Vec<ReadOnlyTable<u64, &'static [u8]>>,
    /// In which log and under which revision it is written what a key was; absent, when it was not there. Values are
    /// read when they are wanted: together they may be much longer than a page.
    keys: BTreeMap<String, Option<Place>>,
}

type Place = (usize, Revision);

impl Changed {
    /// The keys that changed in `(at, newest]`.
    fn since(
        transaction: &ReadTransaction,
        request: &ListRequest,
        at: Revision,
        newest: Revision,
    ) -> Result<Self, StoreError> {
        let mut changed = Self { logs: Vec::new(), keys: BTreeMap::new() };
        if at >= newest {
            return Ok(changed);
        }
        // All changes of one key are in one partition, in their order.
        for part in partition::of_prefix(&request.prefix) {
            let log = transaction.open_table(part.log).during(HISTORY)?;
            for item in log.range(at + 1..=newest).during(HISTORY)? {
                let (revision, record) = item.during(HISTORY)?;
                let revision = revision.value();
                let record = LogRecord::decode(revision, record.value())?;
                let wanted = record.key.starts_with(&request.prefix)
                    && request.after.as_deref().is_none_or(|after| record.key > after);
                if wanted && !changed.keys.contains_key(record.key) {
                    let existed = record.kind != EventKind::Created;
                    let place = existed.then_some((changed.logs.len(), revision));
                    changed.keys.insert(record.key.to_owned(), place);
                }
            }
            changed.logs.push(log);
        }
        Ok(changed)
    }

    /// What a key was.
    fn entry(&self, key: &str, place: Option<Place>) -> Result<Option<Entry>, StoreError> {
        let Some((log, revision)) = place else { return Ok(None) };
        let found = self.logs[log].get(revision).during(HISTORY)?;
        let found =
            found.ok_or_else(|| StoreError::Damaged { table: "log", record: revision.to_string() })?;
        Ok(Some(LogRecord::decode(revision, found.value())?.previous.to_entry(key)))
    }
}

/// The entries of a listing, and whether more follow beyond its limits.
struct Page {
    entries: Vec<Entry>,
    bytes: usize,
    limit: usize,
    bytes_max: usize,
    followed: bool,
}

impl Page {
    fn new(request: &ListRequest) -> Self {
        let [limit, bytes_max] = [request.limit, request.bytes_max].map(|max| max.unwrap_or(usize::MAX));
        Self { entries: Vec::new(), bytes: 0, limit, bytes_max, followed: false }
    }

    /// Whether it is as long as it may be, however few its entries are.
    fn is_long(&self) -> bool {
        !self.entries.is_empty() && self.entries.len() < self.limit && self.bytes >= self.bytes_max
    }

    /// Takes the next entry in, if there is one, or notes that it follows.
    fn push(&mut self, entry: impl FnOnce() -> Result<Option<Entry>, StoreError>) -> Result<(), StoreError> {
        if self.followed {
            return Ok(());
        }
        let Some(entry) = entry()? else { return Ok(()) };
        if self.entries.len() >= self.limit || self.is_long() {
            self.followed = true;
        } else {
            self.bytes += entry.value.len();
            self.entries.push(entry);
        }
        Ok(())
    }
}
