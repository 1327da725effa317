//! `bench throughput`: how much and how often, by the clock, on the running kernel.
//!
//! A clock is at the mercy of whatever else the machine does, so the modes take turns, and what counts is the ratio to no load
//! balancing in the same round. All traffic stays in network namespaces that this makes and removes.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fairlead_testkit::{InCgroup, netns::run_in};

use self::{
    op::Op,
    place::{NONE, Path, Place},
    summary::{Key, Line, Row, Samples, lines},
};
use crate::{
    modes::{MODES, chosen},
    screen::Step,
    stop,
};

mod op;
mod place;
pub mod server;
mod summary;

const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// How much of it.
#[derive(Clone, Debug, clap::Args)]
pub struct ThroughputArgs {
    /// Few rounds, short ones, IPv4 alone: less than two minutes
    #[arg(long)]
    quick: bool,
    /// Only these modes beside `none`, such as `ebpf,iptables`
    #[arg(long, value_name = "MODES", value_delimiter = ',')]
    mode: Vec<String>,
    /// How many services there are beside those that are asked
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
    services: u32,
    /// How often each mode has its turn [default: 5, or 3 with --quick]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Also write the numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl ThroughputArgs {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// How long an operation is repeated in a round.
    fn time(&self) -> Duration {
        Duration::from_millis(if self.quick { 300 } else { 1_000 })
    }

    /// Each with its place among them; `none` is the first.
    fn modes(&self) -> Result<Vec<(usize, &'static str)>> {
        let mut wanted = self.mode.clone();
        if !wanted.is_empty() {
            wanted.push(NONE.to_owned());
        }
        let modes = chosen(&[&[(NONE, None)], MODES].concat(), &wanted)?;
        Ok(modes.into_iter().enumerate().collect())
    }
}

/// Measures every mode in turns, and prints a table.
///
/// # Errors
/// Something cannot be made or does not answer, or it was told to [`stop`].
pub fn run(args: &ThroughputArgs) -> Result<()> {
    let modes = args.modes()?;
    let (rounds, started) = (args.rounds(), Instant::now());
    let mut samples = Samples::new();
    for round in 0..rounds {
        for mode in &modes {
            let step = Step::begin(format!("round {} of {rounds}: {}", round + 1, mode.1));
            let place = Place::new(mode.1, args.services).with_context(|| format!("mode {}", mode.1))?;
            for (key, value) in turn(*mode, &place, args, &step)? {
                samples.entry(key).or_default().insert(round, value);
            }
            drop(place);
            step.done();
        }
    }
    let lines = lines(&samples);
    print(&lines, args.services);
    println!("\n{rounds} rounds in {:.0} s", started.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        let rows: Vec<Row> = lines.iter().flat_map(|line| line.rows(args.services)).collect();
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One mode's turn: every operation in every family on every path.
fn turn(
    mode: (usize, &'static str),
    place: &Place,
    args: &ThroughputArgs,
    step: &Step,
) -> Result<Vec<(Key, f64)>> {
    let _inside = place.cgroup.as_ref().map(|cgroup| InCgroup::enter(&cgroup.join("pods")));
    let families = if args.quick { &FAMILIES[..1] } else { &FAMILIES };
    let mut measured = Vec::new();
    for (path, targets) in Path::ALL.into_iter().zip(&place.targets) {
        for (family, to) in families.iter().zip(targets) {
            for op in Op::ALL {
                stop::check()?;
                step.note(format!("{}, {family}, {}", path.name(), op.row().0));
                let value = run_in(&place.client, || op.measure(*to, args.time()));
                let value = value.with_context(|| format!("mode {}, {}", mode.1, path.name()))?;
                measured.push((Key { family, path, op: *op, mode }, value));
            }
        }
    }
    Ok(measured)
}

/// A table for each family and path; an operation's modes are below each other.
fn print(lines: &[Line], services: u32) {
    let mut last = None;
    for Line { key, measured, ratio } in lines {
        if last.replace((key.family, key.path)) != Some((key.family, key.path)) {
            println!("\n{}, {}, {services} services\n", key.family, key.path.name());
            println!(
                "| operation | mode | median | spread | to none | spread |\n|---|---|---:|---:|---:|---:|"
            );
        }
        let (name, unit) = key.op.row();
        let digits = if unit == "1/s" { 0 } else { 2 };
        let ratio = ratio.map_or_else(
            || "| |".to_owned(),
            |ratio| format!("{:.3} | {:.3} – {:.3} |", ratio.median, ratio.low, ratio.high),
        );
        println!(
            "| {name} | {} | {:.digits$} {unit} | {:.digits$} – {:.digits$} | {ratio}",
            key.mode.1, measured.median, measured.low, measured.high
        );
    }
}
