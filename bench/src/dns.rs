//! `bench dns`: what one answer costs the resolver's processor, beside unbound in the same run.
//!
//! A real API server with 10 000 services and a resolver that follows it; unbound with the same names as local data; an
//! upstream server of our own; dnsperf on the other processor. The servers take turns, round after round, so that whatever
//! else the machine does meets both. Nothing leaves the loopback interface.

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::screen::{Step, human, human_bytes, mark};

mod change;
mod load;
mod population;
mod servers;
mod upstream;

use load::{Cost, Load};
use population::Population;
use servers::{ControlPlane, Process, Resolver, Unbound};
use upstream::Upstream;

/// Times that each server takes its turn in each row.
const ROUNDS: usize = 5;
/// How long a turn lasts.
const TURN: Duration = Duration::from_secs(3);
/// Names of one row of the cache.
const CACHED: usize = 1000;
/// Changes whose way into an answer is timed.
const CHANGES: usize = 200;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Processor time per answer.
    pub rows: Vec<Row>,
    /// Resident memory of the resolver with an empty cluster, in bytes.
    pub idle_bytes: u64,
    /// The same with the whole population, before any question.
    pub populated_bytes: u64,
    /// The same after all names were asked.
    pub asked_bytes: u64,
    /// Milliseconds from sending a change to the API until it is answered, sorted.
    pub change_ms: Vec<f64>,
    /// Services and endpoints of each.
    pub population: (usize, usize),
}

/// Two servers at the same task.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The task.
    pub what: &'static str,
    /// Of the resolver, one worker: microseconds per answer, median of the rounds.
    pub ours_us: f64,
    /// Of unbound, one thread.
    pub unbound_us: f64,
    /// Every round of the resolver.
    pub ours: Vec<Cost>,
    /// Every round of unbound.
    pub unbound: Vec<Cost>,
    /// Most that the ratio may be.
    pub ratio_max: f64,
    /// Most that the resolver may take, in microseconds.
    pub us_max: Option<f64>,
}

/// Most memory over the idle process, in bytes.
const MEMORY_MAX: u64 = 24 << 20;
/// Most time from a change to its answer, for 99 of 100.
const CHANGE_MAX: Duration = Duration::from_millis(20);

/// Measures; everything that runs is in `folder` and ends with it.
pub async fn run(folder: &Path) -> Result<Report> {
    let step = Step::begin("API server, resolver, upstream server, unbound");
    let upstream = Upstream::start()?;
    let control = ControlPlane::start(folder).await?;
    let resolver = Resolver::start(folder, &control, upstream.address).await?;
    let idle_bytes = resolver.process.settled_bytes().await?;
    step.done();

    let population = Population::default();
    let step = Step::begin(format!("{} services of {} endpoints", population.services, population.endpoints));
    population.create(&control, &step).await?;
    resolver.wait_for(&population.last_name()).await?;
    let populated_bytes = resolver.process.settled_bytes().await?;
    let unbound = Unbound::start(folder, &population, upstream.address).await?;
    step.done();

    let mut rows = Vec::new();
    for task in Task::ALL {
        let step = Step::begin(task.what());
        rows.push(measure(*task, folder, &population, &resolver, &unbound).await?);
        step.done();
    }
    let asked_bytes = resolver.process.settled_bytes().await?;
    let step = Step::begin("changes in the API until they are answered");
    let change_ms = change::measure(&control, &resolver, CHANGES).await?;
    step.done();
    Ok(Report {
        rows,
        idle_bytes,
        populated_bytes,
        asked_bytes,
        change_ms,
        population: (population.services, population.endpoints),
    })
}

/// What is asked.
#[derive(Clone, Copy)]
enum Task {
    Cluster,
    Hit,
    Miss,
}

impl Task {
    const ALL: &[Self] = &[Self::Cluster, Self::Hit, Self::Miss];

