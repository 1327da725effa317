//! `fairlead-bench`: the demo and the benchmarks. `cargo xtask` builds what they need and starts them.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use console::style;
use fairlead_bench::{
    api,
    cluster::{Cluster, ClusterSpec, folder_for},
    cost::{self, agent::AgentArgs, guest::GuestArgs, running::ServeArgs},
    dns, image,
    programming::{self, ProgrammingArgs},
    report::{self, ReportArgs},
    scenario,
    screen::aside,
    smoke, stop,
    throughput::{self, ThroughputArgs},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

/// The demo and the benchmarks of Fairlead.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the OCI archive that demo and test pods run
    Image {
        /// The static workload binary
        #[arg(long)]
        workload: PathBuf,
        /// Folder to write the archive into
        #[arg(long)]
        to: PathBuf,
    },
    /// Start a cluster, run the scenario, print what happened, clean up
    Demo {
        /// Leave the cluster running
        #[arg(long)]
        keep: bool,
    },
    /// The API server alone: start, memory, latency on both stores, watch fan-out
    Api {
        /// Only creates on the embedded store and the most watchers
        #[arg(long)]
        quick: bool,
        /// Write everything that was measured to this file, too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Memory when idle, time to Ready, time of a pod to Ready
    Smoke {
        /// Write everything that was measured to this file, too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// How fast services get into the kernel, and what they take there
    Programming(ProgrammingArgs),
    /// How much and how often, by the clock, in every mode against no load balancing
    Throughput(ThroughputArgs),
    /// What the others wrote as JSON, as a page, as Markdown and as CSV
    Report(ReportArgs),
    /// Processor time of an answer beside unbound, memory, time of a change until it is answered
    Dns {
        /// Write everything that was measured to this file, too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Measure instructions; runs inside the machine that `cargo xtask bench cost` boots
    #[command(hide = true)]
    CostGuest(GuestArgs),
    /// The agent of that measurement
    #[command(hide = true)]
    CostAgent(AgentArgs),
    /// A server of that measurement
    #[command(hide = true)]
    CostServe(ServeArgs),
    /// A server of `throughput`
    #[command(hide = true)]
    ThroughputServe(throughput::server::ServeArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Image { workload, to } => make_image(&workload, &to),
        Command::Demo { keep } => demo(keep).await,
        Command::Api { quick, json } => measure_api(quick, json).await,
        Command::Smoke { json } => measure(json).await,
        Command::Programming(args) => until_stopped(|| programming::run(&args)),
        Command::Throughput(args) => until_stopped(|| throughput::run(&args)),
        Command::Report(args) => report::run(&args),
        Command::Dns { json } => measure_dns(json).await,
        Command::CostGuest(args) => tokio::task::block_in_place(|| cost::guest::run(&args)),
        Command::CostServe(args) => tokio::task::block_in_place(|| cost::running::serve(&args)),
        Command::ThroughputServe(args) => tokio::task::block_in_place(|| throughput::server::serve(&args)),
        Command::CostAgent(args) => tokio::task::block_in_place(|| cost::agent::run(&args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", style("error:").red().bold());
            ExitCode::FAILURE
        }
    }
}

fn make_image(workload: &std::path::Path, to: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    let archive = to.join("workload.tar");
    image::write_workload(&archive, workload)?;
    println!("{}", archive.display());
    Ok(())
}

fn spec(name: &str) -> ClusterSpec {
    ClusterSpec { name: name.into(), nodes: 2, api_port: 6443, folder: folder_for(name) }
}

async fn demo(keep: bool) -> Result<()> {
    let mut interruption = Interruption::watch();
    let cluster = Cluster::up(spec("demo"), true).await?;
    println!();
    let outcome = interruption.or(scenario::run(&cluster)).await;
    println!();
    if keep {
        println!("The cluster is running:\n\n    export KUBECONFIG={}\n", cluster.kubeconfig().display());
        let run_dir = cluster.run_dir();
        println!("Remove it with\n\n    fairlead down --name demo --run-dir {} --purge\n", run_dir.display());
        return outcome;
    }
    let logs = outcome.is_err().then(|| save_logs(&cluster)).transpose()?;
    let removed = cluster.down().await.context("the demo's cluster could not be removed")?;
    for line in removed.lines() {
        aside(line);
    }
    if let Some(logs) = logs {
        return outcome.with_context(|| format!("the demo failed; the logs are in {}", logs.display()));
    }
    println!("{} every step held, and everything that was made is gone", style("✓").green().bold());
    outcome
}

/// Keeps the logs of a cluster that is about to be removed.
fn save_logs(cluster: &Cluster) -> Result<PathBuf> {
    let to = std::env::temp_dir().join(format!("fairlead-{}-logs", cluster.spec().name));
    std::fs::create_dir_all(&to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    for entry in std::fs::read_dir(cluster.logs()).into_iter().flatten().flatten() {
        let file = entry.path();
        std::fs::copy(&file, to.join(entry.file_name()))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(to)
}

/// A SIGINT or SIGTERM from now on.
struct Interruption(JoinHandle<()>);

impl Interruption {
    fn watch() -> Self {
        Self(tokio::spawn(interrupted()))
    }

    /// What comes of it, or the error that it was interrupted, perhaps before it began.
    async fn or<T>(&mut self, act: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            _ = &mut self.0 => anyhow::bail!("interrupted"),
            outcome = act => outcome,
        }
    }
}

async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be installed");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn measure_api(quick: bool, json: Option<PathBuf>) -> Result<()> {
    let report = Interruption::watch().or(api::run(quick)).await?;
    report.print();
    json.map_or(Ok(()), |file| write(&report, &file))
}

fn write(measured: &impl serde::Serialize, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(measured)? + "\n";
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

async fn measure(json: Option<PathBuf>) -> Result<()> {
    let mut interruption = Interruption::watch();
    // To its end in any case: then it is known what there is.
    let cluster = Cluster::up(spec("smoke"), false).await?;
    let outcome = interruption.or(smoke::run(&cluster)).await;
    cluster.down().await?;
    let smoke = outcome?;
    smoke.print();
    json.map_or(Ok(()), |file| write(&smoke, &file))
}

/// An interruption ends it where it can be ended, so that what it made is removed.
fn until_stopped(measure: impl FnOnce() -> Result<()>) -> Result<()> {
    let watching = tokio::spawn(async {
        interrupted().await;
        stop::stop();
    });
    let outcome = tokio::task::block_in_place(measure);
    watching.abort();
    outcome
}

async fn measure_dns(json: Option<PathBuf>) -> Result<()> {
    let folder = folder_for(&format!("bench-dns-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let outcome = Interruption::watch().or(dns::run(&folder)).await;
    let report =
        outcome.with_context(|| format!("the benchmark failed; its logs are in {}", folder.display()))?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    report.print();
    json.map_or(Ok(()), |file| write(&report, &file))
}
