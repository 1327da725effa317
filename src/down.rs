//! `fairlead down`: stops a development cluster and removes everything it made, also after a crash of `up`.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::{
    cli::ClusterArgs,
    output::{self, Format},
    paths::{self, ClusterPaths},
    system::processes,
    up::{ledger::Record, preflight},
};

mod removed;
pub(crate) mod sweep;

pub(crate) use removed::Removed;

/// How long a running `up` may take to clean up after itself.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  fairlead down                  Stop the cluster; stored objects and images are kept for the next `up`
  fairlead down --purge          Stop it and remove its stored state as well
  fairlead down --name blue      Stop the cluster that was started with `up --name blue`

Succeeds as well when there is nothing to stop.";

/// Arguments of `fairlead down`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Also remove what is stored: API objects, the CA, images, volumes
    #[arg(long)]
    purge: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Outcome<'a> {
    cluster: &'a str,
    removed: Removed,
    purged: bool,
}

/// Stops and removes.
pub(crate) fn run(args: &DownArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    preflight::require_root("down")?;
    let paths = args.cluster.paths();
    let record = Record::read(&paths.ledger())?;
    let removed = sweep::census(&paths, record.as_ref());
    if let Some(record) = &record {
        stop_supervisor(record);
    }
    // It has tidied up after itself if it could; what it named is looked for nevertheless.
    sweep::sweep(&paths, record.as_ref())?;
    let state = record.as_ref().map_or(&paths.state, |record| &record.state_dir);
    let purged = args.purge && state.exists();
    if purged {
        purge(state, &paths)?;
    }
    output::print(args.output, &Outcome { cluster: &paths.name, removed, purged }, |outcome| {
        let what = match (&record, outcome.removed.to_string()) {
            (None, nothing) if nothing.is_empty() => "was not running".to_owned(),
            (_, nothing) if nothing.is_empty() => "is stopped".to_owned(),
            (_, removed) => format!("is stopped; removed {removed}"),
        };
        let state = match (purged, state.exists()) {
            (true, _) => format!("\nits stored state in {} is gone as well", state.display()),
            (false, true) => {
                format!("\nits stored state is kept in {} (--purge removes it)", state.display())
            }
            (false, false) => String::new(),
        };
        format!("cluster {} {what} ({}){state}", paths.name, output::duration(began.elapsed()))
    })
}

/// Removes the stored state; refuses a directory that no cluster has used.
fn purge(state: &Path, paths: &ClusterPaths) -> anyhow::Result<()> {
    if !paths::pki_of(state).exists() && !paths.lock().exists() {
        bail!("{} holds no cluster's state and is left alone; check --state-dir", state.display());
    }
    fs::remove_dir_all(state).with_context(|| format!("cannot remove {}", state.display()))
}

/// Lets a running `up` end its cluster in order; one that does not is killed.
fn stop_supervisor(record: &Record) {
    let mut supervisor = vec![record.supervisor];
    record.supervisor.signal(Signal::SIGTERM);
    processes::wait_until_gone(&mut supervisor, SUPERVISOR_PATIENCE);
    processes::end(supervisor, Duration::ZERO);
}
