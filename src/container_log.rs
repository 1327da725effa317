//! `fairlead container-log`: the program that containerd's shim starts for each container to write its log.

use anyhow::Context as _;
use clap::Args;

/// Arguments, as the kubelet gave them to containerd.
#[derive(Debug, Args)]
pub(crate) struct ContainerLogArgs {
    /// The log file, and whatever else the kubelet's log driver takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Copies the container's output to its log until the container ends.
pub(crate) fn run(args: &ContainerLogArgs) -> anyhow::Result<()> {
    fairlead_kubelet::run_log_driver(&args.arguments).context("cannot write the container's log")
}
