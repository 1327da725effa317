//! `bench programming`: how fast a large cluster and a small change get into the kernel, and what they take there.
//!
//! `fairlead proxy` runs in a network namespace and reads a cluster that does not exist from a feed of ours. The times are
//! the agent's own: from an update that has arrived until it is applied.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fairlead_testkit::{TwoNodes, topology::UPLINK};
use serde::Serialize;
use serde_json::Value;

use self::{
    feed::ScriptedFeed,
    synthetic::{Family, Synthetic},
};
use crate::{cluster, screen::Step};

mod feed;
mod synthetic;

/// Small changes that are measured.
const CHANGES: u32 = 1_000;

/// How long a snapshot may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A way to program services: its name, and how `fairlead proxy` is told.
type Mode = (&'static str, &'static [&'static str]);

/// Every mode that is measured.
const MODES: &[Mode] = &[("ebpf", &["--proxy-mode", "ebpf"])];

/// Size of a cluster, and whether small changes of it are measured. The last one is larger than the maps.
const SIZES: &[(u32, u32, bool)] = &[(1_000, 10, true), (10_000, 10, true), (20_000, 50, false)];

/// One measured number.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// `programming`.
    pub bench: &'static str,
    /// How services are programmed.
    pub mode: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// How many there are.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
    /// `cold`, `change-p50`, `change-p99`, `map-memory`, `rss`, `refused`.
    pub op: &'static str,
    /// The number.
    pub value: f64,
    /// `ms`, `MiB` or `objects`.
    pub unit: &'static str,
}

/// Measures every mode, family and size, and prints a table.
pub fn run(json: Option<&Path>) -> Result<()> {
    let binary = cluster::binary()?;
    let mut rows = Vec::new();
    for mode in MODES {
        for family in [Family::Ipv4, Family::Ipv6] {
            for (services, endpoints, changes) in SIZES {
                let title =
                    format!("{}, {}: {services} services × {endpoints} endpoints", mode.0, family.name());
                let step = Step::begin(title);
                let run =
                    Run { binary: &binary, mode: *mode, family, services: *services, endpoints: *endpoints };
                rows.extend(run.measure(*changes, &step)?);
                step.done();
            }
        }
    }
    print(&rows);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn print(rows: &[Row]) {
    println!("| mode | family | services × endpoints | op | measured |\n|---|---|---|---|---|");
    for row in rows {
        let Row { mode, family, services, endpoints, op, value, unit, .. } = row;
        println!("| {mode} | {family} | {services} × {endpoints} | {op} | {value:.3} {unit} |");
    }
}

struct Run<'a> {
    binary: &'a Path,
    mode: Mode,
    family: Family,
    services: u32,
    endpoints: u32,
}

impl Run<'_> {
    fn measure(&self, changes: bool, step: &Step) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().context("cannot make a folder")?;
        let topology = TwoNodes::new();
        let mut cluster = Synthetic::new(self.family, self.services, self.endpoints, &topology.a.addresses);
        let feed = ScriptedFeed::start(&directory.path().join("feed.sock"), cluster.snapshot())?;
        let agent = Agent::start(self, &topology, directory.path())?;
        step.note("cold load");
        let status = agent.until_applied(1)?;
        let mut rows = vec![self.row("cold", ms(&status)?, "ms")];
        rows.push(self.row("rss", agent.resident_mib()?, "MiB"));
        rows.push(self.row("map-memory", agent.map_memory_mib()?, "MiB"));
        let refused = status["problems"].as_array().map_or(0, Vec::len);
        rows.push(self.row("refused", refused as f64, "objects"));
        if changes {
            step.note(format!("{CHANGES} changes"));
            let mut times = Vec::new();
            for change in 0..CHANGES {
                feed.send(cluster.change_one(change));
                times.push(ms(&agent.until_applied(u64::from(change) + 2)?)?);
            }
            times.sort_by(f64::total_cmp);
            rows.push(self.row("change-p50", quantile(&times, 0.5), "ms"));
            rows.push(self.row("change-p99", quantile(&times, 0.99), "ms"));
        }
        Ok(rows)
    }

    fn row(&self, op: &'static str, value: f64, unit: &'static str) -> Row {
        let (mode, family) = (self.mode.0, self.family.name());
        let (services, endpoints) = (self.services, self.endpoints);
        Row { bench: "programming", mode, family, services, endpoints, op, value, unit }
    }
}

