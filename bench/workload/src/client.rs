//! Clients that do a bounded piece of work and report it as one line of JSON.

use std::{
    collections::BTreeMap,
    env,
    net::{SocketAddr, ToSocketAddrs},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{args::Args, http::Url};

/// Errors that a report spells out; the others are counted.
const SHOWN: usize = 10;

/// Looks names up with the system's resolver.
pub(crate) fn resolve(names: &[String]) -> Result<(), String> {
    let mut failed = Vec::new();
    for name in names {
        let clock = Instant::now();
        match (name.as_str(), 0).to_socket_addrs() {
            Ok(found) => {
                let mut addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                addresses.sort();
                addresses.dedup();
                println!(
                    "{}",
                    json!({ "resolve": name, "addresses": addresses, "took_us": micros(clock.elapsed()) })
                );
            }
            Err(error) => {
                println!("{}", json!({ "resolve": name, "error": error.to_string() }));
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("cannot resolve {}", failed.join(", "))) }
}

/// What happened to some requests.
#[derive(Default)]
pub(crate) struct Tally {
    /// Responses that said 200.
    pub(crate) answered: u64,
    /// Everything else, with the reason.
    pub(crate) errors: Vec<String>,
    by_backend: BTreeMap<String, u64>,
    by_node: BTreeMap<String, u64>,
    latencies_us: Vec<u64>,
}

impl Tally {
    /// One GET, counted.
    pub(crate) fn request(&mut self, url: &Url, address: SocketAddr) {
        let clock = Instant::now();
        match url.get(address) {
            Ok(body) => {
                self.latencies_us.push(micros(clock.elapsed()));
                self.answered(&body);
            }
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    fn answered(&mut self, body: &str) {
        self.answered += 1;
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        for (map, key) in [(&mut self.by_backend, "pod"), (&mut self.by_node, "node")] {
            *map.entry(body[key].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.errors.extend(other.errors);
        self.latencies_us.extend(other.latencies_us);
        for (mine, theirs) in [(&mut self.by_backend, other.by_backend), (&mut self.by_node, other.by_node)] {
            for (key, count) in theirs {
                *mine.entry(key).or_default() += count;
            }
        }
    }

    fn report(mut self) -> Value {
        self.latencies_us.sort_unstable();
        let last = self.latencies_us.len().saturating_sub(1);
        let quantile = |percent: usize| self.latencies_us.get(last * percent / 100).copied();
        json!({
            "total": self.answered + self.errors.len() as u64,
            "failed": self.errors.len(),
            "errors": self.errors.iter().take(SHOWN).collect::<Vec<_>>(),
            "by_backend": self.by_backend,
            "by_node": self.by_node,
            "node": env::var("NODE_NAME").unwrap_or_default(),
            "latency_us": { "p50": quantile(50), "p99": quantile(99) },
        })
    }
}

/// A number of requests, each over a connection of its own.
pub(crate) fn requests(args: &Args) -> Result<(), String> {
    let url = Url::parse(&args.target("the URL")?)?;
    let count: u64 = args.option("--count", 1)?;
    let concurrency: u64 = args.option("--concurrency", 1)?;
    let addresses = url.resolve().map_err(|error| format!("cannot resolve {}: {error}", url.authority))?;
    if addresses.is_empty() {
        return Err(format!("{} has no address", url.authority));
    }
    let next = AtomicU64::new(0);
    let tally = thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            // In turn over all addresses, so that both families are used.
            for address in addresses.iter().cycle() {
                if next.fetch_add(1, Ordering::Relaxed) >= count {
                    break;
                }
                tally.request(&url, *address);
            }
            tally
        };
        let workers: Vec<_> = (0..concurrency.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().fold(Tally::default(), |mut sum, worker| {
            sum.add(worker.join().expect("a worker does not panic"));
            sum
        })
    });
    let failed = tally.errors.len();
    println!("{}", tally.report());
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {count} requests failed")) }
}

/// A duration in microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
