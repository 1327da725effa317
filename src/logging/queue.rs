//! A log that nobody reads holds nobody up: lines wait in a bounded queue for a thread that writes them.
//!
//! A pipe whose reader has stopped takes 64 KiB and then blocks whoever writes to it, for ever. A daemon that writes its
//! log itself would then answer nobody and hear no signal.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait; more are lost, and counted.
const LINES_MAX: usize = 4096;
/// How long the end of the process waits for what is still to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go in.
#[derive(Clone)]
pub(super) struct Queue {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Everything before it is written.
    Mark(SyncSender<()>),
}

/// Waits for the lines that are still to be written when it is dropped.
pub(crate) struct Flush(Queue);

impl Queue {
    /// A queue in front of a writer.
    pub(super) fn new(target: impl Write + Send + 'static) -> Self {
        let (lines, waiting) = mpsc::sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        // Ends with the process: it may hang in the very call that nothing else should hang in.
        thread::spawn(move || write_lines(target, &waiting, &counted));
        Self { lines, lost }
    }

    pub(super) fn flush_at_end(&self) -> Flush {
        Flush(self.clone())
    }

    fn push(&self, line: Line) -> bool {
        self.lines.try_send(line).is_ok()
    }
}

fn write_lines(mut target: impl Write, waiting: &Receiver<Line>, lost: &AtomicU64) {
    for line in waiting {
        // Who cannot write its log goes on without.
        let _ = match line {
            Line::Text(text) => match lost.swap(0, Relaxed) {
                0 => target.write_all(&text),
                count => writeln!(target, "{count} lines of the log are lost: nobody read them in time")
                    .and_then(|()| target.write_all(&text)),
            },
            Line::Mark(reached) => {
                let written = target.flush();
                let _ = reached.send(());
                written
            }
        };
    }
}

impl Write for &Queue {
    /// A line as a whole: `tracing_subscriber` writes each event with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.push(Line::Text(line.to_vec())) {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (reached, mark) = mpsc::sync_channel(1);
        if self.0.push(Line::Mark(reached)) {
            let _ = mark.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, pipe},
        sync::Mutex,
    };

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_was_lost_is_said() {
        let (reader, writer) = pipe().unwrap();
        let queue = Queue::new(writer);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        // More than the queue and the pipe take together.
        let pushed = 3 * LINES_MAX;
        (0..pushed).for_each(|_| (&queue).write_all(&line).unwrap());
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut said = |line: &String| {
            (&queue).write_all(b"one more\n").unwrap();
            line.contains("lost")
        };
        let lost = lines.find(&mut said).unwrap();
        let count: usize = lost.split(' ').next().unwrap().parse().unwrap();
        assert!((1..=pushed).contains(&count), "{lost}");
    }

    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            thread::yield_now();
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_written_at_the_end_in_order() {
        let target = Slow::default();
        let queue = Queue::new(target.clone());
        let flush = queue.flush_at_end();
        let lines: Vec<String> = (0..1000).map(|number| format!("{number}\n")).collect();
        lines.iter().for_each(|line| (&queue).write_all(line.as_bytes()).unwrap());
        drop(flush);
        assert_eq!(String::from_utf8(target.0.lock().unwrap().clone()).unwrap(), lines.concat());
    }
}
