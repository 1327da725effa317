//! Reading a container's log: tail, since, follow.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
};

use super::{line::Line, rotated};

/// What of the log is asked for.
#[derive(Clone, Default, Debug)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) tail_lines: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<u64>,
}

/// Sends the log to `out` until its end; with `follow`, until `running` is false of the watched value and everything
/// was read.
pub(crate) async fn send<T>(
    file: PathBuf,
    options: LogOptions,
    (mut watched, running): (watch::Receiver<T>, impl Fn(&T) -> bool),
    out: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let changes = if options.follow { Some(Changes::watch(&file)?) } else { None };
    let mut output = Output { options: options.clone(), left: options.limit_bytes.unwrap_or(u64::MAX), out };
    let mut reader = output.history(&file).await?;
    let Some(mut changes) = changes else { return Ok(()) };
    loop {
        let last_round = watched.has_changed().is_err() || !running(&watched.borrow_and_update());
        while output.left > 0 && output.new_lines(&mut reader).await? {}
        // The file we read may have been rotated away: what follows is in a new one.
        if File::open(&file).and_then(|new| same_file(&new, reader.get_ref())).is_ok_and(|same| !same) {
            reader = BufReader::new(File::open(&file)?);
            continue;
        }
        if last_round || output.left == 0 || output.out.is_closed() {
            return Ok(());
        }
        tokio::select! {
            changed = changes.next() => changed?,
            // A closed channel is a pod that is gone: one more round.
            _ = watched.changed() => {}
            () = output.out.closed() => return Ok(()),
        }
    }
}

struct Output {
    options: LogOptions,
    left: u64,
    out: mpsc::Sender<io::Result<Bytes>>,
}

