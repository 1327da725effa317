//! The one thread that writes: group commit, history, compaction.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use tokio::sync::oneshot;

use super::durability::Syncs;
use super::inbox::{Inbox, Next};
use super::keys::Keys;
use super::pace::Pace;
use super::partition::{self, BRIEF, LASTING, Partition};
use super::schema::{CURRENT, CurrentRecord, LogRecord, META, META_CEILING, META_REVISION, read_meta};
use super::slot::Slot;
use super::{Retention, reader};
use crate::error::During;
use crate::watch::Hub;
use crate::{Entry, Event, EventKind, Revision, StoreError, Write};

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Command {
    Transact { writes: Vec<Write>, reply: Reply<Revision> },
    Compact { upto: Revision, reply: Reply<()> },
}

impl Command {
    fn writes(&self) -> &[Write] {
        match self {
            Self::Transact { writes, .. } => writes,
            Self::Compact { .. } => &[],
        }
    }

    /// Whether it needs space for good.
    fn grows(&self) -> bool {
        self.writes().iter().any(|write| write.value().is_some())
    }

    fn value_len(&self) -> usize {
        self.writes().iter().filter_map(Write::value).map(Bytes::len).sum()
    }
}

/// Answers commands that are not executed. A caller that went away needs no answer.
fn refuse(commands: Vec<Command>, error: &StoreError) {
    for command in commands {
        match command {
            Command::Transact { reply, .. } => drop(reply.send(Err(error.clone()))),
            Command::Compact { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The state of the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    slot: Arc<Slot>,
    keys: Arc<Keys>,
    hub: Arc<Hub>,
    /// Of the lasting partition of the history, and of the brief one.
    retention: [Retention; 2],
    syncs: Syncs,
    trimmed: Instant,
    writes_since_trim: usize,
}

/// What a batch did, to be told after its commit.
#[derive(Default)]
struct Batch {
    events: Vec<Arc<Event>>,
    writes: Vec<(Reply<Revision>, Result<Revision, StoreError>)>,
    compactions: Vec<(Reply<()>, Result<(), StoreError>)>,
}

const WRITING: &str = "write to the database";
const COMPACTING: &str = "compact the history";

/// At most so many commands share a commit.
const BATCH_LEN_MAX: usize = 256;
/// The history is trimmed when so many writes or seconds have passed, at most `TRIM_LEN_MAX` records at a time.
const TRIM_EVERY_WRITES: usize = 1_000;
const TRIM_EVERY_SECS: u64 = 30;
const TRIM_LEN_MAX: usize = 4_000;
/// How often a database that the disk failed is tried to be opened, and how often commands are answered meanwhile.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
const REFUSE_EVERY: Duration = Duration::from_millis(20);

impl Writer {
    pub(super) fn new(
        slot: Arc<Slot>,
        keys: Arc<Keys>,
        hub: Arc<Hub>,
        retention: [Retention; 2],
        syncs: Syncs,
    ) -> Self {
        Self { slot, keys, hub, retention, syncs, trimmed: Instant::now(), writes_since_trim: 0 }
    }

    /// Serves commands until the store is dropped.
    pub(super) fn run(mut self, mut inbox: Inbox) {
        let mut pace = Pace::default();
        loop {
            let mut commands = match inbox.next(self.syncs.due()) {
                Next::Command(first) => {
                    pace.gather(|| inbox.len() + 1);
                    vec![first]
                }
                Next::Due => Vec::new(),
                Next::End => break,
            };
            while commands.len() < BATCH_LEN_MAX
                && let Ok(command) = inbox.try_next()
            {
                commands.push(command);
            }
            pace.note(commands.len());
            let commands = self.refuse_without_space(commands);
            if commands.is_empty() && !self.syncs.is_due() {
                continue;
            }
            if let Err(error) = self.commit(commands)
                && error.is_io()
            {
                self.recover(&error, &mut inbox);
            }
        }
        if self.syncs.are_deferred() {
            self.syncs.end();
            // An error is logged, and the next start finds the store as after a crash.
            let _ = self.commit(Vec::new());
        }
        self.hub.close();
    }

    /// Answers the writes that there is no space for, and returns the other commands.
    fn refuse_without_space(&self, commands: Vec<Command>) -> Vec<Command> {
        let bytes = commands.iter().map(Command::value_len).sum::<usize>() as u64;
        match self.slot.space.admit(bytes) {
            Ok(()) => commands,
            Err(error) => {
                let (growing, others) = commands.into_iter().partition(Command::grows);
                refuse(growing, &error);
                others
            }
        }
    }

    /// Opens the database again after the disk failed. Meanwhile every command is answered with the reason.
    fn recover(&mut self, error: &StoreError, inbox: &mut Inbox) {
        let reason = if error.is_out_of_space() { self.slot.space.exhausted() } else { error.clone() };
        tracing::error!(%reason, "the disk failed; the store is closed until it can be opened again");
        self.slot.close(reason.clone());
        let mut due = Instant::now();
        loop {
            while let Ok(command) = inbox.try_next() {
                refuse(vec![command], &reason);
            }
            if inbox.is_closed() {
                return;
            }
            if Instant::now() >= due {
                due = Instant::now() + REOPEN_EVERY;
                match self.reopen() {
                    Ok(()) => return tracing::info!("the store is open again"),
                    Err(error) => tracing::warn!(%error, "the store cannot be opened yet"),
                }
            }
            thread::sleep(REFUSE_EVERY);
        }
    }

    /// Opens the database and publishes what was committed although its commit failed. Where what was published may not
    /// have been synced, everybody begins anew.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let (database, revision) = self.slot.reopen()?;
        let published = self.hub.published();
        if self.syncs.are_deferred() {
            self.keys.read_again(&database, revision)?;
            self.syncs.reopened(revision);
            self.hub.cut_off(revision);
        } else if revision > published {
            let missed = reader::history(&database, "", published, revision)?;
            self.publish(&Vec::from(missed));
        }
        self.slot.serve(database);
        Ok(())
    }

    fn publish(&self, events: &[Arc<Event>]) {
        self.keys.apply(events.iter().map(AsRef::as_ref));
        self.hub.publish(events);
    }

    fn commit(&mut self, commands: Vec<Command>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let outcome = self.apply(commands, &mut batch);
        match &outcome {
            Ok(()) => self.publish(&batch.events),
            Err(error) => {
                tracing::error!(%error, source = ?error, "a commit failed");
                self.syncs.failed();
            }
        }
        let answer = match &outcome {
            Err(error) if error.is_out_of_space() => Err(self.slot.space.exhausted()),
            outcome => outcome.clone(),
        };
        // A caller that went away needs no answer.
        for (reply, result) in batch.writes {
            let _ = reply.send(answer.clone().and(result));
        }
        for (reply, result) in batch.compactions {
            let _ = reply.send(answer.clone().and(result));
        }
        outcome
    }

    fn apply(&mut self, commands: Vec<Command>, batch: &mut Batch) -> Result<(), StoreError> {
        let mut pending = commands.into_iter();
        let outcome = self.transact(&mut pending, batch);
        if let Err(error) = &outcome {
            let error = if error.is_out_of_space() { self.slot.space.exhausted() } else { error.clone() };
            refuse(pending.collect(), &error);
        }
        outcome
    }

    fn transact(
        &mut self,
        commands: &mut impl Iterator<Item = Command>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let database = self.slot.get()?;
        let mut transaction = database.begin_write().during(WRITING)?;
        let (revision, ceiling) = {
            let mut tables = Tables::open(&transaction)?;
            for command in commands {
                match command {
                    Command::Transact { writes, reply } => {
                        let result = tables.transact(&writes, &mut batch.events);
                        batch.writes.push((reply, result));
                    }
                    Command::Compact { upto, reply } => {
                        batch.compactions.push((reply, tables.compact(upto)));
                    }
                }
            }
            self.writes_since_trim += batch.events.len();
            let due = self.trimmed.elapsed().as_secs() >= TRIM_EVERY_SECS;
            if due || self.writes_since_trim >= TRIM_EVERY_WRITES {
                self.writes_since_trim = 0;
                self.trimmed = Instant::now();
                tables.trim(&self.retention)?;
            }
            let ceiling = self.syncs.ceiling_of(tables.revision);
            tables.store_counters(ceiling)?;
            (tables.revision, ceiling)
        };
        let durability = if ceiling.is_some() { redb::Durability::Immediate } else { redb::Durability::None };
        transaction.set_durability(durability).during(WRITING)?;
        transaction.commit().during(WRITING)?;
        self.syncs.committed(revision, ceiling);
        Ok(())
    }
}

/// The tables of one write transaction, with the counters that it will store.
struct Tables<'t> {
    current: Table<'t, &'static str, &'static [u8]>,
    lasting: Log<'t>,
    brief: Log<'t>,
    meta: Table<'t, &'static str, u64>,
    revision: Revision,
    now_ms: u64,
}

/// A partition of the history.
struct Log<'t> {
    part: Partition,
    table: Table<'t, u64, &'static [u8]>,
    compacted: Revision,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let meta = transaction.open_table(META).during(WRITING)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            current: transaction.open_table(CURRENT).during(WRITING)?,
            lasting: Log::open(transaction, &meta, LASTING)?,
            brief: Log::open(transaction, &meta, BRIEF)?,
            revision: read_meta(&meta, META_REVISION)?,
            meta,
            now_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn store_counters(&mut self, ceiling: Option<Revision>) -> Result<(), StoreError> {
        self.meta.insert(META_REVISION, self.revision).during(WRITING)?;
        if let Some(ceiling) = ceiling {
            self.meta.insert(META_CEILING, ceiling).during(WRITING)?;
        }
        for log in [&self.lasting, &self.brief] {
            self.meta.insert(log.part.compacted, log.compacted).during(WRITING)?;
        }
        Ok(())
    }

    /// Checks every precondition, then writes everything; returns the revision of the first write.
    fn transact(&mut self, writes: &[Write], events: &mut Vec<Arc<Event>>) -> Result<Revision, StoreError> {
        let mut stored = Vec::with_capacity(writes.len());
        for (index, write) in writes.iter().enumerate() {
            let key = write.key();
            if writes[..index].iter().any(|other| other.key() == key) {
                return Err(StoreError::NamedTwice { key: key.to_owned() });
            }
            let found = self.current.get(key).during(WRITING)?;
            let found = found.map(|found| CurrentRecord::decode(key, found.value()).map(|r| r.to_entry(key)));
            let found = found.transpose()?;
            if let Some(refusal) = write.refusal(found.as_ref().map(|found| found.mod_revision)) {
                return Err(refusal);
            }
            stored.push(found);
        }
        let first = self.revision + 1;
        for (write, stored) in writes.iter().zip(stored) {
            events.push(self.write(write, stored)?);
        }
        Ok(first)
    }

    /// Changes a key, whose precondition holds, and appends to the history.
    fn write(&mut self, write: &Write, stored: Option<Entry>) -> Result<Arc<Event>, StoreError> {
        let key = write.key();
        let kind = match write {
            Write::Create { .. } => EventKind::Created,
            Write::Update { .. } => EventKind::Updated,
            Write::Delete { .. } => EventKind::Deleted,
        };
        let value = write.value().map_or(&[][..], |value| value);
        let revision = self.revision + 1;
        if kind == EventKind::Deleted {
            self.current.remove(key).during(WRITING)?;
        } else {
            let create_revision = stored.as_ref().map_or(revision, |stored| stored.create_revision);
            let record = CurrentRecord { create_revision, mod_revision: revision, value };
            self.current.insert(key, record.encode().as_slice()).during(WRITING)?;
        }
        let none = CurrentRecord { create_revision: 0, mod_revision: 0, value: &[] };
        let previous = stored.as_ref().map_or(none, CurrentRecord::of);
        let record = LogRecord { kind, time_ms: self.now_ms, key, value, previous };
        let log = if partition::is_brief(key) { &mut self.brief } else { &mut self.lasting };
        log.table.insert(revision, record.encode().as_slice()).during(WRITING)?;
        self.revision = revision;
        let (value, previous) = (write.value().cloned(), stored.map(|stored| stored.value));
        Ok(Arc::new(Event { revision, kind, key: key.to_owned(), value, previous }))
    }

    fn compact(&mut self, upto: Revision) -> Result<(), StoreError> {
        let upto = upto.min(self.revision);
        for log in [&mut self.lasting, &mut self.brief] {
            log.table.retain_in(..=upto, |_, _| false).during(COMPACTING)?;
            log.compacted = log.compacted.max(upto);
        }
        Ok(())
    }

    /// Forgets what the retention does not ask for.
    fn trim(&mut self, [lasting, brief]: &[Retention; 2]) -> Result<(), StoreError> {
        self.lasting.trim(lasting, self.now_ms)?;
        self.brief.trim(brief, self.now_ms)
    }
}

impl<'t> Log<'t> {
    fn open(
        transaction: &'t WriteTransaction,
        meta: &impl ReadableTable<&'static str, u64>,
        part: Partition,
    ) -> Result<Self, StoreError> {
        let table = transaction.open_table(part.log).during(WRITING)?;
        Ok(Self { part, table, compacted: read_meta(meta, part.compacted)? })
    }

    fn trim(&mut self, retention: &Retention, now_ms: u64) -> Result<(), StoreError> {
        let age_ms = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
        let young_ms = now_ms.saturating_sub(age_ms);
        let mut len = self.table.len().during(COMPACTING)?;
        for _ in 0..TRIM_LEN_MAX {
            let (revision, old) = {
                let Some((revision, record)) = self.table.first().during(COMPACTING)? else { break };
                let revision = revision.value();
                (revision, LogRecord::decode(revision, record.value())?.time_ms < young_ms)
            };
            if len <= retention.revisions_max && !(old && len > retention.revisions_min) {
                break;
            }
            self.table.remove(revision).during(COMPACTING)?;
            self.compacted = revision;
            len -= 1;
        }
        Ok(())
    }
}
