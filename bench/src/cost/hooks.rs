//! Which hook costs what: the kernel's own count of each program's runs and their time, which is in instructions here.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use fairlead_testkit::netns::run_in;

use super::{Row, case::Case, traffic::Op};

/// Makes the kernel count; it costs a little, so it is on only here.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// In the path of a row, before the name of the program.
const PATH: &str = "hook";
/// What costs less, in thousand instructions, ran for something else.
const LEAST: f64 = 0.05;

/// How often everything is measured; the least counts.
const TIMES: usize = 2;

/// Measures what each program costs of a connection and of a round trip, and prints a row for each.
pub(crate) fn measure(client: &Path, to: SocketAddr, case: &Case) -> Result<()> {
    for op in [Op::Connect, Op::RoundTrip] {
        let mut least: BTreeMap<String, f64> = BTreeMap::new();
        switch("1")?;
        for _ in 0..TIMES {
            let before = times()?;
            let done = run_in(client, || op.measure(to))?.done;
            for (program, time) in times()? {
                let spent = time - before.get(&program).copied().unwrap_or_default();
                let each = spent as f64 / f64::from(done) / 1e3;
                least.entry(program).and_modify(|least| *least = least.min(each)).or_insert(each);
            }
        }
        switch("0")?;
        for (program, each) in least.into_iter().filter(|(_, each)| *each >= LEAST) {
            let path = format!("{} {PATH} {program}", case.path);
            Row::new(case.mode, path.trim_start(), 1, to, op.name(), each).print()?;
        }
    }
    Ok(())
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
