//! Which hook costs what: the kernel's own count of each program's runs and their time, which is in instructions here.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use fairlead_testkit::netns::run_in;

use super::{Row, case::Case, count::mean_of_eighths, traffic::Op};

/// Makes the kernel count; it costs a little, so it is on only here.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// In the path of a row, before the name of the program.
const PATH: &str = "hook";
/// What costs less, in thousand instructions, ran for something else.
const LEAST: f64 = 0.05;

/// How often an operation is done before the first look.
const WARM_UPS: u32 = 20;
/// How often it is done between two looks: so few, that there are counts without an interrupt in a program, and without one for which
/// the kernel's allocator had to look for memory.
const TIMES: u32 = 20;
/// How many such counts there are.
const COUNTS: usize = 24;

/// Measures what each program costs of a connection and of a round trip while there are so many services, and prints a row for
/// each.
pub(crate) fn measure(client: &Path, to: SocketAddr, case: &Case, services: u32) -> Result<()> {
    for op in [Op::Connect, Op::RoundTrip] {
        switch("1")?;
        let programs = run_in(client, || count(op, to))?;
        switch("0")?;
        for (program, counts) in programs {
            let each = mean_of_eighths(counts, 0..2);
            if each < LEAST {
                continue;
            }
            let path = format!("{} {PATH} {program}", case.path);
            Row::new(case.mode, path.trim_start(), services, to, op.name(), each).print()?;
        }
    }
    Ok(())
}

/// Thousand instructions of each program for an operation, [`COUNTS`] times.
fn count(op: Op, to: SocketAddr) -> Result<BTreeMap<String, Vec<f64>>> {
    let mut session = op.open(to)?;
    (0..WARM_UPS).try_for_each(|_| session.act())?;
    let mut counts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut before = times()?;
    for _ in 0..COUNTS {
        (0..TIMES).try_for_each(|_| session.act())?;
        let now = times()?;
        for (program, time) in &now {
            let spent = time - before.get(program).copied().unwrap_or_default();
            counts.entry(program.clone()).or_default().push(spent as f64 / f64::from(TIMES) / 1e3);
        }
        before = now;
    }
    Ok(counts)
}

fn switch(state: &str) -> Result<()> {
    fs::write(SWITCH, state).with_context(|| format!("cannot write {SWITCH}"))
}

/// Instructions of each program so far, by name.
fn times() -> Result<BTreeMap<String, u64>> {
    let output =
        Command::new("bpftool").args(["--json", "prog", "show"]).output().context("cannot start bpftool")?;
    if !output.status.success() {
        bail!("bpftool: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let programs: Vec<serde_json::Value> =
        serde_json::from_slice(&output.stdout).context("bpftool prints no JSON")?;
    let mut times = BTreeMap::new();
    for program in &programs {
        let (Some(name), Some(time)) = (program["name"].as_str(), program["run_time_ns"].as_u64()) else {
            continue;
        };
        *times.entry(name.to_owned()).or_default() += time;
    }
    Ok(times)
}
