//! The open database, which the writer takes away and opens again when the disk failed under it: redb serves nothing
//! after an I/O error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use redb::Database;

use super::EmbeddedConfig;
use super::durability::Durability;
use super::schema;
use super::space::Space;
use crate::error::During;
use crate::{Revision, StoreError};

/// The database, or why there is none.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    cache_bytes: usize,
    durability: Durability,
    pub(super) space: Space,
    state: RwLock<Result<Arc<Database>, StoreError>>,
}

/// How often it is looked whether the readers are gone.
const READERS_EVERY: Duration = Duration::from_millis(1);

impl Slot {
    /// Opens or makes the database; also returns its newest revision.
    pub(super) fn open(config: &EmbeddedConfig) -> Result<(Self, Revision), StoreError> {
        let EmbeddedConfig { cache_bytes, durability, .. } = *config;
        let path = config.dir.join("store.redb");
        let space = Space::new(config.dir.clone(), config.space_reserved_bytes);
        let (database, revision) = open(&path, cache_bytes, durability)?;
        Ok((Self { path, cache_bytes, durability, space, state: RwLock::new(Ok(database)) }, revision))
    }

    /// The database. Whoever holds it delays its being opened again.
    pub(super) fn get(&self) -> Result<Arc<Database>, StoreError> {
        self.lock().clone()
    }

    /// Closes the database, waiting for its readers; until it is opened again everybody gets `reason`.
    pub(super) fn close(&self, reason: StoreError) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::replace(&mut *state, Err(reason));
        drop(state);
        let Ok(mut database) = closed else { return };
        loop {
            match Arc::try_unwrap(database) {
                Ok(database) => return drop(database),
                Err(shared) => database = shared,
            }
            thread::sleep(READERS_EVERY);
        }
    }

    /// Opens the closed database; also returns its newest revision.
    pub(super) fn reopen(&self) -> Result<(Arc<Database>, Revision), StoreError> {
        self.space.check()?;
        open(&self.path, self.cache_bytes, self.durability)
    }

    /// Gives the database to everybody.
    pub(super) fn serve(&self, database: Arc<Database>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Ok(database);
    }

    fn lock(&self) -> RwLockReadGuard<'_, Result<Arc<Database>, StoreError>> {
        // Only ever replaced as a whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(
    path: &Path,
    cache_bytes: usize,
    durability: Durability,
) -> Result<(Arc<Database>, Revision), StoreError> {
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create(path)
        .during("open the database store.redb")?;
    let revision = schema::prepare(&database, path, durability)?;
    Ok((Arc::new(database), revision))
}