/// From the arrival of the last update until it was applied.
fn ms(status: &Value) -> Result<f64> {
    Ok(status["last_sync_us"].as_u64().context("the agent's status has no last_sync_us")? as f64 / 1e3)
}

/// The value that this part of a sorted list does not exceed.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

/// `fairlead proxy` in the namespace of a node. Ends and leaves nothing when it is dropped.
struct Agent<'a> {
    binary: &'a Path,
    child: Child,
    /// With a directory of sockets and one of pins.
    directory: PathBuf,
    bpffs: PathBuf,
    cgroup: PathBuf,
}

impl<'a> Agent<'a> {
    fn start(run: &Run<'a>, topology: &TwoNodes, directory: &Path) -> Result<Self> {
        let id = format!("flbench-programming-{}", std::process::id());
        let bpffs = Path::new("/sys/fs/bpf").join(&id);
        let mut command = Command::new(run.binary);
        command.args([
            "proxy",
            "--node",
            synthetic::NODE,
            "--uplink",
            UPLINK,
            "--health-listen",
            "127.0.0.1:10256",
        ]);
        command.args(run.mode.1).arg("--cgroup").arg(&id).arg("--bpffs").arg(&bpffs);
        for address in &topology.a.addresses {
            command.arg("--node-ip").arg(address.to_string());
        }
        command.arg("--run-dir").arg(directory).arg("--state-dir").arg(directory.join("state"));
        command.arg("--feed-socket").arg(directory.join("feed.sock"));
        let log = fs::File::create(directory.join("log")).context("cannot make the log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = topology.a.netns.run(|| command.spawn()).context("cannot start `fairlead proxy`")?;
        let cgroup = fairlead_testkit::cgroup::mount_point().join(&id);
        Ok(Self { binary: run.binary, child, directory: directory.to_owned(), bpffs, cgroup })
    }

    /// The status once the update with this number is applied.
    fn until_applied(&self, sequence: u64) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(status) = self.status()
                && status["sequence"].as_u64() >= Some(sequence)
            {
                return Ok(status);
            }
            if Instant::now() > deadline || !Path::new(&format!("/proc/{}/exe", self.child.id())).exists() {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                bail!("the agent did not apply update {sequence}; it says:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn status(&self) -> Result<Value> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::os::unix::net::UnixStream::connect(self.directory.join("admin.sock"))?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the agent answered with no HTTP")?;
        Ok(serde_json::from_str(body)?)
    }

    fn resident_mib(&self) -> Result<f64> {
        let file = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{file} has no VmRSS"))? / 1024.0)
    }

    /// What all maps of the node take; nothing in a mode without maps.
    fn map_memory_mib(&self) -> Result<f64> {
        if !self.bpffs.exists() {
            return Ok(0.0);
        }
        let mut command = Command::new(self.binary);
        let output = command.args(["bpf", "maps", "-o", "json", "--bpffs"]).arg(&self.bpffs).output()?;
        ensure!(output.status.success(), "`fairlead bpf maps`: {}", String::from_utf8_lossy(&output.stderr));
        let maps: Value = serde_json::from_slice(&output.stdout)?;
        let maps = maps["maps"].as_array().context("`fairlead bpf maps` has no list of maps")?;
        let bytes: u64 = maps.iter().filter_map(|map| map["memory_bytes"].as_u64()).sum();
        Ok(bytes as f64 / f64::from(1 << 20))
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut command = Command::new(self.binary);
        let _ = command.args(["proxy", "--cleanup", "--bpffs"]).arg(&self.bpffs).output();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_a_measured_value() {
        let times: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99)), (500.0, 990.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
