//! `cargo xtask test vm`: the packet and node tests on other kernels.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use console::style;

use super::{
    Event, Initramfs, Kernel, Machine, Step,
    budget::Counts,
    classic,
    kernel::{RELEASES, Release},
};
use crate::{
    bpf,
    build::{self, Profile},
    paths, setup,
    test::Count,
};

/// A test target that runs in a machine.
struct Target {
    package: &'static str,
    name: &'static str,
    /// Only on this kernel, whose modules the proxy modes with rules were tried with.
    only: Option<&'static str>,
}

/// Every one. The first says what the verifier made of each program.
const TARGETS: &[Target] = &[
    Target { package: "fairlead-kernel", name: PROGRAMS, only: None },
    Target { package: "fairlead-agent", name: "node_agent_modes", only: Some("6.1") },
    Target { package: "fairlead-agent", name: "node_cleanup", only: Some("6.1") },
    Target { package: "fairlead-agent", name: "node_resolver", only: Some("6.1") },
    Target { package: "fairlead-bench", name: PROXY, only: Some("6.1") },
    Target { package: "fairlead-kernel", name: "packet", only: None },
    Target { package: "fairlead-kernel", name: "node", only: None },
    Target { package: "fairlead-agent", name: "node_agent", only: None },
    Target { package: "fairlead-kernel", name: "node_modes", only: Some("6.1") },
];
const PROGRAMS: &str = "vm_programs";
/// It starts the whole binary, and something that waits.
const PROXY: &str = "node_proxy_modes";
const WAITS: &str = "/bin/sleep";
/// Programs of this machine that the tests call, beside those of the modes with rules.
const TOOLS: &[&str] = &["ip", "bpftool", "tc", "tcpdump"];
/// What the tests need of a kernel: links, filters, the tables that they look into, and what ends sockets.
const MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf", "act_bpf", "bridge", "vxlan", "udp_diag"];
const OBJECT: &str = "/fairlead.bpf.o";
const BINARY: &str = "/bin/fairlead";
const MEMORY_MIB: u32 = 2_048;
/// A machine needs about three minutes; the one that is asked for every mode, fifteen.
const PATIENCE: Duration = Duration::from_secs(2_400);

/// What is chosen of the tier; everything if nothing is said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Only<'a> {
    /// A kernel, such as `6.1`.
    pub(crate) kernel: Option<&'a str>,
    /// The name of a target.
    pub(crate) target: Option<&'a str>,
}

impl Only<'_> {
    fn releases(self) -> Result<Vec<&'static Release>> {
        chosen("kernel", RELEASES, |release| release.version, self.kernel)
    }

    fn targets(self) -> Result<Vec<&'static Target>> {
        chosen("test", TARGETS, |target| target.name, self.target)
    }
}

/// Those rows that have the name that is wanted, or all.
fn chosen<'a, T>(
    what: &str,
    rows: &'a [T],
    name: fn(&'a T) -> &'a str,
    wanted: Option<&str>,
) -> Result<Vec<&'a T>> {
    let chosen: Vec<&T> = rows.iter().filter(|row| wanted.is_none_or(|wanted| wanted == name(row))).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = rows.iter().map(name).collect();
        bail!("there is no {what} {}; there are {}", wanted.unwrap_or_default(), known.join(", "));
    }
    Ok(chosen)
}

/// Tests that cannot pass on a kernel: its version, the test, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("5.10", "sockets::applications_see_services_and_packets_see_backends", REFUSALS),
    ("5.10", "a_cluster_of_two_agents_serves_tells_and_survives", REFUSALS),
];
/// `SO_NETNS_COOKIE` came with 5.14 and `bpf_set_retval` for the address hooks with 6.1.
const REFUSALS: &str =
    "it asserts that a refusal is ECONNREFUSED and counts for the pod; here it is EPERM and the host's";

/// What came of it, on one kernel or on all.
#[derive(Default)]
struct Outcome {
    counts: Counts,
    tests: Count,
    /// What does not work, in sentences.
    broken: Vec<String>,
}

/// Runs the tier on all kernels at once, or what is chosen of it; `bless` writes the instruction counts as the new budget.
pub(crate) fn run(bless: bool, only: Only<'_>) -> Result<()> {
    let releases: Vec<&Release> = only.releases()?;
    let targets = only.targets()?;
    let counts_programs = targets.iter().any(|target| target.name == PROGRAMS);
    if bless && !counts_programs {
        bail!("--bless writes what {PROGRAMS} says: leave --test away, or choose that one");
    }
    setup::need_root("the programs are loaded into the running kernel as well")?;
    setup::run(setup::RUN)?;
    bpf::build()?;
    build::guest()?;
    let executables = executables(&targets)?;
    if executables.contains_key(PROXY) {
        build::binaries(Profile::Dev)?;
    }
    let kernels: Vec<Kernel> = releases.iter().map(|release| Kernel::of(**release)).collect::<Result<_>>()?;
    let started = Instant::now();
    let mut all = Outcome::default();
    let own = running_kernel();
    if let Some(executable) = executables.get(PROGRAMS) {
        for line in programs_here(executable)? {
            all.note_program(&line, &own);
        }
    }
    let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
        let (targets, executables) = (&targets, &executables);
        let boot = |(release, kernel)| scope.spawn(move || one(release, kernel, targets, executables));
        let machines: Vec<_> = releases.iter().copied().zip(&kernels).map(boot).collect();
        machines.into_iter().map(|machine| machine.join().expect("it does not panic")).collect()
    });
    for (release, outcome) in releases.iter().zip(outcomes) {
        match outcome {
            Ok(outcome) => all.add(outcome),
            Err(error) => all.broken.push(format!("{}: {error:#}", release.version)),
        }
    }
    println!(
        "\n{} on {} kernels in {:.0} s",
        all.tests.summary(),
        releases.len(),
        started.elapsed().as_secs_f32()
    );
    for (version, test, why) in EXCEPTIONS {
        println!("not on {version}: {test}: {why}");
    }
    for line in &all.broken {
        println!("{} {line}", style("✗").red());
    }
    if !all.broken.is_empty() {
        bail!("not everything works on every kernel");
    }
    match (counts_programs, bless) {
        (false, _) => Ok(()),
        (true, true) => all.counts.bless(),
        (true, false) => all.counts.compare(&Counts::budget()?),
    }
}

