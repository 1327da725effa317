//! `fairlead up`: a development cluster on this machine. Every simulated node is a network namespace in which the
//! real daemons run. Start reading at [`cluster`].

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use clap::Args;
use fairlead_agent::ProxyMode;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{ClusterArgs, absolute_path},
    daemon,
    down::sweep,
    node::services::check_denial,
    paths::ClusterPaths,
    server::{NODE_MONITOR_GRACE_SECS, node_monitor_grace},
    store::select::DurabilityArgs,
};

pub(crate) mod ledger;

pub(crate) mod topology;

mod report;

mod supervise;

mod containerd;
pub(crate) mod credentials;
pub(crate) mod preflight;

mod children;
mod cluster;
mod detach;
mod ready;

use cluster::Cluster;
use ledger::{Ledger, Phase, Record};
use preflight::Preflight;
use report::Report;

const EXAMPLES: &str = "\
Examples:
  fairlead up                                Two nodes; Ctrl-C stops them and removes everything that was made
  fairlead up --nodes 3 --detach             Three nodes in the background; `fairlead down` stops them
  fairlead up --images ./target/images       With the OCI image archives of a directory
  fairlead up --name blue --api-port 7443    A second cluster beside the first
  fairlead up --proxy-mode nftables          Services as nftables rules instead of eBPF maps

Stored objects and images are kept between runs; `fairlead down --purge` removes them.";

/// Arguments of `fairlead up`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Number of nodes
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(topology::NODES_MAX)))]
    pub(crate) nodes: u8,
    /// Port of the API server on this machine's 127.0.0.1
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub(crate) api_port: u16,
    /// Directory with OCI image archives (*.tar) that pods may use
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    pub(crate) images: Option<PathBuf>,
    /// Use this containerd and do not start a private one
    #[arg(long, value_name = "SOCKET", value_parser = absolute_path)]
    pub(crate) containerd: Option<PathBuf>,
    /// Seconds without a sign of life after which a node is not Ready; a node gives one every 10 s
    #[arg(long, value_name = "SECS", default_value_t = NODE_MONITOR_GRACE_SECS, value_parser = node_monitor_grace())]
    pub(crate) node_monitor_grace: u32,
    #[command(flatten)]
    pub(crate) durability: DurabilityArgs,
    /// How services reach their backends: ebpf, iptables, nftables or ipvs
    #[arg(long, value_name = "MODE", default_value_t = ProxyMode::Ebpf)]
    pub(crate) proxy_mode: ProxyMode,
    /// Deny clients outside the cluster the cluster addresses of services (ebpf mode)
    #[arg(long)]
    pub(crate) deny_outside_cluster_ips: bool,
    /// Return when the nodes are Ready and leave the cluster running
    #[arg(long)]
    pub(crate) detach: bool,
    /// The background half of --detach
    #[arg(long, hide = true, requires = "detach")]
    pub(crate) supervisor: bool,
}

/// Makes the cluster, keeps it running until a signal, and removes it.
pub(crate) fn run(args: UpArgs) -> anyhow::Result<()> {
    check_denial(args.deny_outside_cluster_ips, args.proxy_mode)?;
    if args.detach && !args.supervisor {
        return detach::run(&args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: UpArgs) -> anyhow::Result<()> {
    let (report, paths) = (Report::new(), args.cluster.paths());
    let stop = daemon::shutdown_on_signal()?;
    let since = Instant::now();
    let checked = preflight::check(&args, &paths, |record| remove_leftovers(report, &paths, record))?;
    report.done("checks", since);

    let nodes = (1..=args.nodes).map(crate::paths::node_name).collect();
    prepare_run_dir(&paths)?;
    let ledger = Ledger::create(&paths, checked.api.local_addr()?, nodes)?;
    let mut cluster = Cluster::new(paths.clone(), ledger.clone(), report);
    let outcome = run_cluster(&args, &paths, &mut cluster, &checked, &stop).await;

    let since = Instant::now();
    ledger.set_phase(Phase::Stopping)?;
    cluster.stop().await;
    if outcome.is_err() {
        keep_logs(&paths, report);
    }
    let record = ledger.record();
    let removed = tokio::task::spawn_blocking(move || sweep::sweep(&paths, Some(&record))).await??;
    report.done(&format!("stopped; removed {removed}"), since);
    outcome
}

/// From nothing to the signal that ends it. Making things is not interrupted: it takes a second, and then what was made
/// is known.
async fn run_cluster(
    args: &UpArgs,
    paths: &ClusterPaths,
    cluster: &mut Cluster,
    checked: &Preflight,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    cluster.start(args, checked).await?;
    if cluster.wait_until_ready(stop).await? {
        cluster.set_ready()?;
        summarise(args, paths, cluster.report());
        if args.supervisor {
            detach::leave_terminal(paths)?;
        }
        cluster.watch(stop).await;
    }
    Ok(())
}

/// What a crashed cluster of this name left behind.
fn remove_leftovers(report: Report, paths: &ClusterPaths, record: Option<&Record>) -> anyhow::Result<()> {
    let since = Instant::now();
    let removed = sweep::sweep(paths, record)?.to_string();
    if !removed.is_empty() {
        report.done(&format!("cleaned up after a crash: {removed}"), since);
    }
    Ok(())
}

fn prepare_run_dir(paths: &ClusterPaths) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for dir in [&paths.run, &paths.logs(), &paths.nodes()] {
        builder.create(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    Ok(())
}

fn summarise(args: &UpArgs, paths: &ClusterPaths, report: Report) {
    let mut option = match paths.name.as_str() {
        crate::paths::DEFAULT_CLUSTER => String::new(),
        name => format!(" --name {name}"),
    };
    if paths.run != ClusterPaths::new(&paths.name, None, None).run {
        option += &format!(" --run-dir {}", paths.run.display());
    }
    let ready = match args.nodes {
        1 => "1 node is".to_owned(),
        n => format!("{n} nodes are"),
    };
    let end = match args.detach {
        true => format!("`fairlead down{option}` stops it."),
        false => "Ctrl-C stops it and removes everything it made.".to_owned(),
    };
    report.say(&format!(
        "\n{ready} Ready after {}.\n\n  export KUBECONFIG={}\n  kubectl get nodes -o wide\n  fairlead status{option}\n  fairlead flows{option} --follow\n\n{end}",
        crate::output::duration(report.elapsed()),
        paths.kubeconfig().display(),
    ));
}

/// A failed start leaves nothing but its logs.
fn keep_logs(paths: &ClusterPaths, report: Report) {
    let target = paths.state.join("logs");
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(&target)?;
        for entry in std::fs::read_dir(paths.logs())?.flatten() {
            std::fs::copy(entry.path(), target.join(entry.file_name()))?;
        }
        Ok(())
    };
    match copy() {
        Ok(()) => report.say(&format!("  the logs are kept in {}", target.display())),
        Err(problem) => tracing::warn!(%problem, "cannot keep the logs"),
    }
}
