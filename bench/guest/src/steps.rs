//! Running the plan's programs.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context;

use crate::{plan::Step, report::Report};

/// Runs one program to its end and reports every line that it prints.
pub(crate) fn run(step: &Step, report: &mut Report) -> anyhow::Result<()> {
    let (program, arguments) = step.command.split_first().context("a step without a command")?;
    let (output, input) = std::io::pipe().context("cannot make a pipe")?;
    report.control(&format!("begin {}", step.name));
    let started = Instant::now();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(step.env.iter().map(|(name, value)| (name, value)))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(input.try_clone().context("cannot copy a pipe")?)
        .stderr(input);
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    // It holds the writing ends too; reading ends when the program's copies are closed.
    drop(command);
    for line in BufReader::new(output).split(b'\n') {
        report.line(&line.context("cannot read what a step prints")?);
    }
    let status = child.wait().context("cannot wait for a step")?;
    let status = if status.success() { "ok".to_owned() } else { format!("{status}").replace(' ', "-") };
    report.control(&format!("end {} {status} {}", step.name, started.elapsed().as_millis()));
    Ok(())
}
