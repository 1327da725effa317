//! Processes of a measurement: the agents, and servers that are to be in a node's cgroup while their client is not.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_kernel::{NodeFootprint, remove_node};
use fairlead_testkit::{InCgroup, netns::run_in};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;

use super::{
    agent::{NODES_DIRECTORIES, Ready},
    case::Case,
    machines::Machines,
    place::Spot,
    traffic,
};
use crate::stop;

/// How often it is looked whether to go on waiting, in milliseconds.
const STOP_LOOK: u16 = 100;

/// A process of this program, which says a line at a time; killed when it is dropped, also when it is stopped.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it and reads the line of JSON with which it says that it is ready.
    fn start<T: DeserializeOwned>(arguments: &[String]) -> Result<(Self, T)> {
        let mut child = Command::new(std::env::current_exe().context("cannot find this program's file")?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}`", arguments.join(" ")))?;
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut process = Self { child, input, output };
        let ready = process.answer().with_context(|| format!("`{}`", arguments.join(" ")))?;
        Ok((process, ready))
    }

    /// Says a line and reads the answer.
    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        writeln!(self.input, "{line}").context("cannot write to it")?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.until_it_says()?;
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read what it says")?;
        if line.is_empty() {
            let status = self.child.wait().context("cannot wait for it")?;
            bail!("it ended before it was ready ({status})");
        }
        serde_json::from_str(&line).with_context(|| format!("it says {line}"))
    }

    /// Waits until there is something to read, or its end.
    fn until_it_says(&self) -> Result<()> {
        let mut said = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
        loop {
            stop::check()?;
            match poll(&mut said, STOP_LOOK) {
                Ok(0) | Err(Errno::EINTR) => {}
                told => return told.map(drop).context("cannot wait for what it says"),
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a strange process id")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The agents' process. All that they made is removed when it is dropped.
pub(crate) struct Running {
    // In the order in which they must go.
    process: Process,
    pub(crate) ready: Ready,
    _made: Made,
}

/// What the agents make below a directory and under its name, from before they are started until they have ended.
struct Made {
    directory: PathBuf,
}

impl Running {
    /// Starts the agent of node `a`, and that of `b` if clients `outside` are to reach it.
    pub(crate) fn start(case: &Case, services: u32, outside: bool, machines: &Machines) -> Result<Self> {
        let name = format!("cost-{}-{}-{}-{services}-{outside}", process::id(), case.mode, case.path);
        let made = Made { directory: Path::new("/run").join(name) };
        fs::create_dir_all(&made.directory)?;
        let mut arguments = vec!["cost-agent".to_owned()];
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("--mode", case.mode.to_owned());
        add("--services", services.to_string());
        add("--directory", made.directory.display().to_string());
        add("--netns", machines.a.netns.path().display().to_string());
        machines.a.addresses.iter().for_each(|address| add("--address", address.to_string()));
        machines.b.addresses.iter().for_each(|address| add("--other", address.to_string()));
        if outside {
            add("--other-netns", machines.b.netns.path().display().to_string());
        }
        arguments.extend(case.flags.iter().map(|flag| (*flag).to_owned()));
        let (process, ready) = Process::start(&arguments)?;
        Ok(Self { process, ready, _made: made })
    }

    /// Stops it, so that only the kernel is measured.
    pub(crate) fn stop(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)?;
        settle()
    }

    /// Lets it go on until there are so many services, which are more than before, and stops it again.
    pub(crate) fn grow(&mut self, services: u32) -> Result<()> {
        self.process.signal(Signal::SIGCONT)?;
        let () = self.process.ask(&services.to_string())?;
        self.stop()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for name in NODES_DIRECTORIES {
            for failure in remove_node(&footprint(name, &self.directory)) {
                eprintln!("{failure}");
            }
        }
        let _left = fs::remove_dir_all(&self.directory);
    }
}

/// How long a look is whether the kernel rests; the machine waits at no cost.
const LOOK: Duration = Duration::from_secs(1);
/// How many ticks of the processor's time (`USER_HZ`, a hundred a second) it may work meanwhile.
const AT_REST: u64 = 2;
/// How often it is looked.
const LOOKS_MAX: u32 = 600;

/// Waits until the kernel has done what it had put off, such as freeing the rules of a former case: it would be counted along.
fn settle() -> Result<()> {
    for _ in 0..LOOKS_MAX {
        let before = busy_ticks()?;
        thread::sleep(LOOK);
        if busy_ticks()? - before <= AT_REST {
            return Ok(());
        }
    }
    bail!("the kernel still works for something after {LOOKS_MAX} s")
}

/// How long the processor has not been idle since the machine started (`proc_stat(5)`).
fn busy_ticks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, hard, soft, ..] = ticks[..] else {
        bail!("/proc/stat begins with {line:?}");
    };
    Ok(user + nice + system + hard + soft)
}

/// Where a node's things are; under the name of the directory, which nobody else has.
pub(crate) fn footprint(name: &str, directory: &Path) -> NodeFootprint {
    let id = format!("{}-{name}", directory.file_name().unwrap_or_default().display());
    NodeFootprint {
        bpffs_dir: Path::new("/sys/fs/bpf").join(&id),
        cgroup_dir: id.into(),
        netns_dir: directory.join(name).join("netns"),
        netns_prefix: format!("{name}-"),
    }
}

/// A server in a process of its own.
pub(crate) struct ServerProcess {
    _process: Process,
}

impl ServerProcess {
    /// Starts it at a spot and in a cgroup.
    pub(crate) fn start(spot: &Spot, cgroup: &Path) -> Result<Self> {
        let mut arguments = vec!["cost-serve".to_owned(), "--netns".into(), spot.netns.display().to_string()];
        arguments.extend(spot.addresses.iter().flat_map(|address| ["--address".into(), address.to_string()]));
        // It inherits the cgroup of whoever starts it.
        let inside = InCgroup::enter(&cgroup.join("pods"));
        let (process, ()) = Process::start(&arguments)?;
        drop(inside);
        Ok(Self { _process: process })
    }
}

/// What such a process is told.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The network namespace to be in
    #[arg(long)]
    netns: PathBuf,
    /// Addresses to serve at
    #[arg(long)]
    address: Vec<IpAddr>,
}

/// Serves until it is killed; prints a line of JSON when it is ready.
pub fn serve(args: &ServeArgs) -> Result<()> {
    run_in(&args.netns, || traffic::serve(&args.address))?;
    writeln!(std::io::stdout(), "null")?;
    loop {
        thread::park();
    }
}
