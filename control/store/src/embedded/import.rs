//! Filling an empty embedded store in one transaction: everything or nothing, with the revisions it had elsewhere.

use redb::Durability;
use tokio::sync::mpsc;

use super::EmbeddedStore;
use super::schema::{
    CURRENT, CurrentRecord, META, META_COMPACTED, META_COMPACTED_BRIEF, META_REVISION, read_meta,
};
use crate::error::During;
use crate::transfer::{Page, Summary, Tally};
use crate::{Revision, StoreError};

const IMPORTING: &str = "import into the database";

impl EmbeddedStore {
    /// Takes in the state of another store at `revision`, without its history. `complete` says, when the last page is
    /// in, whether that was all; only then anything is kept. Consumes the store, because nobody was told of the writes.
    /// Blocks.
    pub fn import(
        self,
        revision: Revision,
        pages: &mut mpsc::Receiver<Page>,
        complete: impl FnOnce(&Summary) -> bool,
    ) -> Result<(), StoreError> {
        let mut transaction = self.slot.get()?.begin_write().during(IMPORTING)?;
        transaction.set_durability(Durability::Immediate).during(IMPORTING)?;
        let summary = write(&transaction, revision, pages)?;
        if !complete(&summary) {
            return Err(StoreError::Incomplete);
        }
        transaction.commit().during(IMPORTING)?;
        Ok(())
    }
}

fn write(
    transaction: &redb::WriteTransaction,
    revision: Revision,
    pages: &mut mpsc::Receiver<Page>,
) -> Result<Summary, StoreError> {
    let mut tally = Tally::default();
    let mut meta = transaction.open_table(META).during(IMPORTING)?;
    let mut current = transaction.open_table(CURRENT).during(IMPORTING)?;
    let found = read_meta(&meta, META_REVISION)?;
    if found > 0 {
        return Err(StoreError::Used { revision: found });
    }
    while let Some(page) = pages.blocking_recv() {
        tally.add(&page);
        for entry in page {
            let (create_revision, mod_revision) = (entry.create_revision, entry.mod_revision);
            let record = CurrentRecord { create_revision, mod_revision, value: &entry.value };
            current.insert(entry.key.as_str(), record.encode().as_slice()).during(IMPORTING)?;
        }
    }
    for name in [META_REVISION, META_COMPACTED, META_COMPACTED_BRIEF] {
        meta.insert(name, revision).during(IMPORTING)?;
    }
    Ok(tally.finish())
}
