//! Running the tests, tier by tier. A test target's name begins with its tier; what has no such name is a unit test.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use console::style;

use crate::{
    build::{self, Profile},
    paths,
    requirement::PYTHON_CLIENT,
    setup, vm,
};

/// What a test needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Tier {
    /// Nothing: no privileges, no network
    Unit,
    /// Root: packets through the loaded programs and through the same code on the host
    Packet,
    /// Root: network namespaces, real sockets, real containers
    Node,
    /// Root, qemu: the packet and node tests on other kernels
    Vm,
    /// Root, containerd, kubectl: a whole cluster
    E2e,
}

impl Tier {
    /// What runs when no tier is named. Other kernels are emulated, which takes many minutes: they are asked for by name.
    const USUAL: [Self; 4] = [Self::Unit, Self::Packet, Self::Node, Self::E2e];

    /// The tier of an integration-test target.
    fn of(target: &str) -> Self {
        match target.split('_').next() {
            Some("packet") => Self::Packet,
            Some("node") => Self::Node,
            Some("vm") => Self::Vm,
            Some("e2e") => Self::E2e,
            _ => Self::Unit,
        }
    }
}

/// Tests that passed, failed and were left out.
#[derive(Default)]
pub(crate) struct Count {
    passed: u32,
    failed: u32,
    ignored: u32,
}

/// Runs one tier, or the usual ones; ends with one line that counts every test.
pub(crate) fn run(tier: Option<Tier>) -> Result<()> {
    let tiers = tier.map_or(Tier::USUAL.to_vec(), |tier| vec![tier]);
    let privileged = tiers.iter().any(|tier| *tier != Tier::Unit);
    if privileged {
        setup::need_root(
            "its tests make network namespaces and load eBPF programs; `test unit` needs no root",
        )?;
        setup::run(setup::TEST)?;
        build::everything(Profile::Dev)?;
    } else {
        setup::run(setup::RUN)?;
    }
    let targets = integration_targets()?;
    let started = Instant::now();
    let mut count = Count::default();
    let mut broken = Vec::new();
    for tier in tiers {
        let names: Vec<&str> =
            targets.iter().map(String::as_str).filter(|name| Tier::of(name) == tier).collect();
        if tier == Tier::Unit {
            run_cargo(&["--lib", "--bins"], &names, &mut count, &mut broken)?;
            run_cargo(&["--doc"], &[], &mut count, &mut broken)?;
        } else if tier == Tier::Vm {
            if let Err(error) = vm::test::run(false, vm::test::Only::default()) {
                broken.push(format!("test vm: {error:#}"));
            }
        } else if !names.is_empty() {
            run_cargo(&[], &names, &mut count, &mut broken)?;
        }
    }
    println!("\nall tests run in {:.0} s", started.elapsed().as_secs_f32());
    for name in &broken {
        println!("{} {name}", style("✗").red());
    }
    println!("{}", count.summary());
    if count.failed > 0 || !broken.is_empty() {
        bail!("tests failed");
    }
    Ok(())
}

/// One `cargo test`, shown as it runs, counted. Tests of the privileged tiers share the machine: one at a time.
fn run_cargo(kind: &[&str], targets: &[&str], count: &mut Count, broken: &mut Vec<String>) -> Result<()> {
    let mut cargo = build::cargo();
    cargo.args(["test", "--locked", "--no-fail-fast"]).args(kind);
    for target in targets {
        cargo.args(["--test", target]);
    }
    if kind.is_empty() {
        cargo.args(["--", "--test-threads=1"]);
    }
    cargo.env("FAIRLEAD_BIN", Profile::Dev.fairlead()).env("FAIRLEAD_IMAGES", paths::images());
    cargo.env("FAIRLEAD_PYTHON", PYTHON_CLIENT.interpreter());
    let mut child =
        cargo.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().expect("piped above");
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read the output of cargo test")?;
        println!("{line}");
        count.add(&line);
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            broken.push(name.to_owned());
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() && broken.is_empty() {
        broken.push(format!("cargo test {} ({status})", kind.join(" ")));
    }
    Ok(())
}

impl Count {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// The last line of a run.
    pub(crate) fn summary(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.ignored)
    }

    /// Adds a summary line of the test runner, such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result:") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Names of the integration-test targets of the default members.
fn integration_targets() -> Result<Vec<String>> {
    let output = build::cargo()
        .args(["metadata", "--no-deps", "--format-version=1", "--locked"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let mut names: Vec<String> = tests.filter_map(|test| test["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_belongs_to_the_tier_its_name_begins_with() {
        let rows = [
            ("packet", Tier::Packet),
            ("node_services", Tier::Node),
            ("vm_programs", Tier::Vm),
            ("e2e", Tier::E2e),
            ("kubectl", Tier::Unit),
        ];
        for (name, tier) in rows {
            assert_eq!(Tier::of(name), tier, "{name}");
        }
    }

    #[test]
    fn summary_lines_are_added_up() {
        let mut count = Count::default();
        count.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        count.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        count.add("test x ... ok");
        assert_eq!((count.passed, count.failed, count.ignored), (5, 4, 1));
    }
}
