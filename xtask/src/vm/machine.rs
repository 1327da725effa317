//! Booting a machine and reading what it reports.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Initramfs, Kernel};
use crate::{build, paths};

/// Lines of the kernel's log that are shown when a machine fails.
const TAIL_LINES: usize = 30;
/// How often it is looked whether a machine takes too long.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const EMULATOR: &str = "qemu-system-x86_64";
/// All that it can emulate, but for strings that are copied byte by byte (ERMS, FSRM): of one such instruction it counts every byte,
/// so that moving memory would count for eight times as much as with words.
const CPU: &str = "max,-erms,-fsrm";

/// A program to run in the machine.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

/// What a machine reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A step begins.
    Begin { step: String },
    /// A step printed this.
    Line(String),
    /// A step ended: `ok` or how it failed, and how long it took by the machine's clock.
    End { step: String, status: String, took: Duration },
}

/// A machine that has not been started.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// Names its files.
    pub(crate) name: &'a str,
    pub(crate) kernel: &'a Kernel,
    pub(crate) memory_mib: u32,
    /// How much CPU time it may take: a busy host makes it slow, and only a fault makes it work more.
    pub(crate) patience: Duration,
    /// Of its random numbers.
    pub(crate) seed: u32,
}

impl Machine<'_> {
    /// Boots with these modules, runs the steps, hands every event to `on` as it comes.
    pub(crate) fn run(
        &self,
        mut files: Initramfs,
        modules: &[&str],
        steps: &[Step],
        mut on: impl FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let folder = paths::target().join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (archive, log) =
            (folder.join(format!("{}.cpio", self.name)), folder.join(format!("{}.log", self.name)));
        files.file(Path::new("/init"), &build::guest_binary())?;
        files.file(Path::new("/bin/busybox"), Path::new("/bin/busybox"))?;
        let modules = self.add_modules(&mut files, modules)?;
        files.bytes(Path::new("/plan.json"), plan(&modules, steps).as_bytes());
        fs::write(&archive, files.finish()).with_context(|| format!("cannot write {}", archive.display()))?;
        let outcome = self.boot(&archive, &log, &mut on);
        let _removed = fs::remove_file(&archive);
        outcome.with_context(|| format!("machine {}; the kernel's log is in {}", self.name, log.display()))
    }

    fn add_modules(&self, files: &mut Initramfs, names: &[&str]) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for module in self.kernel.modules(names)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            let path = format!("/modules/{name}");
            files.file(Path::new(&path), &module)?;
            paths.push(path);
        }
        Ok(paths)
    }

    fn boot(&self, archive: &Path, log: &Path, on: &mut impl FnMut(Event) -> Result<()>) -> Result<()> {
        let errors = log.with_extension("qemu.log");
        let mut child = self
            .command(archive, log, &errors)?
            .spawn()
            .with_context(|| format!("cannot start {EMULATOR}: run `cargo xtask setup`"))?;
        let lines = read_lines(&mut child);
        let pid = child.id();
        let outcome = follow(&lines, || cpu_time(pid) > self.patience, on);
        // Whatever happened, it is to be gone: after `@done` it switches itself off.
        let clean = matches!(outcome, Ok(()));
        if !clean {
            let _gone = child.kill();
        }
        child.wait().context("cannot wait for the emulator")?;
        if !clean {
            show_tail(log);
            show_tail(&errors);
        }
        outcome
    }

    fn command(&self, archive: &Path, log: &Path, errors: &Path) -> Result<Command> {
        // Whatever ends this process ends the machine.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", EMULATOR]);
        let (memory, seed) = (self.memory_mib.to_string(), self.seed.to_string());
        command.args([
            "-accel",
            "tcg",
            "-icount",
            "shift=0,sleep=off",
            "-cpu",
            CPU,
            "-smp",
            "1",
            "-m",
            &memory,
        ]);
        command.args([
            "-seed",
            &seed,
            "-rtc",
            "clock=vm",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
        ]);
        command.arg(format!("file:{}", log.display())).args(["-serial", "stdio"]);
        command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(archive).args([
            "-append",
            // Mitigations are for secrets, of which there are none here, and cost instructions; so does measuring how long
            // processes wait, at every switch between two and for every level of cgroups.
            "console=ttyS0 quiet panic=-1 mitigations=off psi=0 random.trust_cpu=on rdinit=/init",
        ]);
        let errors = File::create(errors).with_context(|| format!("cannot write {}", errors.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        Ok(command)
    }
}

/// CPU time of a process and its threads (`proc_pid_stat(5)`); none when it is gone.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // `USER_HZ` is 100 on every architecture that qemu runs on.
    Duration::from_millis(ticks * 10)
}

/// The plan as the guest reads it.
fn plan(modules: &[String], steps: &[Step]) -> String {
    let steps: Vec<_> = steps
        .iter()
        .map(|step| json!({ "name": step.name, "command": step.command, "env": step.env }))
        .collect();
    json!({ "modules": modules, "steps": steps }).to_string()
}

fn read_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let output = child.stdout.take().expect("it is piped");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Reads until the machine is done.
fn follow(
    lines: &mpsc::Receiver<String>,
    expired: impl Fn() -> bool,
    on: &mut impl FnMut(Event) -> Result<()>,
) -> Result<()> {
    loop {
        let line = match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) if expired() => bail!("it works and works and does not end"),
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended before its plan did"),
        };
        match line.strip_prefix('@') {
            Some("done") => return Ok(()),
            Some(control) => match control.split_once(' ') {
                Some(("failed", why)) => bail!("{why}"),
                Some((kind, rest)) => on(event(kind, rest).with_context(|| format!("it reports {line}"))?)?,
                None => bail!("it reports {line}"),
            },
            None => on(Event::Line(line))?,
        }
    }
}

fn event(kind: &str, rest: &str) -> Option<Event> {
    let mut words = rest.split(' ');
    let step = words.next()?.to_owned();
    match kind {
        "begin" => Some(Event::Begin { step }),
        "end" => {
            let status = words.next()?.to_owned();
            Some(Event::End { step, status, took: Duration::from_millis(words.next()?.parse().ok()?) })
        }
        _ => None,
    }
}

fn show_tail(file: &Path) {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        eprintln!("  {}", console::strip_ansi_codes(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> (Result<()>, Vec<Event>) {
        let (sender, receiver) = mpsc::channel();
        lines.iter().for_each(|line| sender.send((*line).to_owned()).expect("it is received below"));
        drop(sender);
        let mut events = Vec::new();
        let outcome = follow(&receiver, || false, &mut |event| {
            events.push(event);
            Ok(())
        });
        (outcome, events)
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let (outcome, events) = told(&["@begin a", "hello", "@end a ok 1500", "@done"]);
        assert!(outcome.is_ok());
        let end = Event::End { step: "a".into(), status: "ok".into(), took: Duration::from_millis(1500) };
        assert_eq!(events, [Event::Begin { step: "a".into() }, Event::Line("hello".into()), end]);
    }

    #[test]
    fn this_process_has_taken_less_cpu_time_than_a_day() {
        let taken = cpu_time(std::process::id());
        assert!(taken < Duration::from_secs(86_400), "{taken:?}");
        assert_eq!(cpu_time(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn a_machine_that_dies_or_fails_is_an_error() {
        for lines in [&["@begin a"][..], &["@failed no /plan.json"], &["@end a ok"], &["@strange"]] {
            assert!(told(lines).0.is_err(), "{lines:?}");
        }
    }
}
