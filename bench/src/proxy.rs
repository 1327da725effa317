//! `fairlead proxy` in the namespace of a node, fed by us.

use std::{
    fmt::Display,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fairlead_agent::Applied;
use fairlead_testkit::{Node, netns::run_in, topology::UPLINK};
use serde_json::Value;

use crate::{admin::Admin, stop};

/// How long an update may take before we give up: many rules take minutes.
const PATIENCE: Duration = Duration::from_secs(900);

/// Time in which a process that is about to give memory back does it.
const REST: Duration = Duration::from_millis(500);

/// The process. It ends and leaves nothing when this is dropped, which must be before its node is.
pub struct Proxy {
    binary: PathBuf,
    /// Whose it is and where its things are: what it is started with, and what is cleaned up.
    place: Vec<String>,
    /// Everything else that it is started with.
    arguments: Vec<String>,
    netns: PathBuf,
    child: Child,
    /// With its sockets and its log; the feed's socket is beside it.
    directory: PathBuf,
    bpffs: PathBuf,
    cgroup: PathBuf,
}

impl Proxy {
    /// Starts it for the node of this name, with more arguments; it reads the feed at `feed.sock` in `directory`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(binary: &Path, name: &str, node: &Node, more: &[&str], directory: &Path) -> Result<Self> {
        let id = format!("flbench-proxy-{}-{name}", std::process::id());
        let bpffs = Path::new("/sys/fs/bpf").join(&id);
        let own = directory.join(name);
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let option = |name: &str, value: &dyn Display| [name.to_owned(), value.to_string()];
        let place = [
            option("proxy", &format!("--node={name}")),
            option("--bpffs", &bpffs.display()),
            option("--state-dir", &own.join("state").display()),
        ];
        let options = [
            option("--uplink", &UPLINK),
            option("--cgroup", &id),
            option("--health-listen", &"127.0.0.1:10256"),
            option("--run-dir", &own.display()),
            option("--feed-socket", &directory.join("feed.sock").display()),
        ];
        let mut arguments = options.concat();
        arguments.extend(node.addresses.iter().flat_map(|address| option("--node-ip", address)));
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let (place, netns) = (place.concat(), node.netns.path());
        let child = spawn(binary, &[&place[..], &arguments].concat(), &netns, &own)?;
        let cgroup = fairlead_testkit::cgroup::mount_point().join(&id);
        Ok(Self { binary: binary.to_owned(), place, arguments, netns, child, directory: own, bpffs, cgroup })
    }

    /// Ends it without giving it a chance to do anything (SIGKILL), and starts it anew.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.child.kill().context("it has ended by itself")?;
        self.child.wait()?;
        let arguments = [&self.place[..], &self.arguments].concat();
        self.child = spawn(&self.binary, &arguments, &self.netns, &self.directory)?;
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its cgroup, absolute: sockets of the processes below it are translated.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Waits until the update with this number is applied.
    ///
    /// # Errors
    /// It ended, takes too long, or the program was told to [`stop`].
    pub fn until_applied(&self, sequence: u64) -> Result<Applied> {
        let deadline = Instant::now() + PATIENCE;
        self.admin().until_applied(sequence, || {
            stop::check()?;
            if Instant::now() > deadline || !Path::new(&format!("/proc/{}/exe", self.pid())).exists() {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                bail!("the agent did not apply update {sequence}; it says:\n{log}");
            }
            Ok(())
        })
    }

    /// Whom to ask about it.
    pub fn admin(&self) -> Admin {
        Admin::new(self.directory.join("admin.sock"))
    }

    /// What it holds when it has come to rest.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_mib(&self) -> Result<f64> {
        let mut last = self.resident_now_mib()?;
        loop {
            thread::sleep(REST);
            let now = self.resident_now_mib()?;
            if now >= last {
                return Ok(now);
            }
            last = now;
        }
    }

    fn resident_now_mib(&self) -> Result<f64> {
        let file = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{file} has no VmRSS"))? / 1024.0)
    }

    /// CPU time so far, of the programs that it has run too (`proc_pid_stat(5)`), in steps of 10 ms.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_ms(&self) -> Result<f64> {
        let file = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        // The name, in parentheses, may hold anything; the times are the 12th to 15th field after it, in hundredths.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u32 = fields.skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) * 10.0)
    }

    /// What all maps of the node take; nothing in a mode without maps.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn map_memory_mib(&self) -> Result<f64> {
        if !self.bpffs.exists() {
            return Ok(0.0);
        }
        let mut command = Command::new(&self.binary);
        let output = command.args(["bpf", "maps", "-o", "json", "--bpffs"]).arg(&self.bpffs).output()?;
        ensure!(output.status.success(), "`fairlead bpf maps`: {}", String::from_utf8_lossy(&output.stderr));
        let maps: Value = serde_json::from_slice(&output.stdout)?;
        let maps = maps["maps"].as_array().context("`fairlead bpf maps` has no list of maps")?;
        let bytes: u64 = maps.iter().filter_map(|map| map["memory_bytes"].as_u64()).sum();
        Ok(bytes as f64 / f64::from(1 << 20))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Without its place this would be about the machine, which may have a proxy as well.
        let mut command = Command::new(&self.binary);
        command.args(&self.place).arg("--cleanup").process_group(0);
        match run_in(&self.netns, || command.output()) {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => eprintln!("cannot start `fairlead proxy --cleanup`: {error}"),
        }
        // With those of clients in it.
        for below in fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(below.path());
        }
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn spawn(binary: &Path, arguments: &[String], netns: &Path, directory: &Path) -> Result<Child> {
    let log = fs::File::options().append(true).create(true).open(directory.join("log"));
    let log = log.with_context(|| format!("cannot make the log in {}", directory.display()))?;
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    run_in(netns, || command.spawn()).context("cannot start `fairlead proxy`")
}