impl Output {
    /// Sends what is there, oldest part first, and returns the reader of the current file at its end.
    async fn history(&mut self, file: &Path) -> io::Result<BufReader<File>> {
        let older = (1..).map(|number| rotated(file, number)).take_while(|path| path.exists());
        let mut paths: Vec<_> = older.collect();
        paths.reverse();
        paths.push(file.to_owned());
        let mut tail: VecDeque<Vec<u8>> = VecDeque::new();
        let mut reader = None;
        for path in paths {
            let mut current = match File::open(&path) {
                Ok(file) => BufReader::new(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            while let Some(raw) = read_line(&mut current)? {
                match self.options.tail_lines {
                    Some(lines) => {
                        tail.push_back(raw);
                        if tail.len() > lines {
                            tail.pop_front();
                        }
                    }
                    None => self.line(&raw).await?,
                }
            }
            reader = Some(current);
        }
        for raw in tail {
            self.line(&raw).await?;
        }
        match reader {
            Some(reader) => Ok(reader),
            None => Ok(BufReader::new(File::open(file)?)),
        }
    }

    async fn new_lines(&mut self, reader: &mut BufReader<File>) -> io::Result<bool> {
        match read_line(reader)? {
            Some(raw) => self.line(&raw).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn line(&mut self, raw: &[u8]) -> io::Result<()> {
        let Some(line) = Line::parse(raw.strip_suffix(b"\n").unwrap_or(raw)) else { return Ok(()) };
        if self.options.since.is_some_and(|since| line.timestamp().is_some_and(|time| time < since)) {
            return Ok(());
        }
        let mut text = Vec::with_capacity(raw.len());
        if self.options.timestamps {
            text.extend_from_slice(line.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.text);
        if line.complete {
            text.push(b'\n');
        }
        text.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= text.len() as u64;
        if text.is_empty() {
            return Ok(());
        }
        self.out.send(Ok(text.into())).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A whole line with its newline. A line that is still being written stays for later.
fn read_line(reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut raw = Vec::new();
    let read = reader.read_until(b'\n', &mut raw)?;
    if read == 0 {
        return Ok(None);
    }
    if !raw.ends_with(b"\n") {
        reader.seek_relative(-i64::try_from(read).unwrap_or(0))?;
        // The writer writes whole lines, so this is rare; do not spin on it.
        return Ok(None);
    }
    Ok(Some(raw))
}

fn same_file(a: &File, b: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Tells when something in the directory of a file changes.
struct Changes {
    fd: AsyncFd<Watch>,
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Changes {
    #[expect(deprecated, reason = "its safe replacement does not exist yet; `Watch` owns its descriptor")]
    fn watch(file: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE;
        inotify.add_watch(file.parent().unwrap_or(Path::new("/")), flags)?;
        Ok(Self { fd: AsyncFd::new(Watch(inotify))? })
    }

    async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut buffer = [0; 4096];
        // Which change it was does not matter: the reader looks for itself.
        let drained =
            ready.try_io(|watch| nix::unistd::read(&watch.get_ref().0, &mut buffer).map_err(io::Error::from));
        match drained {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

/// Reads the end of a file as text, for a container's termination message.
pub(crate) fn tail_text(file: &Path, bytes_max: usize) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(file) {
        // What cannot be read is an empty message.
        let _incomplete = BufReader::new(file).take(1 << 20).read_to_end(&mut text);
    }
    let start = text.len().saturating_sub(bytes_max);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn log(directory: &Path) -> PathBuf {
        let file = directory.join("0.log");
        fs::write(rotated(&file, 1), "2030-01-01T00:00:00.000000000Z stdout F one\n").unwrap();
        let text = "2030-01-01T00:00:01.000000000Z stdout P tw\n2030-01-01T00:00:01.000000000Z stdout F o\n\
                    2030-01-01T00:00:02.000000000Z stderr F three\n";
        fs::write(&file, text).unwrap();
        file
    }

    async fn collect(file: PathBuf, options: LogOptions) -> String {
        let (_sender, watched) = watch::channel(false);
        let (out, mut parts) = mpsc::channel(100);
        send(file, options, (watched, |running: &bool| *running), out).await.unwrap();
        let mut text = Vec::new();
        while let Some(part) = parts.recv().await {
            text.extend_from_slice(&part.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn options_choose_the_lines() {
        let directory = tempfile::tempdir().unwrap();
        let file = log(directory.path());
        let none = LogOptions::default;
        for (options, expected) in [
            (none(), "one\ntwo\nthree\n"),
            (LogOptions { tail_lines: Some(1), ..none() }, "three\n"),
            (LogOptions { since: Some("2030-01-01T00:00:02Z".parse().unwrap()), ..none() }, "three\n"),
            (LogOptions { limit_bytes: Some(5), ..none() }, "one\nt"),
            (
                LogOptions { tail_lines: Some(1), timestamps: true, ..none() },
                "2030-01-01T00:00:02.000000000Z three\n",
            ),
            (LogOptions { tail_lines: Some(0), ..none() }, ""),
        ] {
            assert_eq!(collect(file.clone(), options.clone()).await, expected, "{options:?}");
        }
    }

    #[tokio::test]
    async fn following_ends_when_the_container_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let file = log(directory.path());
        let (running, receiver) = watch::channel(true);
        let (out, mut parts) = mpsc::channel(100);
        let options = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
        let follower = tokio::spawn(send(file.clone(), options, (receiver, |running: &bool| *running), out));
        use std::io::Write;
        let mut writer = fs::OpenOptions::new().append(true).open(&file).unwrap();
        // Lines written before the follower looked would be skipped by the tail; write until one arrives.
        let first = loop {
            writer.write_all(b"2030-01-01T00:00:03.000000000Z stdout F more\n").unwrap();
            match tokio::time::timeout(std::time::Duration::from_millis(50), parts.recv()).await {
                Ok(part) => break part,
                Err(_) => continue,
            }
        };
        assert_eq!(first.unwrap().unwrap(), "more\n");
        running.send(false).unwrap();
        follower.await.unwrap().unwrap();
    }
}
