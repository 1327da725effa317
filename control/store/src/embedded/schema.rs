//! The tables and the encoding of their records.
//!
//! All integers are little-endian. `current` maps a key to `create_revision u64, mod_revision u64, value`.
//! `log` maps a revision to `kind u8, time_ms u64, previous_create u64, previous_mod u64, key_len u32, value_len u32,
//! key, value, previous value`; `log_brief` is the same for keys of the brief partition.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableTable, TableDefinition};

use super::durability::{self, Durability};
use crate::error::During;
use crate::{Entry, Event, EventKind, Revision, StoreError};

pub(super) const CURRENT: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("current");
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
pub(super) const LOG_BRIEF: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log_brief");
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

pub(super) const META_LAYOUT: &str = "layout";
pub(super) const META_REVISION: &str = "revision";
pub(super) const META_COMPACTED: &str = "compacted";
pub(super) const META_COMPACTED_BRIEF: &str = "compacted_brief";
/// Where revisions go on when the store was not closed; 0 when all of them are on disk.
pub(super) const META_CEILING: &str = "ceiling";

/// The layout that this version writes, and the newest that it reads. The first one had no brief partition, the second
/// no ceiling.
pub(super) const LAYOUT: u64 = 3;

const CURRENT_HEADER_LEN: usize = 16;
const LOG_HEADER_LEN: usize = 33;

/// Makes the tables of a new database, refuses one with a newer layout, and returns the newest revision.
pub(super) fn prepare(
    database: &Database,
    path: &Path,
    durability: Durability,
) -> Result<Revision, StoreError> {
    const OPERATION: &str = "prepare the database";
    let transaction = database.begin_write().during(OPERATION)?;
    let revision = {
        let mut meta = transaction.open_table(META).during(OPERATION)?;
        let layout = meta.get(META_LAYOUT).during(OPERATION)?.map(|found| found.value());
        match layout {
            Some(found) if found > LAYOUT => {
                let path = path.to_owned();
                return Err(StoreError::NewerLayout { path, found, supported: LAYOUT });
            }
            Some(LAYOUT) => {}
            Some(found) => {
                if found < 2 {
                    // What there was of brief history is in the other partition, where nobody looks for it any longer.
                    let revision = read_meta(&meta, META_REVISION)?;
                    meta.insert(META_COMPACTED_BRIEF, revision).during(OPERATION)?;
                }
                meta.insert(META_CEILING, 0).during(OPERATION)?;
                meta.insert(META_LAYOUT, LAYOUT).during(OPERATION)?;
            }
            None => {
                meta.insert(META_LAYOUT, LAYOUT).during(OPERATION)?;
                for name in [META_REVISION, META_COMPACTED, META_COMPACTED_BRIEF, META_CEILING] {
                    meta.insert(name, 0).during(OPERATION)?;
                }
            }
        }
        transaction.open_table(CURRENT).during(OPERATION)?;
        transaction.open_table(LOG).during(OPERATION)?;
        transaction.open_table(LOG_BRIEF).during(OPERATION)?;
        durability::resume(&transaction, &mut meta, durability)?
    };
    transaction.commit().during(OPERATION)?;
    Ok(revision)
}

pub(super) fn read_meta(
    meta: &impl ReadableTable<&'static str, u64>,
    name: &'static str,
) -> Result<u64, StoreError> {
    let value = meta.get(name).during("read the metadata")?;
    value
        .map(|value| value.value())
        .ok_or_else(|| StoreError::Damaged { table: "meta", record: name.to_owned() })
}

/// A record of `current`, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurrentRecord<'a> {
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) value: &'a [u8],
}

impl<'a> CurrentRecord<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let Entry { value, create_revision, mod_revision, .. } = entry;
        Self { create_revision: *create_revision, mod_revision: *mod_revision, value }
    }

    pub(super) fn decode(key: &str, bytes: &'a [u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged { table: "current", record: key.to_owned() };
        let (header, value) = bytes.split_at_checked(CURRENT_HEADER_LEN).ok_or_else(damaged)?;
        Ok(Self { create_revision: u64_at(header, 0), mod_revision: u64_at(header, 8), value })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CURRENT_HEADER_LEN + self.value.len());
        bytes.extend_from_slice(&self.create_revision.to_le_bytes());
        bytes.extend_from_slice(&self.mod_revision.to_le_bytes());
        bytes.extend_from_slice(self.value);
        bytes
    }

    pub(super) fn to_entry(self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(self.value),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// A record of `log`, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogRecord<'a> {
    pub(super) kind: EventKind,
    pub(super) time_ms: u64,
    pub(super) key: &'a str,
    /// Empty for a deletion.
    pub(super) value: &'a [u8],
    /// Zeroes and empty for a creation.
    pub(super) previous: CurrentRecord<'a>,
}

impl<'a> LogRecord<'a> {
    pub(super) fn decode(revision: Revision, bytes: &'a [u8]) -> Result<Self, StoreError> {
        Self::decode_checked(bytes)
            .ok_or_else(|| StoreError::Damaged { table: "log", record: revision.to_string() })
    }

    fn decode_checked(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(LOG_HEADER_LEN)?;
        let kind = match header[0] {
            1 => EventKind::Created,
            2 => EventKind::Updated,
            3 => EventKind::Deleted,
            _ => return None,
        };
        let (key, rest) = rest.split_at_checked(u32_at(header, 25) as usize)?;
        let (value, previous) = rest.split_at_checked(u32_at(header, 29) as usize)?;
        Some(Self {
            kind,
            time_ms: u64_at(header, 1),
            key: std::str::from_utf8(key).ok()?,
            value,
            previous: CurrentRecord {
                create_revision: u64_at(header, 9),
                mod_revision: u64_at(header, 17),
                value: previous,
            },
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let values = self.value.len() + self.previous.value.len();
        let mut bytes = Vec::with_capacity(LOG_HEADER_LEN + self.key.len() + values);
        bytes.push(match self.kind {
            EventKind::Created => 1,
            EventKind::Updated => 2,
            EventKind::Deleted => 3,
        });
        bytes.extend_from_slice(&self.time_ms.to_le_bytes());
        bytes.extend_from_slice(&self.previous.create_revision.to_le_bytes());
        bytes.extend_from_slice(&self.previous.mod_revision.to_le_bytes());
        bytes.extend_from_slice(&len_u32(self.key.as_bytes()).to_le_bytes());
        bytes.extend_from_slice(&len_u32(self.value).to_le_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.value);
        bytes.extend_from_slice(self.previous.value);
        bytes
    }

    pub(super) fn to_event(self, revision: Revision) -> Arc<Event> {
        let value = self.kind != EventKind::Deleted;
        let previous = self.kind != EventKind::Created;
        Arc::new(Event {
            revision,
            kind: self.kind,
            key: self.key.to_owned(),
            value: value.then(|| Bytes::copy_from_slice(self.value)),
            previous: previous.then(|| Bytes::copy_from_slice(self.previous.value)),
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the API server limits a value to megabytes")
}
