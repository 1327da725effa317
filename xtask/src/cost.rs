//! `cargo xtask bench cost`: instructions of the kernel for an operation, in every mode, with any number of services.
//!
//! Two machines are booted at once, with random numbers of different seeds: what they count must agree (unless `--once`). The measuring is
//! in `fairlead-bench` (`bench/src/cost.rs`), which runs inside them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use console::style;
use serde_json::Value;

use crate::{
    bpf,
    build::{self, Profile},
    setup,
    vm::{self, Event, Initramfs, Kernel, Machine, Step, kernel::RELEASES},
};

/// The kernel that is measured.
const KERNEL: &str = "6.1";
const SEEDS: [u32; 2] = [1, 2];
/// How far the two may be apart, in percent.
const AGREEMENT: f64 = 0.5;
/// Programs of this machine that the agent and the benchmark call; those of the modes with rules are in
/// [`vm::classic`].
const TOOLS: &[&str] = &["ip", "bpftool"];
const MODULES: &[&str] = &["veth", "bridge", "vxlan", "sch_ingress", "cls_bpf", "act_bpf"];
const BENCH: &str = "/bin/fairlead-bench";
const MEMORY_MIB: u32 = 3_072;
const PATIENCE: Duration = Duration::from_secs(1_800);
const QUICK: &str = "1,100";
const FULL: &str = "1,10,100,1000,10000";

/// What may be chosen.
#[derive(Parser)]
#[command(name = "cargo xtask bench cost")]
pub(crate) struct CostArgs {
    /// Few services, asked by pods over IPv4 alone
    #[arg(long)]
    quick: bool,
    /// Only these modes, such as `loopback,ebpf`
    #[arg(long, value_name = "MODES")]
    mode: Option<String>,
    /// Only these numbers of services, such as `1,1000`
    #[arg(long, value_name = "NUMBERS")]
    services: Option<String>,
    /// Write the numbers into this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Boot one machine only, with nothing to compare its numbers with
    #[arg(long)]
    once: bool,
    /// Measure the binaries that the tests use; the numbers are those of the kernel all the same
    #[arg(long, hide = true)]
    dev: bool,
}

/// What a number is of: mode, path, services, family, operation.
type Key = (String, String, u64, String, String);

/// Boots, measures, compares, prints.
pub(crate) fn run(args: &CostArgs) -> Result<()> {
    setup::need_root("it installs packages and makes files as root would have them")?;
    setup::run(setup::RUN)?;
    bpf::build()?;
    build::guest()?;
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    build::binaries(profile)?;
    let release = RELEASES.iter().find(|row| row.version == KERNEL).expect("a row of the table");
    let kernel = Kernel::of(*release)?;
    let seeds = if args.once { &SEEDS[..1] } else { &SEEDS };
    println!("… count instructions on kernel {}, in {} machines at once", kernel.version, seeds.len());
    let started = Instant::now();
    let machines = machines(&kernel, &profile.fairlead_bench(), &steps(args), seeds)?;
    println!("{} measured in {:.0} s", style("✓").green(), started.elapsed().as_secs_f32());
    let first = reported(&machines)?;
    print_table(first);
    if let Some(file) = &args.json {
        let rows = Value::Array(first.iter().map(|(_, row)| row.clone()).collect());
        let text = serde_json::to_string_pretty(&rows)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("wrote {}", file.display());
    }
    machines.get(1).map_or(Ok(()), |second| agree(first, second))
}

/// The rows of which the table is: those of the first machine.
fn reported(machines: &[Rows]) -> Result<&Rows> {
    machines.first().filter(|rows| !rows.is_empty()).context("nothing was measured")
}

fn steps(args: &CostArgs) -> Vec<Step> {
    let sizes = if args.quick { QUICK } else { FULL };
    let sizes = args.services.clone().unwrap_or_else(|| sizes.to_owned());
    let mut command = vec![BENCH.to_owned(), "cost-guest".into(), "--services".into(), sizes];
    if args.quick {
        command.push("--brief".to_owned());
    }
    if let Some(mode) = &args.mode {
        command.extend(["--mode".to_owned(), mode.clone()]);
    }
    vec![Step { name: "cost".into(), command, env: vec![("RUST_BACKTRACE".into(), "0".into())] }]
}

/// The rows of a machine, in the order in which they were measured.
type Rows = Vec<(Key, Value)>;

/// What machines with these seeds measure, all at once.
fn machines(kernel: &Kernel, bench: &Path, steps: &[Step], seeds: &[u32]) -> Result<Vec<Rows>> {
    thread::scope(|scope| {
        let start = |seed: &u32| {
            let seed = *seed;
            scope.spawn(move || one(kernel, bench, steps, seed))
        };
        let machines: Vec<_> = seeds.iter().map(start).collect();
        machines.into_iter().map(|machine| machine.join().expect("it does not panic")).collect()
    })
}

