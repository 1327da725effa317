//! `bench programming`: how fast a large cluster and a small change get into the kernel, and what they take there.
//!
//! `fairlead proxy` runs in a network namespace and reads a cluster that does not exist from a feed of ours. The times are
//! the agent's own: from an update that has arrived until it is applied.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use fairlead_agent::Applied;
use fairlead_testkit::TwoNodes;
use serde::Serialize;

use self::synthetic::{Family, Synthetic};
use crate::{
    cluster,
    feed::ScriptedFeed,
    modes::{MODES, chosen},
    proxy::Proxy,
    screen::Step,
    stop,
};

mod synthetic;

/// Services, endpoints of each, and how many small changes are measured.
type Size = (u32, u32, u32);

/// What is programmed with maps is also measured with a cluster that is larger than they are. A change among many rules takes
/// seconds, so fewer are made, but where rules are in maps as well.
const SIZES: &[(&str, &[Size])] = &[
    ("ebpf", &[(100, 10, 1_000), (1_000, 10, 1_000), (10_000, 10, 1_000), (20_000, 50, 0)]),
    ("nftables", &[(100, 10, 100), (1_000, 10, 100), (10_000, 10, 100)]),
    ("iptables", LISTS),
    ("ipvs", LISTS),
];
const LISTS: &[Size] = &[(100, 10, 100), (1_000, 10, 100), (10_000, 10, 10)];

/// Of so many changes one in a hundred says something; of fewer it is the longest that is told.
const HUNDRED: usize = 100;

/// One measured number.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// `programming`.
    pub bench: &'static str,
    /// How services are programmed.
    pub mode: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// How many there are.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
    /// `cold`, `cold-cpu`, `change-p50`, `change-p99` or of few changes `change-max`, `change-cpu`, `map-memory`, `rss`, `refused`.
    pub op: &'static str,
    /// The number.
    pub value: f64,
    /// `ms`, `MiB` or `objects`.
    pub unit: &'static str,
}

/// Which of it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ProgrammingArgs {
    /// Also write the numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these modes, such as `ebpf,nftables`
    #[arg(long, value_name = "MODES", value_delimiter = ',')]
    mode: Vec<String>,
    /// Only sizes of at most so many services
    #[arg(long, value_name = "NUMBER", default_value_t = u32::MAX)]
    services_max: u32,
}

impl ProgrammingArgs {
    /// What is measured, in that order.
    fn plan(&self) -> Result<Vec<(&'static str, Family, Size)>> {
        let mut plan = Vec::new();
        for mode in chosen(MODES, &self.mode)? {
            let sizes = SIZES.iter().find(|row| row.0 == mode).map_or(LISTS, |row| row.1);
            for family in [Family::Ipv4, Family::Ipv6] {
                let small = sizes.iter().filter(|size| size.0 <= self.services_max);
                plan.extend(small.map(|size| (mode, family, *size)));
            }
        }
        ensure!(!plan.is_empty(), "nothing has at most {} services: see --services-max", self.services_max);
        Ok(plan)
    }
}

