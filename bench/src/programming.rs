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

/// How long a snapshot may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(900);

/// Time in which a process that is about to give memory back does it.
const REST: Duration = Duration::from_millis(500);

/// A way to program services.
#[derive(Clone, Copy)]
struct Mode {
    /// As `fairlead proxy` is told.
    name: &'static str,
    /// Services, endpoints of each, and how many small changes are measured.
    sizes: &'static [(u32, u32, u32)],
    /// What the machine must have; without it the mode is left out, and that is said.
    needs: Option<&'static str>,
}

/// Every mode. What is programmed with maps is also measured with a cluster that is larger than they are; a change of many
/// rules takes seconds, so fewer are made.
const MODES: &[Mode] = &[
    Mode {
        name: "ebpf",
        sizes: &[(100, 10, 1_000), (1_000, 10, 1_000), (10_000, 10, 1_000), (20_000, 50, 0)],
        needs: None,
    },
    Mode { name: "nftables", sizes: RULES, needs: None },
    Mode { name: "iptables", sizes: RULES, needs: None },
    Mode { name: "ipvs", sizes: RULES, needs: Some("/proc/net/ip_vs") },
];
const RULES: &[(u32, u32, u32)] = &[(100, 10, 50), (1_000, 10, 50), (10_000, 10, 10)];

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
    /// `cold`, `cold-cpu`, `change-p50`, `change-p99`, `change-cpu`, `map-memory`, `rss`, `refused`.
    pub op: &'static str,
    /// The number.
    pub value: f64,
    /// `ms`, `MiB` or `objects`.
    pub unit: &'static str,
}

/// Which of it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ProgrammingArgs {
    /// Also write the numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these modes, such as `ebpf,nftables`
    #[arg(long, value_name = "MODES", value_delimiter = ',')]
    mode: Vec<String>,
    /// Only sizes of at most so many services
    #[arg(long, value_name = "NUMBER", default_value_t = u32::MAX)]
    services_max: u32,
}

/// Measures every mode, family and size, and prints a table.
pub fn run(args: &ProgrammingArgs) -> Result<()> {
    let binary = cluster::binary()?;
    let mut rows = Vec::new();
    for mode in
        MODES.iter().filter(|mode| args.mode.is_empty() || args.mode.iter().any(|name| name == mode.name))
    {
        if let Some(needed) = mode.needs.filter(|needed| !Path::new(needed).exists()) {
            println!("{} is left out: this kernel has no {needed}", mode.name);
            continue;
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            for (services, endpoints, changes) in mode.sizes.iter().filter(|size| size.0 <= args.services_max)
            {
                let title =
                    format!("{}, {}: {services} services × {endpoints} endpoints", mode.name, family.name());
                let step = Step::begin(title);
                let run =
                    Run { binary: &binary, mode: *mode, family, services: *services, endpoints: *endpoints };
                rows.extend(run.measure(*changes, &step)?);
                step.done();
            }
        }
    }
    print(&rows);
    if let Some(path) = &args.json {
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
    fn measure(&self, changes: u32, step: &Step) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().context("cannot make a folder")?;
        let topology = TwoNodes::new();
        let mut cluster = Synthetic::new(self.family, self.services, self.endpoints, &topology.a.addresses);
        let feed = ScriptedFeed::start(&directory.path().join("feed.sock"), cluster.snapshot())?;
        let agent = Agent::start(self, &topology, directory.path())?;
        step.note("cold load");
        let status = agent.until_applied(1)?;
        let mut rows = vec![self.row("cold", ms(&status)?, "ms")];
        let cold_cpu = agent.cpu_ms()?;
        rows.push(self.row("cold-cpu", cold_cpu, "ms"));
        rows.push(self.row("rss", agent.resident_mib()?, "MiB"));
        rows.push(self.row("map-memory", agent.map_memory_mib()?, "MiB"));
        let refused = status["problems"].as_array().map_or(0, Vec::len);
        rows.push(self.row("refused", refused as f64, "objects"));
        if changes > 0 {
            step.note(format!("{changes} changes"));
            let (mut times, before) = (Vec::new(), agent.cpu_ms()?);
            for change in 0..changes {
                feed.send(cluster.change_one(change));
                times.push(ms(&agent.until_applied(u64::from(change) + 2)?)?);
            }
            let cpu = (agent.cpu_ms()? - before) / f64::from(changes);
            times.sort_by(f64::total_cmp);
            rows.push(self.row("change-p50", quantile(&times, 0.5), "ms"));
            rows.push(self.row("change-p99", quantile(&times, 0.99), "ms"));
            rows.push(self.row("change-cpu", cpu, "ms"));
        }
        Ok(rows)
    }

    fn row(&self, op: &'static str, value: f64, unit: &'static str) -> Row {
        let (mode, family) = (self.mode.name, self.family.name());
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
        command.args(["--proxy-mode", run.mode.name]).arg("--cgroup").arg(&id).arg("--bpffs").arg(&bpffs);
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

    /// CPU time so far, of the programs that it has run too (`proc_pid_stat(5)`), in steps of 10 ms.
    fn cpu_ms(&self) -> Result<f64> {
        let file = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        // The name, in parentheses, may hold anything; the times are the 12th to 15th field after it, in hundredths.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u32 = fields.skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) * 10.0)
    }

    /// What it holds when it has come to rest.
    fn resident_mib(&self) -> Result<f64> {
        let mut last = self.resident_now_mib()?;
        loop {
            std::thread::sleep(REST);
            let now = self.resident_now_mib()?;
            if now >= last {
                return Ok(now);
            }
            last = now;
        }
    }

    fn resident_now_mib(&self) -> Result<f64> {
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
