//! The log writer: containerd's binary logging protocol.
//!
//! The shim starts it with the container's standard output on descriptor 3, its standard error on 4, and waits until
//! descriptor 5 is closed. It ends when both streams have ended, which is after the container's last process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};

use super::{line, rotated};

/// A file is rotated at this size (as the kubelet's `containerLogMaxSize`).
const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files per attempt of a container, the current one included (`containerLogMaxFiles`).
const FILES_MAX: u32 = 5;
/// Longer lines are written in parts (as containerd's CRI plugin does).
const LINE_BYTES_MAX: usize = 16 << 10;

/// Runs the log writer. `args` is what follows the subcommand: the log file. Returns when the container has ended.
///
/// Call it first thing in the process, before any thread is started.
pub fn run_log_driver(args: &[String]) -> io::Result<()> {
    let [path] = args else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected one argument: the log file"));
    };
    // The shim asks us to end when the container is deleted; the ends of the streams come before and are enough.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let output = File::open("/proc/self/fd/3")?;
    let errors = File::open("/proc/self/fd/4")?;
    let log = Mutex::new(LogFile::open(Path::new(path), FILE_BYTES_MAX)?);
    nix::unistd::close(5)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(output, "stdout", &log));
        copy(errors, "stderr", &log)
    })
}

fn copy(stream: File, name: &str, log: &Mutex<LogFile>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, stream);
    let mut out = Vec::new();
    let mut partial: Vec<u8> = Vec::new();
    loop {
        let available = match reader.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let taken = available.len();
        let time = Timestamp::now();
        let mut rest = available;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            partial.extend_from_slice(&rest[..end]);
            long_parts(&mut out, &mut partial, time, name);
            line::format(&mut out, time, name, true, &partial);
            partial.clear();
            rest = &rest[end + 1..];
        }
        partial.extend_from_slice(rest);
        long_parts(&mut out, &mut partial, time, name);
        let ended = taken == 0;
        if ended && !partial.is_empty() {
            line::format(&mut out, time, name, true, &partial);
        }
        reader.consume(taken);
        log.lock().unwrap_or_else(PoisonError::into_inner).write(&out)?;
        out.clear();
        if ended {
            return Ok(());
        }
    }
}

/// Writes what is longer than a line may be, so that the rest is not.
fn long_parts(out: &mut Vec<u8>, partial: &mut Vec<u8>, time: Timestamp, name: &str) {
    while partial.len() > LINE_BYTES_MAX {
        let part: Vec<u8> = partial.drain(..LINE_BYTES_MAX).collect();
        line::format(out, time, name, false, &part);
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: u64,
}

impl LogFile {
    fn open(path: &Path, size_max: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, size_max })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.size_max {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES_MAX - 1).rev() {
            // Absent ones are skipped.
            let _absent = fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1));
        }
        fs::rename(&self.path, rotated(&self.path, 1))?;
        *self = Self::open(&self.path, self.size_max)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_come_in_parts_and_a_last_line_without_newline_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join("in");
        let long = "x".repeat(LINE_BYTES_MAX + 5);
        fs::write(&input, format!("one\n{long}\nlast")).unwrap();
        let path = directory.path().join("c/0.log");
        let log = Mutex::new(LogFile::open(&path, FILE_BYTES_MAX).unwrap());
        copy(File::open(input).unwrap(), "stdout", &log).unwrap();
        let text = fs::read(&path).unwrap();
        let lines: Vec<_> = text.split(|b| *b == b'\n').filter_map(line::Line::parse).collect();
        let joined: Vec<u8> =
            lines.iter().flat_map(|l| [l.text, if l.complete { b"\n" } else { b"" }].concat()).collect();
        assert_eq!(joined, format!("one\n{long}\nlast\n").into_bytes());
        assert!(lines.iter().any(|l| !l.complete));
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::open(&path, 10).unwrap();
        for number in 0..8 {
            log.write(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 7\n");
        assert_eq!(fs::read_to_string(rotated(&path, 4)).unwrap(), "line 3\n");
        assert!(!rotated(&path, 5).exists());
    }
}
