//! `bench report`: what benchmarks have written as JSON, as one page that needs no network, as Markdown and as CSV.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

mod chart;
mod page;
mod ratio;
mod table;

/// From what, to where.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Files that `bench cost`, `bench programming` … wrote with --json
    #[arg(required = true, value_name = "FILE")]
    results: Vec<PathBuf>,
    /// Write report.html, report.md and report.csv into this folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
}

/// A number of any benchmark.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Which benchmark.
    pub bench: String,
    /// How services are programmed.
    pub mode: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Tier, or what is left out; empty where there is one only.
    #[serde(default)]
    pub path: String,
    /// How many services there are.
    pub services: u32,
    /// What is done.
    pub op: String,
    /// The number.
    pub value: f64,
    /// What it is in.
    pub unit: String,
}

impl Row {
    /// What it is a number of.
    fn key(&self) -> String {
        let Self { bench, family, services, op, .. } = self;
        format!("{bench} {} {services} {family} {op}", self.name())
    }

    /// Mode and path, as a legend names them.
    fn name(&self) -> String {
        if self.path.is_empty() { self.mode.clone() } else { format!("{} {}", self.mode, self.path) }
    }
}

/// Everything that a report is made of.
pub struct Report {
    rows: Vec<Row>,
    /// Name and value of what describes the making of the report; the results say nothing of where they are from.
    made: Vec<(&'static str, String)>,
}

/// Reads the files and writes the reports.
pub fn run(args: &ReportArgs) -> Result<()> {
    let report = Report::read(&args.results)?;
    fs::create_dir_all(&args.to).with_context(|| format!("cannot make {}", args.to.display()))?;
    let outputs =
        [("report.html", report.html()?), ("report.md", report.markdown()), ("report.csv", report.csv())];
    for (name, text) in outputs {
        let path = args.to.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

impl Report {
    /// Reads results.
    ///
    /// # Errors
    /// A file is not there or holds something else, or there are two numbers of the same.
    pub fn read(files: &[PathBuf]) -> Result<Self> {
        let (mut rows, mut known) = (Vec::new(), BTreeMap::new());
        for file in files {
            for row in read_rows(file)? {
                if let Some(other) = known.insert(row.key(), file) {
                    let (file, other) = (file.display(), other.display());
                    bail!("{} is in {other} and again in {file}: leave one out", row.key());
                }
                rows.push(row);
            }
        }
        ensure!(!rows.is_empty(), "the files hold no results");
        Ok(Self { rows, made: made() })
    }

    /// The page.
    ///
    /// # Errors
    /// The rows cannot be written as JSON.
    pub fn html(&self) -> Result<String> {
        page::html(self)
    }

    /// The tables for a text such as the README.
    pub fn markdown(&self) -> String {
        table::markdown(&self.rows)
    }

    /// Every row.
    pub fn csv(&self) -> String {
        table::csv(&self.rows)
    }
}

fn read_rows(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} does not hold results of a benchmark (written with --json)", file.display())
    })
}

/// When and where the report is made.
fn made() -> Vec<(&'static str, String)> {
    let first = |file: &str, start: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        let value = line.split_once([':', '=']).map_or(line, |(_, value)| value);
        value.trim().trim_matches('"').to_owned()
    };
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("fairlead", env!("CARGO_PKG_VERSION").to_owned()),
        ("processor", format!("{} ({processors} cores)", first("/proc/cpuinfo", "model name"))),
        ("kernel", first("/proc/sys/kernel/osrelease", "")),
        ("system", first("/etc/os-release", "PRETTY_NAME")),
        ("nft", output("nft", &["--version"])),
        ("iptables", output("iptables", &["--version"])),
        ("qemu", output("qemu-system-x86_64", &["--version"]).lines().next().unwrap_or_default().to_owned()),
        ("made", output("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])),
    ]
}

#[cfg(test)]
mod tests;
