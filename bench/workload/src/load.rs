//! Steady load: a line of JSON each second with what has happened since the start, and one for each failure.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{
    args::Args,
    client::Tally,
    http::Url,
    stop::{self, Stop},
};

/// How often a worker looks the name up again.
const LOOK_UP: Duration = Duration::from_millis(500);
/// How often the sum is printed.
const REPORT: Duration = Duration::from_secs(1);

struct Load {
    url: Url,
    pause: Duration,
    stop: Stop,
    answered: AtomicU64,
    failed: AtomicU64,
    /// Held while a line is printed, so that lines stay whole.
    output: Mutex<()>,
}

/// Requests until it is told to stop, or the time is over.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let duration = Duration::from_secs(args.option("--duration", 3600)?);
    let workers: u32 = args.option("--concurrency", 2)?;
    let load = Load {
        url: Url::parse(&args.target("the URL")?)?,
        pause: Duration::from_millis(args.option("--pause-ms", 2)?),
        stop: stop::requested(),
        answered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        output: Mutex::new(()),
    };
    let end = Instant::now() + duration;
    thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| load.work(end));
        }
        while !load.stop.is_set() && Instant::now() < end {
            load.stop.wait_until(Some((Instant::now() + REPORT).min(end)));
            load.print(&load.sum(false));
        }
    });
    load.print(&load.sum(true));
    match load.failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(format!("{failed} requests failed")),
    }
}

impl Load {
    fn work(&self, end: Instant) {
        let mut looked_up = Instant::now();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for turn in 0_usize.. {
            if self.stop.is_set() || Instant::now() >= end {
                break;
            }
            if addresses.is_empty() || looked_up.elapsed() >= LOOK_UP {
                looked_up = Instant::now();
                match self.url.resolve() {
                    Ok(found) => addresses = found,
                    Err(error) => self.failure(&format!("cannot resolve {}: {error}", self.url.authority)),
                }
            }
            // In turn over all addresses, so that both families are used.
            let Some(address) = addresses.get(turn % addresses.len().max(1)) else {
                thread::sleep(self.pause);
                continue;
            };
            let mut tally = Tally::default();
            tally.request(&self.url, *address);
            self.answered.fetch_add(tally.answered, Ordering::Relaxed);
            for error in &tally.errors {
                self.failure(error);
            }
            thread::sleep(self.pause);
        }
    }

    fn failure(&self, error: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.print(&json!({ "at_ms": now_ms(), "failure": error }));
    }

    fn sum(&self, is_final: bool) -> serde_json::Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({ "at_ms": now_ms(), "answered": count(&self.answered), "failed": count(&self.failed), "final": is_final })
    }

    fn print(&self, line: &serde_json::Value) {
        let _whole = self.output.lock().expect("no thread panics while it prints");
        println!("{line}");
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
