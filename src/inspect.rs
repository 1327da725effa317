//! Where `fairlead bpf` and `fairlead service` read: from the agent of a node, or from its pinned maps.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_agent::inspect::{self, Dump, Kind, Names};

use crate::{
    admin::{self, AdminSocket},
    cli::{ClusterArgs, absolute_path},
    paths::BPFFS,
};

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Name of the node [default: the only one that is here]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Read the maps in this directory, and ask no agent
    #[arg(long, value_name = "DIR", value_parser = absolute_path)]
    bpffs: Option<PathBuf>,
}

/// Where a node's maps are read.
pub(crate) enum Place {
    /// Its agent answers, and knows names.
    Agent(AdminSocket),
    /// The directory of its pins.
    Pins(PathBuf),
}

/// The node's agent, or its pins where none runs.
pub(crate) fn find(args: &NodeArgs) -> anyhow::Result<Place> {
    if let Some(bpffs) = &args.bpffs {
        return Ok(Place::Pins(bpffs.clone()));
    }
    match admin::sockets(&args.cluster.paths(), args.node.as_deref()) {
        Ok(sockets) => {
            let socket = only(sockets)?;
            let alive = socket.is_alive();
            if alive { Ok(Place::Agent(socket)) } else { pinned(args, &socket.node).map(Place::Pins) }
        }
        Err(no_agent) => pinned(args, "").with_context(|| no_agent.to_string()).map(Place::Pins),
    }
}

/// Reads and decodes.
pub(crate) async fn read(args: &NodeArgs, kind: Kind) -> anyhow::Result<Dump> {
    match find(args)? {
        Place::Agent(socket) => ask(&socket, kind).await,
        Place::Pins(bpffs) => Ok(inspect::read(&bpffs, kind, &Names::default())?),
    }
}

async fn ask(socket: &AdminSocket, kind: Kind) -> anyhow::Result<Dump> {
    let kind = serde_json::to_value(kind)?;
    socket.get(&format!("/maps/{}", kind.as_str().unwrap_or_default())).await
}

/// The node, when there is no doubt which.
fn only(mut sockets: Vec<AdminSocket>) -> anyhow::Result<AdminSocket> {
    let names: Vec<_> = sockets.iter().map(|socket| socket.node.clone()).collect();
    match sockets.len() {
        1 => Ok(sockets.remove(0)),
        _ => bail!("more than one node runs here; choose one with --node: {}", names.join(", ")),
    }
}

/// The pin directory of the node, or the only one.
fn pinned(args: &NodeArgs, known: &str) -> anyhow::Result<PathBuf> {
    let root = Path::new(BPFFS).join("fairlead");
    let node = args.node.as_deref().or((!known.is_empty()).then_some(known));
    if let Some(node) = node {
        let candidates = [root.join(node), args.cluster.paths().bpffs(node)];
        let found = candidates.into_iter().find(|directory| has_maps(directory));
        return found.with_context(|| {
            format!("the node {node} has no maps below {}; --bpffs says where they are", root.display())
        });
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|directory| has_maps(directory)).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => bail!("no node has maps below {}; --bpffs says where they are", root.display()),
        _ => {
            let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
            bail!("more than one node has maps; choose one with --bpffs: {}", found.join(", "))
        }
    }
}

fn has_maps(directory: &Path) -> bool {
    directory.join("layout").is_symlink()
}
