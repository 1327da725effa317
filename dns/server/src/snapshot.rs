//! What the feed said, on disk: a server that starts answers from it until the feed speaks again.
//!
//! The file holds the last complete view and the updates since, each in a frame with its length and checksum. Frames
//! are appended; a file that has grown to twice its view is written anew. What is read back counts as incomplete: names
//! it has are answered, and names it has not are failures, never denials.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use fairlead_model::{Change, Revision, Update, View};
use fairlead_wire::{Assembly, proto::WatchResponse, responses};
use futures::{Stream, StreamExt, stream};
use prost::Message;

/// First bytes of a file; the number changes with the format.
const MAGIC: &[u8] = b"fairlead dns view 1\n";
/// Length and checksum of a frame.
const FRAME_HEAD: usize = 8;
/// A file may be that much longer than twice its view.
const SLACK_BYTES: u64 = 1 << 20;

/// The file.
struct Record {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of the view at its beginning.
    view_len: u64,
    len: u64,
}

/// Updates as they come, what was recorded before them in front. Each is recorded after it has been applied.
pub(crate) fn remember(
    path: PathBuf,
    updates: impl Stream<Item = Update> + Send + Unpin + 'static,
) -> impl Stream<Item = Update> + Send + 'static {
    let stored = read(&path).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "the names of the last run cannot be read; starting without");
        }
        View::default()
    });
    let first = Update { revision: Revision::default(), snapshot: false, changes: stored.to_changes() };
    let record = Record { path, file: None, view_len: 0, len: 0 };
    let live = stream::unfold((updates, record, None), |(mut updates, mut record, said)| async move {
        if let Some(said) = said {
            record = tokio::task::spawn_blocking(move || record.append(said)).await.ok()?;
        }
        let update = updates.next().await?;
        let copy = relevant(&update);
        Some((update, (updates, record, Some(copy))))
    });
    stream::iter(Some(first).filter(|first| !first.changes.is_empty())).chain(live)
}

/// What is worth keeping of an update: pods come and go, and names need none of them.
fn relevant(update: &Update) -> Update {
    let names = |change: &&Change| {
        use Change::{DeleteNode, DeletePod, PutNode, PutPod};
        !matches!(change, PutPod(_) | DeletePod(_) | PutNode(_) | DeleteNode(_))
    };
    Update { changes: update.changes.iter().filter(names).cloned().collect(), ..*update }
}

impl Record {
    /// Adds an update. A file that cannot be written costs the next start its head start, and nothing else.
    fn append(mut self, update: Update) -> Self {
        let worth_it = update.snapshot || !update.changes.is_empty();
        if worth_it && let Err(error) = self.try_append(update) {
            tracing::warn!(path = %self.path.display(), %error, "the names of the cluster cannot be recorded");
            self.file = None;
        }
        self
    }

    fn try_append(&mut self, update: Update) -> io::Result<()> {
        if update.snapshot {
            return self.write_anew(update);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let bytes = frames(update);
        file.write_all(&bytes)?;
        self.len += bytes.len() as u64;
        if self.len > 2 * self.view_len + SLACK_BYTES {
            let view = read(&self.path)?;
            let revision = view.revision();
            self.write_anew(Update { revision, snapshot: true, changes: view.to_changes() })?;
        }
        Ok(())
    }

    /// The file appears under its name when it is whole.
    fn write_anew(&mut self, update: Update) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let bytes = [MAGIC, &frames(update)].concat();
        file.write_all(&bytes)?;
        fs::rename(&beside, &self.path)?;
        self.len = bytes.len() as u64;
        self.view_len = self.len;
        self.file = Some(file);
        Ok(())
    }
}

fn frames(update: Update) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in responses(update) {
        let message = message.encode_to_vec();
        // Messages of the feed are below 4 MiB.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&message).to_le_bytes());
        bytes.extend_from_slice(&message);
    }
    bytes
}

/// The view in a file. What was being written when the last run ended is left out.
fn read(path: &Path) -> io::Result<View> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of this version"));
    };
    let mut view = View::default();
    let mut assembly = Assembly::default();
    while let Some(message) = next_frame(&mut rest) {
        match assembly.push(message) {
            Ok(Some(update)) => drop(view.apply(update)),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    Ok(view)
}

fn next_frame(bytes: &mut &[u8]) -> Option<WatchResponse> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD)?;
    let number = |at: usize| head[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let (message, rest) = rest.split_at_checked(number(0)? as usize)?;
    *bytes = rest;
    (crc32fast::hash(message) == number(4)?).then(|| WatchResponse::decode(message).ok())?
}

#[cfg(test)]
mod tests {
    use fairlead_model::{ObjectName, Service};

    use super::*;

    fn service(name: &str) -> Change {
        Change::PutService(Service { name: ObjectName::new("demo", name), ..Service::default() })
    }

    fn update(sequence: u64, changes: Vec<Change>) -> Update {
        Update { revision: Revision { epoch: 1, sequence }, snapshot: sequence == 1, changes }
    }

    /// Lets a recorder see updates; gives what it passed on.
    async fn record(path: &Path, updates: Vec<Update>) -> Vec<Update> {
        remember(path.into(), stream::iter(updates)).collect().await
    }

    fn names(update: &Update) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::PutService(service) => Some(service.name.name.to_string()),
            _ => None,
        };
        update.changes.iter().filter_map(name).collect()
    }

    #[tokio::test]
    async fn the_next_run_begins_with_what_the_last_one_knew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("view");
        let deleted = Change::DeleteService(ObjectName::new("demo", "b"));
        let said = vec![
            update(1, vec![service("a"), service("b")]),
            update(2, vec![deleted]),
            update(3, vec![service("c")]),
        ];
        assert_eq!(record(&path, said.clone()).await, said);
        let again = record(&path, vec![update(1, vec![service("d")])]).await;
        assert_eq!(again.len(), 2);
        assert_eq!(names(&again[0]), ["a", "c"]);
        assert!(!again[0].snapshot && again[0].revision == Revision::default(), "it is not complete");
        assert_eq!(names(&record(&path, Vec::new()).await[0]), ["d"], "a snapshot replaces all");
    }

    #[tokio::test]
    async fn half_a_frame_and_a_broken_one_end_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view");
        record(&path, vec![update(1, vec![service("a")]), update(2, vec![service("b")])]).await;
        let whole = fs::read(&path).unwrap();
        let mut broken = whole.clone();
        *broken.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..whole.len() - 1], &broken] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(names(&record(&path, Vec::new()).await[0]), ["a"]);
        }
        fs::write(&path, b"something else").unwrap();
        assert!(record(&path, Vec::new()).await.is_empty());
    }

    #[tokio::test]
    async fn a_file_of_many_changes_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view");
        let long = "x".repeat(60_000);
        let changes =
            (1..60).map(|sequence| update(sequence, vec![service(&format!("{long}{}", sequence % 2))]));
        record(&path, changes.collect()).await;
        assert!(fs::metadata(&path).unwrap().len() < 2 * SLACK_BYTES);
        assert_eq!(names(&record(&path, Vec::new()).await[0]).len(), 2);
    }
}
