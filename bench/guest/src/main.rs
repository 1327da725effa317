//! The first process of a virtual machine that `cargo xtask test vm` or `cargo xtask bench cost` boots.
//!
//! It mounts what Linux programs expect, loads the modules of the plan in their order, runs the plan's steps one after
//! the other and writes what happens to the second serial line: what a step prints as it is, and between them
//! `@begin NAME`, `@end NAME STATUS MILLISECONDS`, `@failed WHY` and `@done`. The first serial line is the kernel's log.
//! Linked statically, so that it runs before anything else is there.

mod boot;
mod plan;
mod report;
mod steps;

use std::process::Command;

use report::Report;

/// Switches the machine off, and does much else in a system without shell.
const BUSYBOX: &str = "/bin/busybox";

fn main() {
    if let Err(error) = run() {
        // The kernel's log gets it too: the report may be what failed.
        eprintln!("fairlead-guest: {error:#}");
        if let Ok(mut report) = Report::open() {
            report.control(&format!("failed {error:#}"));
        }
    }
    let status = Command::new(BUSYBOX).args(["poweroff", "-f"]).status();
    eprintln!("fairlead-guest: the machine does not switch off: {status:?}");
}

fn run() -> anyhow::Result<()> {
    boot::mount_all()?;
    let plan = plan::read()?;
    boot::load_modules(&plan.modules)?;
    boot::forbid_more_modules()?;
    boot::prepare_network()?;
    let mut report = Report::open()?;
    for step in &plan.steps {
        steps::run(step, &mut report)?;
    }
    report.control("done");
    Ok(())
}
