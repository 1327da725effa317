//! Processes that cannot be mistaken for others: a pid together with its start time.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// How often a process that was told to end is looked at.
const POLL: Duration = Duration::from_millis(10);

/// One life of a process. The kernel gives its number to another process later; the start time tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Process id.
    pub(crate) pid: i32,
    /// Clock ticks from boot to the start of the process: field 22 of `/proc/<pid>/stat`, see proc(5).
    pub(crate) start_ticks: u64,
}

impl ProcessId {
    /// The process that has this id now; none when there is none or only its exit status is left.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|start_ticks| Self { pid, start_ticks })
    }

    /// This process.
    pub(crate) fn own() -> Option<Self> {
        i32::try_from(std::process::id()).ok().and_then(Self::of)
    }

    /// True while this very process runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to this process, never to a later one with its number.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may have ended in between, which is what was wanted.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// A process and its command line.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Which one.
    pub(crate) id: ProcessId,
    /// Its arguments, the first being the program.
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// File name of the program it was started as.
    pub(crate) fn program(&self) -> &str {
        self.arguments.first().and_then(|p| p.rsplit('/').next()).unwrap_or_default()
    }

    /// True when an argument is this path or lies below it, alone or as `--flag=path`.
    pub(crate) fn names_path(&self, path: &Path) -> bool {
        self.arguments.iter().skip(1).any(|argument| {
            let value = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with('-') => value,
                _ => argument,
            };
            let value = value.strip_prefix("unix://").unwrap_or(value);
            Path::new(value).starts_with(path)
        })
    }
}

/// Every process with a command line, this one and its ancestors left out.
pub(crate) fn others() -> Vec<Process> {
    let spared = lineage();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !spared.contains(pid))
        .filter_map(|pid| {
            let id = ProcessId::of(pid)?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments =
                line.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            Some(Process { id, arguments })
        })
        .collect()
}

/// Asks processes to end, waits for `grace`, and ends those that did not. Returns how many there were.
pub(crate) fn end(mut processes: Vec<ProcessId>, grace: Duration) -> usize {
    processes.retain(|p| p.is_alive());
    let found = processes.len();
    for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(5))] {
        for process in &processes {
            process.signal(signal);
        }
        wait_until_gone(&mut processes, patience);
    }
    found
}

/// Waits until none of the processes is alive, or `patience` is over; keeps those that still are.
pub(crate) fn wait_until_gone(processes: &mut Vec<ProcessId>, patience: Duration) {
    let deadline = Instant::now() + patience;
    processes.retain(|p| p.is_alive());
    while !processes.is_empty() && Instant::now() < deadline {
        thread::sleep(POLL);
        processes.retain(|p| p.is_alive());
    }
}

/// This process and its ancestors: whoever cleans up must not end itself or the shell it was typed in.
fn lineage() -> Vec<i32> {
    let mut pids = Vec::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 0 && !pids.contains(pid)) {
        pids.push(pid);
        next = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| fields(&stat)?.get(1).and_then(|parent| parent.parse().ok()));
    }
    pids
}

/// Start time from a line of `/proc/<pid>/stat`; none for a zombie.
fn parse_stat(stat: &str) -> Option<u64> {
    let fields = fields(stat)?;
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

/// The fields from the third on. The second is the program's name, which may hold blanks and parentheses.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command, time::Duration};

    use nix::sys::signal::Signal;

    use super::{Process, ProcessId, end, parse_stat};

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let tail = "S 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4711 1 1 18446744073709551615";
        assert_eq!(parse_stat(&format!("7 (sh) {tail}")), Some(4711));
        assert_eq!(parse_stat(&format!("7 (a ) (b) {tail}")), Some(4711));
        assert_eq!(parse_stat(&format!("7 (sh) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_process_with_a_recycled_number_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let now = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        let earlier = ProcessId { start_ticks: now.start_ticks - 1, ..now };
        assert!(!earlier.is_alive());
        earlier.signal(Signal::SIGKILL);
        assert_eq!(end(vec![earlier], Duration::ZERO), 0);
        assert!(now.is_alive(), "another process was ended in its place");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn paths_are_recognised_whole() {
        let process = |arguments: &[&str]| Process {
            id: ProcessId { pid: 1, start_ticks: 1 },
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        };
        let run = Path::new("/run/fairlead");
        assert!(process(&["x", "--run-dir", "/run/fairlead"]).names_path(run));
        assert!(process(&["x", "--socket=/run/fairlead/c.sock"]).names_path(run));
        assert!(process(&["x", "unix:///run/fairlead/c.sock"]).names_path(run));
        assert!(!process(&["x", "--run-dir", "/run/fairlead-blue"]).names_path(run));
        assert!(!process(&["/run/fairlead/x", "y"]).names_path(run));
        assert_eq!(process(&["/usr/bin/containerd", "y"]).program(), "containerd");
    }
}
