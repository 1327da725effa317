//! `fairlead status`: the nodes of a development cluster, its control plane and its processes.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_agent::Status as AgentStatus;
use futures::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    admin::{self, AdminSocket},
    cli::ClusterArgs,
    identity,
    output::{self, Format},
    paths::ClusterPaths,
    up::ledger::{Item, Phase, Record},
};

mod table;

const EXAMPLES: &str = "\
Examples:
  fairlead status
  fairlead status -o json | jq '.nodes[] | {node, pid, lag}'
  fairlead status --check && echo all is well";

/// An API server on this machine answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of `fairlead status`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Fail when the API server or a node does not answer
    #[arg(long)]
    check: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Status {
    cluster: String,
    /// None when no `up` runs here but nodes do.
    phase: Option<Phase>,
    api: Option<ApiStatus>,
    nodes: Vec<NodeStatus>,
    processes: Vec<Process>,
}

/// A node, as far as it answers.
#[derive(Debug, Serialize)]
struct NodeStatus {
    node: String,
    /// The agent's process.
    pid: Option<i32>,
    /// It answers, and a complete view of the cluster is in the kernel.
    synced: bool,
    /// Updates of the feed that it is behind the furthest node.
    lag: Option<u64>,
    /// What it says of itself.
    agent: Option<AgentStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct ApiStatus {
    address: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A daemon of the cluster.
#[derive(Debug, Serialize)]
struct Process {
    name: String,
    pid: i32,
}

/// Asks everybody and prints what they say.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let paths = args.cluster.paths();
    let record = Record::read(&paths.ledger())?;
    let sockets = admin::sockets(&paths, None);
    if record.is_none() && sockets.is_err() {
        bail!(
            "the cluster {} does not run here (looked in {}); start it with `fairlead up`, or check --name and --run-dir",
            paths.name,
            paths.run.display()
        );
    }
    let status = admin::runtime()?.block_on(gather(&paths, record.as_ref(), sockets.unwrap_or_default()));
    output::print(args.output, &status, table::render)?;
    match problems(&status).as_slice() {
        problems if args.check && !problems.is_empty() => bail!("{}", problems.join("; ")),
        _ => Ok(()),
    }
}

async fn gather(paths: &ClusterPaths, record: Option<&Record>, sockets: Vec<AdminSocket>) -> Status {
    let (api, mut nodes) = tokio::join!(ask_api(record), join_all(sockets.iter().map(ask_node)));
    let expected = record.map_or(&[][..], |record| &record.nodes);
    for missing in expected.iter().filter(|name| !sockets.iter().any(|socket| socket.node == **name)) {
        nodes.push(silent(missing, "it has no admin socket; look at its log".to_owned()));
    }
    set_lags(&mut nodes);
    Status {
        cluster: paths.name.clone(),
        phase: record.map(|record| record.phase),
        api,
        nodes,
        processes: record.map(processes).unwrap_or_default(),
    }
}

async fn ask_node(socket: &AdminSocket) -> NodeStatus {
    match socket.get::<AgentStatus>("/status").await {
        Ok(agent) => NodeStatus {
            node: socket.node.clone(),
            pid: socket.pid().await,
            synced: agent.ready,
            lag: None,
            agent: Some(agent),
            problem: None,
        },
        Err(problem) => silent(&socket.node, format!("{problem:#}")),
    }
}

fn silent(node: &str, problem: String) -> NodeStatus {
    NodeStatus {
        node: node.to_owned(),
        pid: None,
        synced: false,
        lag: None,
        agent: None,
        problem: Some(problem),
    }
}

/// Sequences compare only between nodes that read the same life of the feed.
fn set_lags(nodes: &mut [NodeStatus]) {
    let revisions: Vec<_> =
        nodes.iter().filter_map(|n| n.agent.as_ref()).map(|a| (a.epoch, a.sequence)).collect();
    for node in nodes {
        node.lag = node.agent.as_ref().and_then(|agent| {
            let same = revisions.iter().filter(|(epoch, _)| *epoch == agent.epoch);
            same.map(|(_, sequence)| sequence - agent.sequence.min(*sequence)).max()
        });
    }
}

async fn ask_api(record: Option<&Record>) -> Option<ApiStatus> {
    let record = record?;
    let ask = async {
        let paths = ClusterPaths::new(&record.name, Some(record.state_dir.clone()), None);
        let client = identity::client(&paths.kubeconfig()).await?;
        let request = hyper::Request::get("/readyz").body(Vec::new())?;
        client.request_text(request).await.context("the API server is not ready")
    };
    let problem = match timeout(PATIENCE, ask).await {
        Ok(Ok(_)) => None,
        Ok(Err(problem)) => Some(format!("{problem:#}")),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Some(ApiStatus { address: record.api.to_string(), ready: problem.is_none(), problem })
}

/// The daemons that are alive, from the ledger.
fn processes(record: &Record) -> Vec<Process> {
    let alive = record.items.iter().filter_map(|item| match item {
        Item::Process { role, id } if id.is_alive() => {
            Some(Process { name: process_name(role), pid: id.pid })
        }
        _ => None,
    });
    let mut all: Vec<_> = alive.collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// `node-1 agent` and `node-1 dns` for the roles of a node.
fn process_name(role: &str) -> String {
    match (role.strip_prefix("dns-"), role) {
        (Some(node), _) => format!("{node} dns"),
        (None, "server" | "containerd") => role.to_owned(),
        (None, node) => format!("{node} agent"),
    }
}

/// What does not answer.
fn problems(status: &Status) -> Vec<String> {
    let api = status.api.iter().filter_map(|api| Some(format!("API server: {}", api.problem.as_ref()?)));
    let nodes =
        status.nodes.iter().filter_map(|node| Some(format!("{}: {}", node.node, node.problem.as_ref()?)));
    api.chain(nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::{Status, problems, process_name, silent};

    #[test]
    fn processes_are_named_after_what_they_are() {
        for (role, name) in [
            ("server", "server"),
            ("containerd", "containerd"),
            ("node-1", "node-1 agent"),
            ("dns-node-1", "node-1 dns"),
        ] {
            assert_eq!(process_name(role), name);
        }
    }

    #[test]
    fn a_silent_node_is_a_problem_and_is_listed() {
        let nodes = vec![silent("node-1", "gone".to_owned())];
        let status = Status { cluster: "c".into(), phase: None, api: None, nodes, processes: Vec::new() };
        assert_eq!(problems(&status), ["node-1: gone"]);
    }
}
