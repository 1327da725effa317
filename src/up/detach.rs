//! `up --detach`: the supervisor runs in the background; the command that was typed relays what it says until the
//! nodes are Ready.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{
    UpArgs,
    ledger::{Phase, Record},
};
use crate::{output, paths::ClusterPaths};

/// Starts the supervisor and waits until it is Ready or has failed.
pub(crate) fn run(args: &UpArgs) -> anyhow::Result<()> {
    let paths = args.cluster.paths();
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's file")?);
    command
        .args(std::env::args_os().skip(1))
        .arg("--supervisor")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut supervisor = command.spawn().context("cannot start the supervisor")?;
    // The command holds our copies of the pipe's end.
    drop(command);
    let mut failed = None;
    for line in BufReader::new(reader).lines() {
        let line = line.context("cannot read what the supervisor says")?;
        match (&mut failed, line.strip_prefix("error: ")) {
            (None, None) => output::line(&line)?,
            (None, Some(sentence)) => failed = Some(sentence.to_owned()),
            (Some(text), _) => *text = format!("{text}\n{line}"),
        }
    }
    if let Some(sentence) = failed {
        supervisor.wait()?;
        bail!(sentence);
    }
    match Record::read(&paths.ledger())? {
        Some(record) if record.phase == Phase::Ready => Ok(()),
        _ => {
            let status = supervisor.wait()?;
            if status.success() {
                bail!("the cluster was stopped before its nodes were Ready");
            }
            bail!("the supervisor ended ({status}); look at {}", paths.log("up").display())
        }
    }
}

/// In the supervisor: tells [`run`] that it need not wait longer. From here on no terminal ends this process, and what it
/// says is logged; until here Ctrl-C reaches it.
pub(crate) fn leave_terminal(paths: &ClusterPaths) -> anyhow::Result<()> {
    let path = paths.log("up");
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    nix::unistd::setsid().context("cannot start a session")?;
    std::env::set_current_dir("/").context("cannot change to /")?;
    nix::unistd::dup2_stdout(&log)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}