/// Measures every mode, family and size, and prints a table.
///
/// # Errors
/// There is nothing to measure, an agent fails, or it was told to [`stop`].
pub fn run(args: &ProgrammingArgs) -> Result<()> {
    let plan = args.plan()?;
    let binary = cluster::binary()?;
    let mut rows = Vec::new();
    for (mode, family, (services, endpoints, changes)) in plan {
        stop::check()?;
        let step =
            Step::begin(format!("{mode}, {}: {services} services × {endpoints} endpoints", family.name()));
        let run = Run { binary: &binary, mode, family, services, endpoints };
        rows.extend(run.measure(changes, &step)?);
        step.done();
    }
    print(&rows);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A line for each mode, family and size, a column for each number.
fn print(rows: &[Row]) {
    let mut heads: Vec<(&str, String)> = Vec::new();
    for Row { op, unit, .. } in rows {
        if heads.iter().all(|(known, _)| known != op) {
            heads.push((op, format!("{op} {unit}")));
        }
    }
    print!("\n{:<10}{:<8}{:>13}", "mode", "family", "services");
    heads.iter().for_each(|(_, head)| print!("  {head}"));
    println!();
    let place = |row: &Row| (row.mode, row.family, row.services, row.endpoints);
    for line in rows.chunk_by(|one, two| place(one) == place(two)) {
        let Some(Row { mode, family, services, endpoints, .. }) = line.first() else { continue };
        print!("{mode:<10}{family:<8}{:>13}", format!("{services} × {endpoints}"));
        for (op, head) in &heads {
            let cell = line.iter().find(|row| row.op == *op).map(|row| number(row.value));
            print!("  {:>1$}", cell.unwrap_or_default(), head.len());
        }
        println!();
    }
}

/// As many digits as matter.
fn number(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 || value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

struct Run<'a> {
    binary: &'a Path,
    mode: &'static str,
    family: Family,
    services: u32,
    endpoints: u32,
}

impl Run<'_> {
    fn measure(&self, changes: u32, step: &Step) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().context("cannot make a folder")?;
        let topology = TwoNodes::new();
        let mut cluster = Synthetic::new(self.family, self.services, self.endpoints, &topology.a.addresses);
        let feed = ScriptedFeed::start(&directory.path().join("feed.sock"), cluster.snapshot())?;
        let more = ["--proxy-mode", self.mode];
        let agent = Proxy::start(self.binary, synthetic::NODE, &topology.a, &more, directory.path())?;
        step.note("cold load");
        let applied = agent.until_applied(1)?;
        let mut rows = vec![self.row("cold", ms(applied), "ms")];
        let cold_cpu = agent.cpu_ms()?;
        rows.push(self.row("cold-cpu", cold_cpu, "ms"));
        rows.push(self.row("rss", agent.resident_mib()?, "MiB"));
        rows.push(self.row("map-memory", agent.map_memory_mib()?, "MiB"));
        let refused = agent.admin().status()?["problems"].as_array().map_or(0, Vec::len);
        rows.push(self.row("refused", refused as f64, "objects"));
        if changes > 0 {
            step.note(format!("{changes} changes"));
            let (mut times, before) = (Vec::new(), agent.cpu_ms()?);
            for change in 0..changes {
                feed.send(cluster.change_one(change));
                times.push(ms(agent.until_applied(u64::from(change) + 2)?));
            }
            let cpu = (agent.cpu_ms()? - before) / f64::from(changes);
            times.sort_by(f64::total_cmp);
            rows.push(self.row("change-p50", quantile(&times, 0.5), "ms"));
            let (op, longest) = longest(&times);
            rows.push(self.row(op, longest, "ms"));
            rows.push(self.row("change-cpu", cpu, "ms"));
        }
        Ok(rows)
    }

    fn row(&self, op: &'static str, value: f64, unit: &'static str) -> Row {
        let (mode, family) = (self.mode, self.family.name());
        let (services, endpoints) = (self.services, self.endpoints);
        Row { bench: "programming", mode, family, services, endpoints, op, value, unit }
    }
}

/// From the arrival of the last update until it was applied.
fn ms(applied: Applied) -> f64 {
    applied.last_sync_us as f64 / 1e3
}

/// The value that this part of a sorted list does not exceed.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

/// How long changes take at worst, and what that is called.
fn longest(sorted: &[f64]) -> (&'static str, f64) {
    if sorted.len() < HUNDRED {
        ("change-max", quantile(sorted, 1.0))
    } else {
        ("change-p99", quantile(sorted, 0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::{ProgrammingArgs, longest, quantile};

    #[test]
    fn of_fewer_than_a_hundred_changes_there_is_a_longest_and_no_quantile_of_a_hundredth() {
        let times: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(longest(&times), ("change-p99", 99.0));
        assert_eq!(longest(&times[..99]), ("change-max", 99.0));
        assert_eq!(longest(&times[..10]), ("change-max", 10.0));
    }

    #[test]
    fn what_is_asked_for_is_measured_or_it_is_said_why_nothing_is() {
        let plan = |mode: &str, services_max| {
            let args = ProgrammingArgs { json: None, mode: vec![mode.into()], services_max };
            args.plan().map(|plan| plan.len()).map_err(|error| error.to_string())
        };
        assert_eq!(plan("ebpf", 1_000), Ok(4));
        assert!(plan("ebfp", 1_000).is_err_and(|error| error.contains("\"ebfp\" is no mode")));
        assert!(plan("ebpf", 50).is_err_and(|error| error.contains("--services-max")));
    }

    #[test]
    fn a_quantile_is_a_measured_value() {
        let times: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99)), (500.0, 990.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