/// Boots one kernel and runs every target in it.
fn one(
    release: &Release,
    kernel: &Kernel,
    targets: &[&Target],
    executables: &BTreeMap<String, PathBuf>,
) -> Result<Outcome> {
    let version = release.version;
    println!("{version:>5} │ {}", style(&kernel.version).cyan());
    let mut files = Initramfs::default();
    TOOLS.iter().try_for_each(|tool| files.tool(tool))?;
    classic::add_tools(&mut files)?;
    files.file(Path::new(OBJECT), &paths::target().join("bpf").join("fairlead.bpf.o"))?;
    let mut steps = Vec::new();
    for target in targets.iter().filter(|target| target.only.is_none_or(|only| only == version)) {
        let inside = format!("/tests/{}", target.name);
        files.program(Path::new(&inside), &executables[target.name])?;
        if target.name == PROXY {
            files.program(Path::new(BINARY), &Profile::Dev.fairlead())?;
            files.program(Path::new(WAITS), Path::new(WAITS))?;
        }
        steps.push(step(*release, target.name, inside));
    }
    let name = format!("test-{version}");
    let machine = Machine { name: &name, kernel, memory_mib: MEMORY_MIB, patience: PATIENCE, seed: 1 };
    let mut outcome = Outcome::default();
    machine.run(files, &[MODULES, classic::MODULES].concat(), &steps, |event| {
        match event {
            Event::Begin { step } => println!("{version:>5} │ {step}"),
            Event::Line(line) => {
                if !line.trim().is_empty() {
                    println!("{version:>5} │   {line}");
                }
                outcome.tests.add(&line);
                outcome.note_program(&line, version);
                if let Some(name) =
                    line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
                {
                    outcome.broken.push(format!("{version}: {name}"));
                }
            }
            Event::End { step, status, .. } if status != "ok" => {
                outcome.broken.push(format!("{version}: {step} ended with {status}"));
            }
            Event::End { step, took, .. } => {
                println!("{version:>5} │ {step} took {:.1} s by the machine's clock", took.as_secs_f32());
            }
        }
        Ok(())
    })?;
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.counts.merge(other.counts);
        self.tests.merge(&other.tests);
        self.broken.extend(other.broken);
    }

    /// Reads a line such as `program connect4 verified 3742` or `program connect4 refused WHY`.
    fn note_program(&mut self, line: &str, kernel: &str) {
        // The test runner begins a line with the test's name and does not end it.
        let Some((_, rest)) = line.split_once("program ") else { return };
        let mut words = rest.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some(program), Some("verified"), Some(count)) => {
                self.counts.add(program, kernel, count.parse().unwrap_or_default());
            }
            (Some(program), Some("refused"), Some(why)) => {
                self.broken.push(format!("{kernel} refuses {program}: {why}"));
            }
            _ => {}
        }
    }
}

fn step(release: Release, target: &str, inside: String) -> Step {
    let mut command = vec![inside, "--test-threads=1".to_owned()];
    if target == PROGRAMS {
        command.push("--nocapture".to_owned());
    }
    for (_, test, _) in EXCEPTIONS.iter().filter(|row| row.0 == release.version) {
        command.extend(["--skip".to_owned(), (*test).to_owned()]);
    }
    // The machine has every mode, so that none may be left out.
    let env = [
        ("CI", "true"),
        ("FAIRLEAD_BPF_OBJECT", OBJECT),
        ("FAIRLEAD_BIN", BINARY),
        ("FAIRLEAD_NEEDS_IPVS", "true"),
        ("RUST_BACKTRACE", "0"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Step { name: target.to_owned(), command, env }
}

/// What the running kernel makes of the programs.
fn programs_here(executable: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(executable);
    command.args(["--test-threads=1", "--nocapture"]).current_dir(paths::root().join("node/kernel"));
    let output =
        command.stderr(Stdio::inherit()).output().context("cannot start the test of the programs")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    Ok(text.lines().map(str::to_owned).collect())
}

/// Major and minor number of the running kernel.
fn running_kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Builds the targets and finds their executables.
fn executables(targets: &[&Target]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut cargo = build::cargo();
    cargo.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    for Target { package, name, .. } in targets {
        cargo.args(["--package", package, "--test", name]);
    }
    println!("… build the tests");
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    match targets.iter().find(|target| !found.contains_key(target.name)) {
        Some(Target { package, name, .. }) => bail!("cargo did not build the test {name} of {package}"),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_programs_are_read_also_behind_a_test_s_name() {
        let mut outcome = Outcome::default();
        for line in [
            "test every_program_passes_the_verifier ... program connect4 verified 3742",
            "program to_pod verified 218",
            "program sock_ops refused invalid func unknown#187",
            "test result: ok. 1 passed; 0 failed",
        ] {
            outcome.note_program(line, "6.1");
        }
        let mut expected = Counts::default();
        expected.add("connect4", "6.1", 3_742);
        expected.add("to_pod", "6.1", 218);
        assert_eq!(outcome.counts, expected);
        assert_eq!(outcome.broken, ["6.1 refuses sock_ops: invalid func unknown#187"]);
    }
}
