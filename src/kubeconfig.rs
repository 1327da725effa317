//! `fairlead kubeconfig`: credentials from the CA of a state directory.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::{cli::absolute_path, output, paths, up::credentials};

const EXAMPLES: &str = "\
Examples:
  fairlead kubeconfig > admin.kubeconfig
  fairlead kubeconfig --user alice --group developers --server https://192.0.2.10:6443
  fairlead kubeconfig --node worker-7 --address 192.0.2.17 --server https://192.0.2.10:6443 > node.kubeconfig";

/// Arguments of `fairlead kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KubeconfigArgs {
    /// The server's state directory
    #[arg(long, default_value = "/var/lib/fairlead", value_name = "DIR", value_parser = absolute_path)]
    state_dir: PathBuf,
    /// For this node's daemons
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "group"])]
    node: Option<String>,
    /// Address of that node, for its certificate; may be repeated
    #[arg(long, value_name = "ADDRESS", requires = "node")]
    address: Vec<std::net::IpAddr>,
    /// For this user [default: an administrator]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Group of that user; may be repeated
    #[arg(long, value_name = "GROUP", requires = "user")]
    group: Vec<String>,
    /// The API server
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:6443")]
    server: String,
}

/// Prints the kubeconfig.
pub(crate) fn run(args: &KubeconfigArgs) -> anyhow::Result<()> {
    let dir = paths::pki_of(&args.state_dir);
    if !dir.is_dir() {
        bail!(
            "{} has no certificate authority; start `fairlead server` or `fairlead up` once, or check --state-dir",
            args.state_dir.display()
        );
    }
    let authority = credentials::open(&dir)?;
    let text = match (&args.node, &args.user) {
        (Some(node), _) => {
            let mut names: Vec<_> = args.address.iter().map(ToString::to_string).collect();
            names.push(node.clone());
            let user = credentials::node_user(node);
            credentials::kubeconfig(&authority, (&user, &[credentials::NODES]), &names, &args.server)?
        }
        (None, Some(user)) => {
            let groups: Vec<_> = args.group.iter().map(String::as_str).collect();
            credentials::kubeconfig(&authority, (user, &groups), &[], &args.server)?
        }
        (None, None) => {
            let (user, group) = credentials::ADMINISTRATOR;
            credentials::kubeconfig(&authority, (user, &[group]), &[], &args.server)?
        }
    };
    output::line(text.trim_end())
}