    fn what(self) -> &'static str {
        match self {
            Self::Cluster => "cluster names",
            Self::Hit => "external names in the cache",
            Self::Miss => "forwarded, nothing cached",
        }
    }

    /// Most microseconds, and most of unbound's.
    fn limits(self) -> (Option<f64>, f64) {
        match self {
            Self::Cluster => (Some(6.0), 0.7),
            Self::Hit | Self::Miss => (None, 0.8),
        }
    }

    /// The names of one turn; no turn of a miss repeats another's.
    fn names(self, population: &Population, turn: usize) -> Vec<String> {
        match self {
            Self::Cluster => population.names().collect(),
            Self::Hit => (0..CACHED).map(|number| format!("host-{number}.cached.example")).collect(),
            Self::Miss => (0..300_000).map(|number| format!("host-{number}.turn-{turn}.example")).collect(),
        }
    }
}

async fn measure(
    task: Task,
    folder: &Path,
    population: &Population,
    resolver: &Resolver,
    unbound: &Unbound,
) -> Result<Row> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let file = folder.join("questions");
    let mut turn = 0;
    for _ in 0..ROUNDS {
        for (server, costs) in [(&resolver.process, &mut ours), (&unbound.process, &mut theirs)] {
            load::write_questions(&file, &task.names(population, turn))?;
            turn += 1;
            if matches!(task, Task::Hit | Task::Cluster) && costs.is_empty() {
                // The names are known to the server before it is measured, in both servers alike.
                Load { file: &file, seconds: 2, server }.run().await?;
            }
            costs.push(Load { file: &file, seconds: TURN.as_secs(), server }.run().await?);
        }
    }
    let (us_max, ratio_max) = task.limits();
    let (ours_us, unbound_us) = (median(&ours), median(&theirs));
    Ok(Row { what: task.what(), ours_us, unbound_us, ours, unbound: theirs, ratio_max, us_max })
}

fn median(costs: &[Cost]) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(|cost| cost.us_per_answer).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// A table for the README.
    pub fn print(&self) {
        println!("| processor time per answer, one worker | fairlead | unbound | ratio | to reach |  |");
        println!("|---|---|---|---|---|---|");
        for row in &self.rows {
            let ratio = row.ours_us / row.unbound_us;
            let absolute = row.us_max.map(|max| format!("≤ {max} µs, ")).unwrap_or_default();
            let met = ratio <= row.ratio_max && row.us_max.is_none_or(|max| row.ours_us <= max);
            println!(
                "| {} | {:.2} µs | {:.2} µs | {ratio:.2} | {absolute}≤ {} | {} |",
                row.what,
                row.ours_us,
                row.unbound_us,
                row.ratio_max,
                mark(met)
            );
        }
        let (services, endpoints) = self.population;
        let over = self.populated_bytes.saturating_sub(self.idle_bytes);
        println!("\n| what | measured | to reach |  |\n|---|---|---|---|");
        println!(
            "| memory over the idle process ({}) with {services} services of {endpoints} endpoints | {} | ≤ {} | {} |",
            human_bytes(self.idle_bytes),
            human_bytes(over),
            human_bytes(MEMORY_MAX),
            mark(over <= MEMORY_MAX)
        );
        let asked = self.asked_bytes.saturating_sub(self.idle_bytes);
        println!(
            "| the same after every name was asked and the cache was filled | {} | | |",
            human_bytes(asked)
        );
        let p99 = self.change(0.99);
        println!(
            "| a change in the API until it is answered, p50 | {} | | |\n| the same, p99 | {} | < {} | {} |",
            human(self.change(0.5)),
            human(p99),
            human(CHANGE_MAX),
            mark(p99 < CHANGE_MAX)
        );
    }

    fn change(&self, quantile: f64) -> Duration {
        let last = self.change_ms.len().saturating_sub(1);
        let index = (quantile * last as f64).round() as usize;
        Duration::from_secs_f64(self.change_ms.get(index).copied().unwrap_or_default() / 1e3)
    }
}

/// A process under measurement.
impl Process {
    /// Resident memory once it has stopped changing.
    async fn settled_bytes(&self) -> Result<u64> {
        let mut last = self.resident_bytes()?;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.resident_bytes()?;
            if now.abs_diff(last) < 64 << 10 {
                return Ok(now);
            }
            last = now;
        }
    }
}
