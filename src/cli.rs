//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    bpf, completions, container_log, dns, down, explain, flows, kubeconfig, node,
    paths::{ClusterPaths, DEFAULT_CLUSTER},
    proxy, server, service, status, store, top, up,
};

const ABOUT: &str = "A Kubernetes-compatible cluster whose network lives in the kernel";
const AFTER_HELP: &str = "\
Examples:
  fairlead up --nodes 2            Start a development cluster on this machine
  fairlead status                  Show its nodes, services and feed
  fairlead flows --follow          Watch connections as they begin and end
  fairlead top pods -A             Show traffic per pod
  fairlead down                    Stop it and remove everything it made

Exit codes: 0 success, 1 failure, 2 wrong usage.";

/// What the user typed.
#[derive(Debug, Parser)]
#[command(name = "fairlead", version, about = ABOUT, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as `fairlead_agent=debug`
    #[arg(long, global = true, env = "FAIRLEAD_LOG", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// Subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a development cluster on this machine
    Up(up::UpArgs),
    /// Stop a development cluster and remove everything it made
    Down(down::DownArgs),
    /// Run the control plane: API server, scheduler, controllers and feed
    Server(server::ServerArgs),
    /// Run a node: its dataplane and its pods
    Node(node::NodeArgs),
    /// Do kube-proxy's job, and nothing else, on a node of any Kubernetes cluster
    Proxy(proxy::ProxyArgs),
    /// Run a node's cluster DNS server
    Dns(dns::DnsArgs),
    /// Show the state of a development cluster's nodes
    Status(status::StatusArgs),
    /// Show connections between pods and services
    Flows(flows::FlowsArgs),
    /// Show traffic
    Top(top::TopArgs),
    /// Show services as the kernel has them
    Service(service::ServiceArgs),
    /// Show what is in the kernel's maps
    Bpf(bpf::BpfArgs),
    /// Say what would happen to a new connection, and why
    Explain(explain::ExplainArgs),
    /// Save, restore and move what the server stores
    Store(store::StoreArgs),
    /// Print a kubeconfig signed by the CA of a state directory
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
    /// Write a container's output to its log file (containerd starts this)
    #[command(hide = true)]
    ContainerLog(container_log::ContainerLogArgs),
}

impl Command {
    /// Daemons say what they do; commands only what goes wrong.
    pub(crate) fn default_log_level(&self) -> &'static str {
        match self {
            Self::Server(_) | Self::Node(_) | Self::Proxy(_) | Self::Dns(_) => "info",
            _ => "warn",
        }
    }

    /// Runs the subcommand to its end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Up(args) => up::run(args),
            Self::Down(args) => down::run(&args),
            Self::Server(args) => server::run(&args),
            Self::Node(args) => node::run(&args),
            Self::Proxy(args) => proxy::run(&args),
            Self::Dns(args) => dns::run(args),
            Self::Status(args) => status::run(&args),
            Self::Flows(args) => flows::run(&args),
            Self::Top(args) => top::run(&args),
            Self::Service(args) => service::run(&args),
            Self::Bpf(args) => bpf::run(&args),
            Self::Explain(args) => explain::run(&args),
            Self::Store(args) => store::run(&args),
            Self::Kubeconfig(args) => kubeconfig::run(&args),
            Self::Completions(args) => completions::run(&args),
            Self::ContainerLog(args) => container_log::run(&args),
        }
    }
}

/// Which development cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster; clusters with different names share nothing
    #[arg(long, global = true, default_value = DEFAULT_CLUSTER, value_name = "NAME", value_parser = cluster_name)]
    pub(crate) name: String,
    /// Directory of what is kept between runs [default: /var/lib/fairlead, or /var/lib/fairlead-NAME]
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute_path)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Directory of sockets and logs [default: /run/fairlead, or /run/fairlead-NAME]
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute_path)]
    pub(crate) run_dir: Option<PathBuf>,
}

impl ClusterArgs {
    /// The cluster's directories.
    pub(crate) fn paths(&self) -> ClusterPaths {
        ClusterPaths::new(&self.name, self.state_dir.clone(), self.run_dir.clone())
    }
}

/// Parses the command line; prints help or a usage error and exits with 2 itself.
pub(crate) fn parse() -> Cli {
    Cli::parse()
}

/// A path that means the same in every process, whatever its working directory is.
pub(crate) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|e| format!("not a path: {e}"))
}

/// Names become parts of the names of namespaces, cgroups and files.
fn cluster_name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 40 lower-case letters, digits and inner dashes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Command, cluster_name};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_usage_exits_with_2() {
        for wrong in [
            &["fairlead", "up", "--nodes", "0"][..],
            &["fairlead", "up", "--name", "Not Good"],
            &["fairlead", "flows", "--verdict", "maybe"],
            &["fairlead", "server", "--service-cidr", "10.96.0.0"],
            &["fairlead", "server", "--store-durability", "sometimes"],
            &["fairlead", "server", "--store-sync-interval", "0"],
            &["fairlead", "nonsense"],
        ] {
            let error = Cli::try_parse_from(wrong).expect_err("must not parse");
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn directories_follow_the_name_unless_given() {
        let cli = Cli::try_parse_from(["fairlead", "down", "--name", "blue", "--run-dir", "/tmp/b"]).unwrap();
        let Command::Down(args) = cli.command else { panic!("not down") };
        let paths = args.cluster.paths();
        assert_eq!(paths.state.to_str(), Some("/var/lib/fairlead-blue"));
        assert_eq!(paths.ledger().to_str(), Some("/tmp/b/blue.json"));
    }

    #[test]
    fn the_cluster_may_be_named_before_and_behind_what_is_shown() {
        for line in [["top", "--name", "blue", "pods"], ["top", "pods", "--name", "blue"]] {
            let cli = Cli::try_parse_from(["fairlead"].iter().chain(&line)).unwrap();
            let Command::Top(args) = cli.command else { panic!("not top") };
            assert_eq!(args.cluster.name, "blue");
        }
    }

    #[test]
    fn names_are_checked() {
        assert!(cluster_name("a-1").is_ok());
        for bad in ["", "-a", "a-", "A", "a/b", "a.b"] {
            assert!(cluster_name(bad).is_err(), "{bad:?}");
        }
    }
}
