//! Signs of life for the node's agent, which leads look-ups elsewhere while there are none.
//!
//! A sign is a byte on a Unix socket. It is sent while every thread that answers datagrams turns and every plugin is
//! ready: a process that merely exists answers nobody.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::UnixStream, time::sleep};

use crate::admin::Status;

/// Time between two signs, and between two looks of a thread at the clock.
pub(crate) const BEAT: Duration = Duration::from_millis(250);
/// Time between two looks while there is no life to show: a server that is killed again and again must be seen to live meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// A thread that has not looked at the clock for so long is stuck.
const STUCK: Duration = Duration::from_secs(1);

/// When each thread that answers last turned.
pub(crate) struct Pulse {
    begin: Instant,
    /// Milliseconds since the beginning; a thread that ended takes its own away.
    turned: Mutex<Vec<Weak<AtomicU64>>>,
    /// Somebody wants to know.
    watched: bool,
}

/// One thread's part of it.
pub(crate) struct Turning {
    begin: Instant,
    turned: Arc<AtomicU64>,
    /// Whether it needs to be kept up to date.
    pub(crate) watched: bool,
}

impl Pulse {
    pub(crate) fn new(watched: bool) -> Self {
        Self { begin: Instant::now(), turned: Mutex::default(), watched }
    }

    /// Watches one more thread.
    pub(crate) fn join(&self) -> Turning {
        let turning = Turning { begin: self.begin, turned: Arc::default(), watched: self.watched };
        turning.turn();
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        turned.push(Arc::downgrade(&turning.turned));
        turning
    }

    /// Whether there are threads and none is stuck.
    fn beats(&self, now: Instant) -> bool {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        turned.retain(|turned| turned.strong_count() > 0);
        let turns = |turned: &Weak<AtomicU64>| {
            let last = turned.upgrade().map_or(0, |turned| turned.load(Relaxed));
            self.begin + Duration::from_millis(last) + STUCK > now
        };
        !turned.is_empty() && turned.iter().all(turns)
    }
}

impl Turning {
    /// The thread turns.
    pub(crate) fn turn(&self) {
        let since = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(since, Relaxed);
    }
}

/// Sends signs of life to whoever listens, for ever. Nobody has to listen.
pub(crate) async fn beat(path: PathBuf, pulse: Arc<Pulse>, status: Arc<Status>) {
    let mut heart = Heart { path, pulse, status, listener: None };
    loop {
        let rest = heart.beat().await;
        sleep(rest).await;
    }
}

/// What sends them.
struct Heart {
    path: PathBuf,
    pulse: Arc<Pulse>,
    status: Arc<Status>,
    listener: Option<UnixStream>,
}

impl Heart {
    /// Shows life if there is any; returns how long to rest then.
    async fn beat(&mut self) -> Duration {
        if !self.status.is_ready() || !self.pulse.beats(Instant::now()) {
            // The end of the connection is known at once.
            self.listener = None;
            return LOOK;
        }
        if self.listener.is_none() {
            self.listener = UnixStream::connect(&self.path).await.ok();
        }
        if let Some(stream) = &mut self.listener
            && stream.write_all(&[1]).await.is_err()
        {
            self.listener = None;
        }
        BEAT
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::UnixListener};

    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn one_thread_that_is_stuck_is_no_life() {
        let pulse = Pulse::new(true);
        let at = |millis| pulse.begin + Duration::from_millis(millis);
        assert!(!pulse.beats(at(0)), "nobody answers yet");
        let [one, other] = [pulse.join(), pulse.join()];
        assert!(pulse.beats(at(900)));
        one.turned.store(2000, Relaxed);
        assert!(!pulse.beats(at(2500)), "the other one is stuck");
        drop(other);
        assert!(pulse.beats(at(2500)), "the other one has ended");
    }

    #[tokio::test]
    async fn the_first_sign_comes_as_soon_as_somebody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (pulse, status) =
            (Arc::new(Pulse::new(true)), Arc::new(Status::new(Arc::new(Registry::default()))));
        let mut heart = Heart { path, pulse: Arc::clone(&pulse), status, listener: None };
        assert_eq!(heart.beat().await, LOOK, "nobody answers yet: it looks again soon");
        let turning = pulse.join();
        // Whatever this machine does meanwhile, the thread has just turned.
        turning.turned.store(u64::from(u32::MAX), Relaxed);
        assert_eq!(heart.beat().await, BEAT);
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 1, "the sign is there before it rests");
    }

    #[tokio::test]
    async fn signs_come_while_the_server_is_ready_and_the_connection_ends_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns.sock");
        let (pulse, status) =
            (Arc::new(Pulse::new(true)), Arc::new(Status::new(Arc::new(Registry::default()))));
        let turning = pulse.join();
        let beating = tokio::spawn(beat(path.clone(), Arc::clone(&pulse), Arc::clone(&status)));
        for _ in 0..2 {
            // The one who listens may come later, and again.
            let listener = UnixListener::bind(&path).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 1);
            std::fs::remove_file(&path).unwrap();
            turning.turn();
        }
        let listener = UnixListener::bind(&path).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        status.ending.store(true, Relaxed);
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        beating.abort();
    }
}
