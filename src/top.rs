//! `fairlead top`: traffic per pod, from the counters in the kernel.

use clap::{Args, Subcommand};

use crate::{cli::ClusterArgs, output::Format};

/// Arguments of `fairlead top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Traffic per pod
    Pods(PodsArgs),
}

const EXAMPLES: &str = "\
Examples:
  fairlead top pods -A
  fairlead top pods --namespace demo --interval 5 -o json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct PodsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace of the pods
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only pods of this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Seconds over which rates are measured; 0 shows totals only
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    interval: f64,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(args: &TopArgs) -> anyhow::Result<()> {
    anyhow::bail!("wip {args:?}")
}
