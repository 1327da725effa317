//! `fairlead container-log`: the program that containerd's shim starts for each container to write its log.

use std::ffi::OsString;

use clap::Args;

/// Arguments, as the kubelet gave them to containerd.
#[derive(Debug, Args)]
pub(crate) struct ContainerLogArgs {
    /// The log file, and whatever else the kubelet's log driver takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Copies the container's output to its log until the container ends.
pub(crate) fn run(args: ContainerLogArgs) -> anyhow::Result<()> {
    anyhow::bail!("wip {args:?}")
}
