//! Every developer command. `cargo xtask --help` lists them; each installs what it needs first.

mod bpf;
mod build;
mod cost;
mod lint;
mod paths;
mod requirement;
mod setup;
mod step;
mod test;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{build::Profile, cost::CostArgs, test::Tier};

/// Build, show, test and measure Fairlead.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    after_help = "Examples:\n  cargo xtask demo            see the whole thing work, then clean up\n  cargo xtask demo --keep     the same, but leave the cluster running\n  cargo xtask test            every test\n  cargo xtask test unit       only the tests that need nothing\n  cargo xtask ci              what a change must pass"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: packages, the eBPF toolchain, cargo tools
    Setup,
    /// Build the eBPF object, the test images and the release binary
    Build,
    /// Start a cluster of two nodes, run the scenario, print what happened, clean up
    Demo {
        /// Leave the cluster running and print its KUBECONFIG line
        #[arg(long)]
        keep: bool,
    },
    /// Run the tests, of one tier or of all
    Test {
        /// Only this tier
        tier: Option<Tier>,
        /// With `vm`: write the instruction counts as the new budget
        #[arg(long)]
        bless: bool,
        /// With `vm`: only this kernel, such as `6.1`
        #[arg(long, value_name = "VERSION")]
        kernel: Option<String>,
        /// With `vm`: only this test target, such as `node_modes`
        #[arg(long, value_name = "NAME")]
        test: Option<String>,
    },
    /// Measure
    Bench {
        /// What
        what: Bench,
        /// Flags of that benchmark, such as --json; `-- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Formatting, clippy, documentation, licences, dependency edges
    Lint,
    /// Everything a change must pass: lint and all tests
    Ci,
    /// Remove what builds and crashed runs left behind
    Clean,
}

/// What can be measured. Each is a subcommand of the benchmarks' binary with flags of its own.
#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// Memory when idle, time to Ready, time of a pod to Ready
    Smoke,
    /// The API server on both stores: time to ready, memory, latency, throughput, watches
    Api,
    /// How fast services get into the kernel, and what they take there
    Programming,
    /// How much and how often, by the clock, in every mode against no load balancing
    Throughput,
    /// Processor time of a DNS answer beside unbound, memory, time of a change until it is answered
    Dns,
    /// Instructions of the kernel for an operation, which no noise can touch
    Cost,
    /// What the others wrote with --json, as a page with charts, as Markdown and as CSV
    Report,
}

impl Bench {
    /// Name of the subcommand, and what it cannot do without root.
    const fn row(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Smoke => ("smoke", Some("the benchmark starts a cluster")),
            Self::Api => ("api", None),
            Self::Programming => ("programming", Some("the benchmark loads eBPF programs")),
            Self::Throughput => {
                ("throughput", Some("the benchmark makes network namespaces and loads eBPF programs"))
            }
            Self::Dns => ("dns", None),
            Self::Cost => ("cost", None),
            Self::Report => ("report", None),
        }
    }

    fn run(self, arguments: &[OsString]) -> Result<()> {
        if matches!(self, Self::Cost) {
            let name = OsString::from("cargo xtask bench cost");
            return cost::run(&CostArgs::parse_from(std::iter::once(&name).chain(arguments)));
        }
        let (name, root) = self.row();
        if let Some(why) = root {
            setup::need_root(why)?;
        }
        setup::run(setup::RUN)?;
        build::everything(Profile::Release)?;
        step::attached(Profile::Release.bench(&[name]).args(arguments))
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").red().bold());
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Setup => setup::run(setup::ALL),
        Command::Build => {
            setup::run(setup::BUILD)?;
            build::everything(Profile::Release)
        }
        Command::Demo { keep } => {
            setup::need_root("the demo makes network namespaces, loads eBPF programs and starts containers")?;
            setup::run(setup::RUN)?;
            build::everything(Profile::Release)?;
            let keep: &[&str] = if *keep { &["--keep"] } else { &[] };
            step::attached(&mut Profile::Release.bench(&[&["demo"], keep].concat()))
        }
        Command::Test { tier: Some(Tier::Vm), bless, kernel, test } => {
            vm::test::run(*bless, vm::test::Only { kernel: kernel.as_deref(), target: test.as_deref() })
        }
        Command::Test { bless: true, .. }
        | Command::Test { kernel: Some(_), .. }
        | Command::Test { test: Some(_), .. } => {
            anyhow::bail!("--bless, --kernel and --test belong to `test vm`")
        }
        Command::Test { tier, .. } => test::run(*tier),
        Command::Bench { what, arguments } => what.run(arguments),
        Command::Lint => lint::run(),
        Command::Ci => {
            lint::run()?;
            test::run(None)
        }
        Command::Clean => build::clean(),
    }
}