fn one(kernel: &Kernel, bench: &Path, steps: &[Step], seed: u32) -> Result<Rows> {
    let mut files = Initramfs::default();
    TOOLS.iter().try_for_each(|tool| files.tool(tool))?;
    vm::classic::add_tools(&mut files)?;
    files.program(Path::new(BENCH), bench)?;
    let name = format!("cost-{seed}");
    let machine = Machine { name: &name, kernel, memory_mib: MEMORY_MIB, patience: PATIENCE, seed };
    let (mut rows, mut other) = (Vec::new(), Vec::new());
    let modules = [MODULES, vm::classic::MODULES].concat();
    machine.run(files, &modules, steps, |event| {
        match event {
            Event::Line(line) => {
                match serde_json::from_str(&line).ok().and_then(|row| Some((key(&row)?, row))) {
                    Some(row) => {
                        // Of the first machine, to see that it goes on.
                        if seed == SEEDS[0] {
                            println!(
                                "  {} {:.3}",
                                shown(&row.0),
                                row.1["value"].as_f64().unwrap_or(f64::NAN)
                            );
                        }
                        rows.push(row);
                    }
                    None => {
                        if seed == SEEDS[0] {
                            println!("  {}", style(&line).dim());
                        }
                        other.push(line);
                    }
                }
            }
            Event::End { step, status, .. } if status != "ok" => {
                bail!("{step} ended with {status}: {}", other.join("\n  "));
            }
            Event::Begin { .. } | Event::End { .. } => {}
        }
        Ok(())
    })?;
    Ok(rows)
}

fn key(row: &Value) -> Option<Key> {
    let text = |field: &str| row[field].as_str().map(str::to_owned);
    Some((text("mode")?, text("path")?, row["services"].as_u64()?, text("family")?, text("op")?))
}

/// A line for each place, a column for each operation.
fn print_table(rows: &[(Key, Value)]) {
    let mut ops: Vec<&str> = Vec::new();
    let mut lines: Vec<(String, BTreeMap<&str, f64>)> = Vec::new();
    for ((mode, path, services, family, op), row) in rows {
        if !ops.contains(&op.as_str()) {
            ops.push(op);
        }
        let title = format!("{mode:<10}{path:<26}{services:>9}  {family}");
        let at = lines.iter().position(|line| line.0 == title).unwrap_or_else(|| {
            lines.push((title, BTreeMap::new()));
            lines.len() - 1
        });
        let (_, cells) = &mut lines[at];
        cells.insert(op, row["value"].as_f64().unwrap_or_default());
    }
    print!(
        "\nthousand instructions (bulk: for a KiB)\n{:<10}{:<26}{:>9}  {:<6}",
        "mode", "path", "services", "family"
    );
    let width = |op: &str| op.len().max(8) + 2;
    ops.iter().for_each(|op| print!("{op:>0$}", width(op)));
    println!();
    for (title, cells) in lines {
        print!("{title:<53}");
        for op in &ops {
            let cell = cells.get(op).map_or_else(String::new, |value| format!("{value:.2}"));
            print!("{cell:>0$}", width(op));
        }
        println!();
    }
    println!();
}

/// Fails when the two machines do not agree.
fn agree(first: &[(Key, Value)], second: &[(Key, Value)]) -> Result<()> {
    let apart = apart(first, second)?;
    let Some((percent, key)) = apart.first() else { bail!("nothing was measured") };
    println!("two machines with different random numbers differ by {percent:.2} % at most ({})", shown(key));
    let over: Vec<String> = apart
        .iter()
        .filter(|(percent, _)| *percent > AGREEMENT)
        .map(|(percent, key)| format!("{} by {percent:.2} %", shown(key)))
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    bail!("they differ by more than {AGREEMENT} %: {}", over.join(", "))
}

/// By how many percent each pair of numbers differs, the largest difference first.
fn apart<'a>(first: &'a [(Key, Value)], second: &[(Key, Value)]) -> Result<Vec<(f64, &'a Key)>> {
    if first.len() != second.len() {
        bail!("one machine measured {} numbers, the other {}", first.len(), second.len());
    }
    let value = |row: &Value| row["value"].as_f64().unwrap_or(f64::NAN);
    let percent = |one: f64, two: f64| (one - two).abs() / one.min(two) * 100.0;
    let pairs = first.iter().zip(second);
    let mut apart: Vec<_> =
        pairs.map(|((key, one), (_, two))| (percent(value(one), value(two)), key)).collect();
    apart.sort_by(|one, two| two.0.total_cmp(&one.0));
    Ok(apart)
}

fn shown((mode, path, services, family, op): &Key) -> String {
    format!("{op} {mode} {path} {services} {family}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(op: &str, value: f64) -> (Key, Value) {
        let row = serde_json::json!({
            "mode": "ebpf", "path": "socket", "services": 1, "family": "ipv4", "op": op, "value": value,
        });
        (key(&row).expect("every field"), row)
    }

    #[test]
    fn one_machine_that_measures_nothing_is_no_success() {
        assert!(reported(&[vec![row("connect", 100.0)]]).is_ok_and(|rows| rows.len() == 1));
        assert_eq!(reported(&[Vec::new()]).expect_err("no rows").to_string(), "nothing was measured");
    }

    #[test]
    fn machines_that_differ_are_named_with_what_differs_most() {
        let first = [row("connect", 100.0), row("roundtrip", 50.0)];
        assert!(agree(&first, &[row("connect", 100.4), row("roundtrip", 50.0)]).is_ok());
        let error = agree(&first, &[row("connect", 100.0), row("roundtrip", 51.0)]).expect_err("2 % apart");
        assert!(error.to_string().contains("roundtrip ebpf socket 1 ipv4 by 2.00 %"), "{error}");
        assert!(!error.to_string().contains("connect"), "{error}");
        assert!(agree(&first, &first[..1]).is_err(), "one measured less");
        assert!(agree(&[], &[]).is_err(), "nothing was measured");
    }
}
