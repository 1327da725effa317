//! `bench api`: the API server alone, on each of its stores: start, memory, latency and throughput, watch fan-out.
//!
//! The server is the release binary in a process of its own; everything here is a client over TLS on the loopback. etcd
//! runs on the same disk in the same run, so that the two stores can be compared.

mod disk;
mod fanout;
mod load;
mod process;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::screen::{human, human_bytes, mark};
use disk::Disk;
use fanout::Fanout;
use load::Operation;
use process::{Etcd, Server, Store};

/// How many watchers follow one writer.
const WATCHERS: [usize; 3] = [1, 100, 1_000];
/// Typical pods in the store when memory is measured; and on etcd, where only latency is.
const PODS: usize = 10_000;
const PODS_ON_ETCD: usize = 3_000;

/// What a user of the server may count on.
const READY_MAX: Duration = Duration::from_millis(300);
const IDLE_MAX: u64 = 32 << 20;
const LOADED_MAX: u64 = 160 << 20;
const CREATE_MAX: Duration = Duration::from_millis(25);
const OVER_ETCD_MIN: f64 = 2.0;
const WATCH_MAX: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Start of the process until `/readyz` says yes, empty embedded store, in milliseconds.
    pub ready_ms: f64,
    /// Resident memory then.
    pub idle_bytes: u64,
    /// Resident memory with `PODS` pods.
    pub loaded_bytes: u64,
    /// What the disk alone can do, under both stores.
    pub disk: Disk,
    /// Operations on the embedded store.
    pub embedded: Vec<Operation>,
    /// Creates on the embedded store with `--store-durability deferred`.
    pub deferred: Operation,
    /// The same as on the embedded store on etcd.
    pub etcd: Vec<Operation>,
    /// One writer and many watchers, on the embedded store.
    pub fanout: Vec<Fanout>,
}

/// Measures; takes a few minutes. When it has to be quick, it measures the start, memory, creates, and the most watchers.
pub async fn run(quick: bool) -> Result<Report> {
    let disk = disk::run()?;
    let server = Server::start(Store::Embedded).await?;
    let (ready_ms, idle_bytes) = (server.ready_in.as_secs_f64() * 1e3, server.resident().await?);
    let mut embedded = vec![load::creates(&server, PODS).await?];
    if !quick {
        embedded.extend(load::others(&server, PODS).await?);
    }
    let loaded_bytes = server.resident().await?;
    let mut fanout = Vec::new();
    for watchers in if quick { &WATCHERS[2..] } else { &WATCHERS } {
        fanout.push(fanout::run(&server, *watchers).await?);
    }
    drop(server);
    let server = Server::start(Store::Deferred).await?;
    let deferred = load::creates(&server, PODS).await?;
    drop(server);
    let report =
        Report { ready_ms, idle_bytes, loaded_bytes, disk, embedded, deferred, etcd: Vec::new(), fanout };
    if quick {
        return Ok(report);
    }
    let etcd = Etcd::start()?;
    let server = Server::start(Store::Etcd(&etcd)).await?;
    let mut etcd = vec![load::creates(&server, PODS_ON_ETCD).await?];
    etcd.extend(load::others(&server, PODS_ON_ETCD).await?);
    Ok(Report { etcd, ..report })
}

/// The value below which a share of the sorted ones is.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or_default()
}

impl Report {
    /// A table for people.
    pub fn print(&self) {
        let ms = |ms: f64| human(Duration::from_secs_f64(ms / 1e3));
        println!("| what | measured | to reach |  |\n|---|---|---|---|");
        for (what, measured, to_reach, met) in self.targets() {
            println!("| {what} | {measured} | {to_reach} | {} |", mark(met));
        }
        let Disk { p50_ms, p99_ms } = self.disk;
        println!(
            "| write and sync of {} by the disk | {}, p99 {} | | |",
            human_bytes(disk::BYTES),
            ms(p50_ms),
            ms(p99_ms)
        );
        println!(
            "\n| operation, {} clients unless it says | store | p50 | p99 | per second | CPU of the server | of the client |\n\
             |---|---|---|---|---|---|---|",
            load::CLIENTS
        );
        for (index, on_embedded) in self.embedded.iter().enumerate() {
            let deferred = (self.deferred.name == on_embedded.name).then_some(&self.deferred);
            let rows = [
                ("embedded", Some(on_embedded)),
                ("embedded, deferred", deferred),
                ("etcd", self.etcd.get(index)),
            ];
            for (store, row) in rows.into_iter().filter_map(|(store, row)| Some((store, row?))) {
                let (p50, p99) = (ms(row.p50_ms), ms(row.p99_ms));
                println!(
                    "| {} | {store} | {p50} | {p99} | {:.0} | {:.0} µs | {:.0} µs |",
                    row.name, row.per_second, row.server_cpu_us, row.client_cpu_us
                );
            }
        }
        println!(
            "\n| watchers | delay p50 | p99 | server CPU per event and watcher | of the clients |\n|---|---|---|---|---|"
        );
        for row in &self.fanout {
            let (p50, p99) = (ms(row.p50_ms), ms(row.p99_ms));
            let (server, client) = (row.cpu_us_per_event, row.client_cpu_us_per_event);
            println!("| {} | {p50} | {p99} | {server:.1} µs | {client:.1} µs |", row.watchers);
        }
    }

    /// The numbers to reach: of what, what was measured, how much it may be, and whether it is.
    fn targets(&self) -> Vec<(String, String, String, bool)> {
        let at_most = |what: &str, ms: f64, max: Duration| {
            let measured = Duration::from_secs_f64(ms / 1e3);
            (what.to_owned(), human(measured), format!("< {}", human(max)), measured < max)
        };
        let memory = |what: String, bytes: u64, max: u64| {
            (what, human_bytes(bytes), format!("< {}", human_bytes(max)), bytes < max)
        };
        let mut targets = vec![
            at_most("start to ready, empty embedded store", self.ready_ms, READY_MAX),
            memory("resident memory, idle".to_owned(), self.idle_bytes, IDLE_MAX),
            memory(format!("resident memory with {PODS} pods"), self.loaded_bytes, LOADED_MAX),
        ];
        if let Some(create) = self.embedded.first() {
            targets.push(at_most("create, embedded store, p99", create.p99_ms, CREATE_MAX));
            if let Some(on_etcd) = self.etcd.first() {
                let ratio = create.per_second / on_etcd.per_second;
                let what = "creates in a second, of those on etcd".to_owned();
                let to_reach = format!("≥ {OVER_ETCD_MIN:.1} times");
                targets.push((what, format!("{ratio:.1} times"), to_reach, ratio >= OVER_ETCD_MIN));
            }
        }
        if let Some(most) = self.fanout.last() {
            let what = format!("watch delay at {} watchers, p99", most.watchers);
            targets.push(at_most(&what, most.p99_ms, WATCH_MAX));
        }
        targets
    }
}
