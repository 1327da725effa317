//! A client that does nothing but look names up with the system's resolver, as programs do.

use std::{
    net::ToSocketAddrs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::args::Args;

/// Errors that a report spells out; the others are counted.
const SHOWN: usize = 10;
/// Look-ups between two lines that say how far it is.
const PROGRESS: usize = 1000;
/// Between two looks for the name that ends it all.
const PAUSE: Duration = Duration::from_millis(200);

/// What all threads have done.
#[derive(Default)]
struct Done {
    begun: AtomicUsize,
    ended: AtomicUsize,
    stop: AtomicBool,
    /// What failed, as far as it is shown, and how much that was.
    errors: Mutex<(usize, Vec<String>)>,
    slowest: Mutex<Duration>,
}

/// Looks names up in turn, several at a time: a number of times, or until another name exists.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let names = args.words();
    if names.is_empty() {
        return Err("names to look up are missing".to_owned());
    }
    let until = args.option("--until", String::new())?;
    let count: usize = args.option("--count", if until.is_empty() { 1 } else { usize::MAX })?;
    let concurrency: usize = args.option("--concurrency", 1)?;
    let done = Done::default();
    thread::scope(|scope| {
        for _ in 0..concurrency.max(1) {
            scope.spawn(|| done.work(&names, count));
        }
        while !until.is_empty() && exists(&until).is_err() {
            thread::sleep(PAUSE);
        }
        if !until.is_empty() {
            done.stop.store(true, Relaxed);
        }
    });
    let look_ups = done.ended.into_inner();
    let (failed, errors) = done.errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    let slowest = done.slowest.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = json!({ "look_ups": look_ups, "failed": failed, "errors": errors, "slowest_ms": slowest.as_millis() as u64 });
    println!("{report}");
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {look_ups} look-ups failed")) }
}

impl Done {
    fn work(&self, names: &[String], count: usize) {
        loop {
            let number = self.begun.fetch_add(1, Relaxed);
            if number >= count || self.stop.load(Relaxed) {
                return;
            }
            let clock = Instant::now();
            let found = exists(&names[number % names.len()]);
            let took = clock.elapsed();
            let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
            *slowest = took.max(*slowest);
            drop(slowest);
            if let Err(error) = found {
                let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
                errors.0 += 1;
                if errors.1.len() < SHOWN {
                    errors.1.push(error);
                }
            }
            let ended = self.ended.fetch_add(1, Relaxed) + 1;
            if ended.is_multiple_of(PROGRESS) {
                println!("{ended} look-ups");
            }
        }
    }
}

/// A name has an address.
fn exists(name: &str) -> Result<(), String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("{name}: {error}"))?;
    if found.count() > 0 { Ok(()) } else { Err(format!("{name}: no address")) }
}
