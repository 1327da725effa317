//! `bench programming`: how fast a large cluster and a small change get into the kernel, and what they take there.
//!
//! `fairlead proxy` runs in a network namespace and reads a cluster that does not exist from a feed of ours. The times are
//! the agent's own: from an update that has arrived until it is applied.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use fairlead_testkit::TwoNodes;
use serde::Serialize;
use serde_json::Value;

use self::synthetic::{Family, Synthetic};
use crate::{cluster, feed::ScriptedFeed, proxy::Proxy, screen::Step};

mod synthetic;

/// Small changes that are measured.
const CHANGES: u32 = 1_000;

/// A way to program services: its name, and how `fairlead proxy` is told.
type Mode = (&'static str, &'static [&'static str]);

/// Every mode that is measured.
const MODES: &[Mode] = &[("ebpf", &["--proxy-mode", "ebpf"])];

/// Size of a cluster, and whether small changes of it are measured. The last one is larger than the maps.
const SIZES: &[(u32, u32, bool)] = &[(1_000, 10, true), (10_000, 10, true), (20_000, 50, false)];

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
    /// `cold`, `change-p50`, `change-p99`, `map-memory`, `rss`, `refused`.
    pub op: &'static str,
    /// The number.
    pub value: f64,
    /// `ms`, `MiB` or `objects`.
    pub unit: &'static str,
}

/// Measures every mode, family and size, and prints a table.
pub fn run(json: Option<&Path>) -> Result<()> {
    let binary = cluster::binary()?;
    let mut rows = Vec::new();
    for mode in MODES {
        for family in [Family::Ipv4, Family::Ipv6] {
            for (services, endpoints, changes) in SIZES {
                let title =
                    format!("{}, {}: {services} services × {endpoints} endpoints", mode.0, family.name());
                let step = Step::begin(title);
                let run =
                    Run { binary: &binary, mode: *mode, family, services: *services, endpoints: *endpoints };
                rows.extend(run.measure(*changes, &step)?);
                step.done();
            }
        }
    }
    print(&rows);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn print(rows: &[Row]) {
    println!("| mode | family | services × endpoints | op | measured |\n|---|---|---|---|---|");
    for row in rows {
        let Row { mode, family, services, endpoints, op, value, unit, .. } = row;
        println!("| {mode} | {family} | {services} × {endpoints} | {op} | {value:.3} {unit} |");
    }
}

struct Run<'a> {
    binary: &'a Path,
    mode: Mode,
    family: Family,
    services: u32,
    endpoints: u32,
}

impl Run<'_> {
    fn measure(&self, changes: bool, step: &Step) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().context("cannot make a folder")?;
        let topology = TwoNodes::new();
        let mut cluster = Synthetic::new(self.family, self.services, self.endpoints, &topology.a.addresses);
        let feed = ScriptedFeed::start(&directory.path().join("feed.sock"), cluster.snapshot())?;
        let agent = Proxy::start(self.binary, synthetic::NODE, &topology.a, self.mode.1, directory.path())?;
        step.note("cold load");
        let status = agent.until_applied(1)?;
        let mut rows = vec![self.row("cold", ms(&status)?, "ms")];
        rows.push(self.row("rss", agent.resident_mib()?, "MiB"));
        rows.push(self.row("map-memory", agent.map_memory_mib()?, "MiB"));
        let refused = status["problems"].as_array().map_or(0, Vec::len);
        rows.push(self.row("refused", refused as f64, "objects"));
        if changes {
            step.note(format!("{CHANGES} changes"));
            let mut times = Vec::new();
            for change in 0..CHANGES {
                feed.send(cluster.change_one(change));
                times.push(ms(&agent.until_applied(u64::from(change) + 2)?)?);
            }
            times.sort_by(f64::total_cmp);
            rows.push(self.row("change-p50", quantile(&times, 0.5), "ms"));
            rows.push(self.row("change-p99", quantile(&times, 0.99), "ms"));
        }
        Ok(rows)
    }

    fn row(&self, op: &'static str, value: f64, unit: &'static str) -> Row {
        let (mode, family) = (self.mode.0, self.family.name());
        let (services, endpoints) = (self.services, self.endpoints);
        Row { bench: "programming", mode, family, services, endpoints, op, value, unit }
    }
}

/// From the arrival of the last update until it was applied.
fn ms(status: &Value) -> Result<f64> {
    Ok(status["last_sync_us"].as_u64().context("the agent's status has no last_sync_us")? as f64 / 1e3)
}

/// The value that this part of a sorted list does not exceed.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_a_measured_value() {
        let times: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99)), (500.0, 990.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
