//! Child processes: started in their namespace, restarted when they end, stopped in order.
//!
//! Children are *not* ended by the kernel when `up` dies: a crash of the supervisor must not take the dataplane with
//! it. They are in the cluster's cgroup and in the ledger, where `down` (and the next `up`) finds them.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::fd::OwnedFd,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use command_fds::{CommandFdExt as _, FdMapping};
use nix::sys::signal::Signal;
use tokio::{process::Child, runtime::Handle, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::ledger::{Item, Ledger};
use crate::system::{cgroups, netns, processes::ProcessId};

/// First of the inherited sockets, see `sd_listen_fds(3)`.
const LISTEN_FDS_START: i32 = 3;
/// A child that ran for so long is healthy: its next restart is immediate again.
const HEALTHY: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How to run a child.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChildSpec {
    /// Its name on the terminal, in the ledger and of its log.
    pub(crate) role: String,
    /// Network namespace; the machine's own when none.
    pub(crate) netns: Option<PathBuf>,
    /// Program.
    pub(crate) program: OsString,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Sockets it inherits, with their names. They stay open here, so that a client of a child that is being restarted
    /// waits and is neither refused nor forgotten.
    pub(crate) sockets: Arc<Vec<(String, OwnedFd)>>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// How long it may take to end when it is told to.
    pub(crate) grace: Duration,
}

/// Something a person at the terminal should know.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The child's role.
    pub(crate) role: String,
    /// How it ended, in words.
    pub(crate) how: String,
    /// It ended by itself with a failure, which a restart may not cure.
    pub(crate) failed: bool,
    /// What it complained of.
    pub(crate) complaint: Option<String>,
    /// When it is started again.
    pub(crate) restart_in: Duration,
}

/// What all children of a cluster have in common.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    /// Where they are written down.
    pub(crate) ledger: Ledger,
    /// Their cgroup.
    pub(crate) cgroup: PathBuf,
    /// Who is told when one ends.
    pub(crate) ended: mpsc::Sender<Ended>,
}

impl Supervisor {
    /// Keeps a child running until `stop`.
    pub(crate) async fn keep(self, spec: ChildSpec, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let log_start = fs::metadata(&spec.log).map_or(0, |m| m.len());
            let mut child = self.start(&spec).await?;
            let status = tokio::select! {
                status = child.wait() => status.with_context(|| format!("cannot wait for {}", spec.role))?,
                () = stop.cancelled() => return end(&mut child, &spec).await,
            };
            let restart_in = backoff.next(began.elapsed());
            let ended = Ended {
                role: spec.role.clone(),
                how: describe(status),
                failed: status.code().is_some_and(|code| code != 0),
                complaint: complaint(&spec.log, log_start),
                restart_in,
            };
            // A full or closed queue only means that nobody reads the terminal.
            let _ = self.ended.try_send(ended);
            tokio::select! {
                () = tokio::time::sleep(restart_in) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn start(&self, spec: &ChildSpec) -> anyhow::Result<Child> {
        let (runtime, what) = (Handle::current(), format!("cannot start {}", spec.role));
        let (copy, cgroup) = (spec.clone(), self.cgroup.clone());
        let work = move || {
            let _runtime = runtime.enter();
            let child = tokio::process::Command::from(command(&copy)?).spawn()?;
            if let Some(pid) = child.id() {
                // A child that has ended already has no cgroup to be put in.
                let _ = cgroups::enter(&cgroup, pid);
            }
            Ok(child)
        };
        let child = match &spec.netns {
            Some(path) => netns::inside(path, work).await,
            None => work(),
        }
        .context(what)?;
        if let Some(id) = child.id().and_then(|pid| ProcessId::of(i32::try_from(pid).ok()?)) {
            self.ledger.add(Item::Process { role: spec.role.clone(), id })?;
        }
        Ok(child)
    }
}

/// The first restart is immediate, later ones wait longer and longer.
#[derive(Debug, Default)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn next(&mut self, uptime: Duration) -> Duration {
        if uptime >= HEALTHY {
            self.next = Duration::ZERO;
        }
        let now = self.next;
        self.next = (now * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
        now
    }
}

fn command(spec: &ChildSpec) -> anyhow::Result<Command> {
    let log = fs::OpenOptions::new().create(true).append(true).open(&spec.log)?;
    let mut command = Command::new(&spec.program);
    // Its own process group: Ctrl-C is for us, and we end the children in order.
    command.args(&spec.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    if !spec.sockets.is_empty() {
        let names: Vec<_> = spec.sockets.iter().map(|(name, _)| name.as_str()).collect();
        // LISTEN_PID is left out: the child's pid is not known before it runs.
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let mappings = (LISTEN_FDS_START..)
            .zip(spec.sockets.iter())
            .map(|(child_fd, (_, socket))| Ok(FdMapping { parent_fd: socket.try_clone()?, child_fd }))
            .collect::<std::io::Result<Vec<_>>>()?;
        command.fd_mappings(mappings)?;
    }
    Ok(command)
}

async fn end(child: &mut Child, spec: &ChildSpec) -> anyhow::Result<()> {
    if let Some(id) = child.id().and_then(|pid| ProcessId::of(i32::try_from(pid).ok()?)) {
        id.signal(Signal::SIGTERM);
    }
    if timeout(spec.grace, child.wait()).await.is_err() {
        tracing::warn!(role = spec.role, "did not end when told to, and is killed");
        child.kill().await.with_context(|| format!("cannot kill {}", spec.role))?;
    }
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().and_then(|s| Signal::try_from(s).ok())) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by {}", signal.as_str()),
        (None, None) => "ended".to_owned(),
    }
}

/// The last error that a child wrote since its log had the length `start`.
fn complaint(log: &Path, start: u64) -> Option<String> {
    let mut file = fs::File::open(log).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = Vec::new();
    file.take(1 << 20).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let first = lines.iter().rposition(|line| line.starts_with("error: "))?;
    let causes = lines[first + 1..].iter().take_while(|line| line.starts_with("  because: "));
    let sentence = lines[first].trim_start_matches("error: ");
    Some(causes.fold(sentence.to_owned(), |all, cause| {
        format!("{all}: {}", cause.trim_start_matches("  because: "))
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{Backoff, complaint};

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer_until_the_child_was_healthy() {
        let mut backoff = Backoff::default();
        let mut waits: Vec<_> = (0..8).map(|_| backoff.next(Duration::ZERO).as_millis()).collect();
        waits.push(backoff.next(Duration::from_secs(31)).as_millis());
        assert_eq!(waits, [0, 200, 400, 800, 1600, 3200, 6400, 10_000, 0]);
    }

    #[test]
    fn a_complaint_is_the_last_error_of_this_life_with_its_causes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("server.log");
        fs::write(&log, "error: old\nINFO x\nerror: cannot open the store\n  because: locked\n").unwrap();
        assert_eq!(complaint(&log, 0).as_deref(), Some("cannot open the store: locked"));
        assert_eq!(complaint(&log, 1_000), None);
    }
}
