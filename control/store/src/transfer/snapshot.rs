//! A store as one file.
//!
//! `fairlead-snapshot-1\n`, the revision u64, then for each entry `1, key_len u32, value_len u32, create_revision u64,
//! mod_revision u64, key, value`, then `0, entries u64` and the SHA-256 of everything before. Integers are
//! little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{PAGE_LEN, Page, Summary, Tally};
use crate::{Entry, Revision};

const MAGIC: &[u8] = b"fairlead-snapshot-1\n";
const ENTRY: u8 = 1;
const END: u8 = 0;
/// More than any store accepts: what is longer is damage.
const LEN_MAX: u32 = 64 << 20;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The pages ended before their source did.
    #[error("the snapshot {} is not complete; nothing of it was kept", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a snapshot of a store", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("the snapshot {} is damaged ({what}); nothing was restored; use another one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What shows it.
        what: &'static str,
    },
}

/// A snapshot that has been read to its end once and is whole.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    /// The revision of which it is the state.
    pub revision: Revision,
    /// What is in it.
    pub summary: Summary,
}

impl Snapshot {
    /// Writes the pages into a new file, readable by its owner only. It gets its name when it is on disk and `complete`
    /// says that the pages were all. Blocks.
    pub fn write(
        path: &Path,
        revision: Revision,
        pages: &mut mpsc::Receiver<Page>,
        complete: impl FnOnce(&Summary) -> bool,
    ) -> Result<(), SnapshotError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| SnapshotError::File { operation, path, source }
        };
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let file = file.map_err(failed("create", &partial))?;
        let outcome =
            write_to(&file, revision, pages).map_err(failed("write", &partial)).and_then(|summary| {
                if !complete(&summary) {
                    return Err(SnapshotError::Incomplete { path: path.to_owned() });
                }
                std::fs::rename(&partial, path).map_err(failed("rename to", path))?;
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
            });
        if outcome.is_err() {
            // What is half written is of no use; if it cannot be removed either, the first error says more.
            let _ = std::fs::remove_file(&partial);
        }
        outcome
    }

    /// Reads the whole file and checks its digest. Blocks.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let mut tally = Tally::default();
        let revision = read_all(path, |page| {
            tally.add(&page);
            true
        })?;
        Ok(Self { path: path.to_owned(), revision, summary: tally.finish() })
    }

    /// Reads the file again and sends what is in it; ends early when the receiver does. Blocks.
    pub fn send(&self, pages: &mpsc::Sender<Page>) -> Result<(), SnapshotError> {
        read_all(&self.path, |page| pages.blocking_send(page).is_ok()).map(drop)
    }
}

fn write_to(file: &File, revision: Revision, pages: &mut mpsc::Receiver<Page>) -> io::Result<Summary> {
    let mut out = Hashed { inner: BufWriter::new(file), hash: Sha256::new() };
    let mut tally = Tally::default();
    out.write_all(MAGIC)?;
    out.write_all(&revision.to_le_bytes())?;
    while let Some(page) = pages.blocking_recv() {
        tally.add(&page);
        for entry in &page {
            let too_long = |_| io::Error::other(format!("{} is too long for a snapshot", entry.key));
            out.write_all(&[ENTRY])?;
            out.write_all(&u32::try_from(entry.key.len()).map_err(too_long)?.to_le_bytes())?;
            out.write_all(&u32::try_from(entry.value.len()).map_err(too_long)?.to_le_bytes())?;
            out.write_all(&entry.create_revision.to_le_bytes())?;
            out.write_all(&entry.mod_revision.to_le_bytes())?;
            out.write_all(entry.key.as_bytes())?;
            out.write_all(&entry.value)?;
        }
    }
    let summary = tally.finish();
    out.write_all(&[END])?;
    out.write_all(&summary.entries.to_le_bytes())?;
    let digest = out.hash.finalize_reset();
    out.write_all(&digest)?;
    out.inner.flush()?;
    file.sync_all()?;
    Ok(summary)
}

/// Reads a snapshot page by page until `page` says that it is enough.
fn read_all(path: &Path, mut page: impl FnMut(Page) -> bool) -> Result<Revision, SnapshotError> {
    let file = File::open(path).map_err(|source| SnapshotError::File {
        operation: "open",
        path: path.to_owned(),
        source,
    })?;
    let mut reader = Reader { path, inner: Hashed { inner: BufReader::new(file), hash: Sha256::new() } };
    let mut magic = [0; MAGIC.len()];
    if reader.inner.inner.read_exact(&mut magic).is_err() || magic != MAGIC {
        return Err(SnapshotError::Foreign { path: path.to_owned() });
    }
    reader.inner.hash.update(magic);
    let revision = reader.u64()?;
    let (mut count, mut entries) = (0_u64, Vec::new());
    while reader.bytes::<1>()? == [ENTRY] {
        entries.push(reader.entry()?);
        count += 1;
        if entries.len() == PAGE_LEN && !page(std::mem::take(&mut entries)) {
            return Ok(revision);
        }
    }
    if reader.u64()? != count {
        return Err(reader.damaged("entries are missing"));
    }
    let digest: [u8; 32] = reader.inner.hash.finalize_reset().into();
    if reader.bytes::<32>()? != digest {
        return Err(reader.damaged("its digest does not match"));
    }
    if !entries.is_empty() {
        page(entries);
    }
    Ok(revision)
}

/// Hashes what passes.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Write> Hashed<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }
}

struct Reader<'p> {
    path: &'p Path,
    inner: Hashed<BufReader<File>>,
}

impl Reader<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.inner.inner.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends early"),
            _ => SnapshotError::File { operation: "read", path: self.path.to_owned(), source },
        })?;
        self.inner.hash.update(&bytes);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn entry(&mut self) -> Result<Entry, SnapshotError> {
        let key_len = u32::from_le_bytes(self.bytes()?);
        let value_len = u32::from_le_bytes(self.bytes()?);
        if key_len > LEN_MAX || value_len > LEN_MAX {
            return Err(self.damaged("a length is impossible"));
        }
        let (create_revision, mod_revision) = (self.u64()?, self.u64()?);
        let (mut key, mut value) = (vec![0; key_len as usize], vec![0; value_len as usize]);
        self.fill(&mut key)?;
        self.fill(&mut value)?;
        let key = String::from_utf8(key).map_err(|_| self.damaged("a key is not text"))?;
        Ok(Entry { key, value: value.into(), create_revision, mod_revision })
    }

    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.to_owned(), what }
    }
}
