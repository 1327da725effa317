//! One process per directory: an exclusive `flock` on the file `lock`, which names its holder.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::StoreError;

/// The held lock. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Directory { operation, path, source: Arc::new(error) }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("create the directory", dir))?;
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder may be between locking and writing its id.
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { holder.trim() } else { "(unknown)" };
                return Err(StoreError::Locked { path: dir.to_owned(), holder: holder.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write the lock file", &path))?;
        Ok(Self { _file: file })
    }
}
