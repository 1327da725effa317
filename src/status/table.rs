//! The status as tables.

use fairlead_agent::{MapFill, Status as AgentStatus};

use super::{NodeStatus, Status, problems};
use crate::output::{columns, count};

/// The cluster in a line, then its nodes with what they complain of, then its daemons.
pub(super) fn render(status: &Status) -> String {
    let api = match &status.api {
        Some(api) if api.ready => format!("API server {} ready", api.address),
        Some(api) => format!("API server {} NOT ready", api.address),
        None => "API server elsewhere".to_owned(),
    };
    let header = [
        "NODE",
        "PID",
        "MODE",
        "SYNCED",
        "FEED",
        "REVISION",
        "LAG",
        "PODS",
        "INTERFACES",
        "XDP",
        "DROPS",
        "MAPS",
    ];
    let mut text = format!("cluster {}: {api}\n\n", status.cluster);
    text += &columns(&header, status.nodes.iter().map(row));
    for problem in problems(status) {
        text += &format!("{problem}\n");
    }
    for node in &status.nodes {
        for problem in node.agent.iter().flat_map(complaints) {
            text += &format!("{}: {problem}\n", node.node);
        }
    }
    if !status.processes.is_empty() {
        let rows = status.processes.iter().map(|process| vec![process.name.clone(), process.pid.to_string()]);
        text += &format!("\n{}", columns(&["PROCESS", "PID"], rows));
    }
    text
}

fn row(node: &NodeStatus) -> Vec<String> {
    let pid = node.pid.map_or_else(dash, |pid| pid.to_string());
    let synced = if node.synced { "yes" } else { "no" };
    let Some(agent) = &node.agent else {
        let mut row = vec![node.node.clone(), pid, dash(), synced.to_owned()];
        row.resize_with(12, dash);
        return row;
    };
    vec![
        node.node.clone(),
        pid,
        agent.proxy_mode.clone(),
        synced.to_owned(),
        if agent.connected { "connected".to_owned() } else { "interrupted".to_owned() },
        agent.sequence.to_string(),
        node.lag.map_or_else(dash, |lag| lag.to_string()),
        agent.pods.to_string(),
        interfaces(&agent.interfaces),
        agent.xdp.clone(),
        count(agent.drops.values().sum()),
        agent.maps.iter().map(fill).collect::<Vec<_>>().join("  "),
    ]
}

/// Those by which clients outside are served; rules serve by all.
fn interfaces(names: &[String]) -> String {
    if names.is_empty() { dash() } else { names.join(",") }
}

/// `services 12/65.5 k`.
fn fill(map: &MapFill) -> String {
    let name = map.name.to_lowercase();
    format!("{name} {}/{}", count(map.used), count(map.capacity))
}

fn complaints(agent: &AgentStatus) -> Vec<String> {
    let mut all = agent.problems.clone();
    all.extend(agent.last_error.iter().map(|error| format!("the last sync failed: {error}")));
    if !agent.connected {
        all.push(format!("feed: {}", agent.feed));
    }
    if let Some(last) = &agent.last_repair {
        all.push(format!(
            "somebody else removes or changes what the node needs: put right {} times, last {last}",
            agent.repairs
        ));
    }
    if agent.events_lost > 0 {
        all.push(format!("{} flow records were lost", agent.events_lost));
    }
    all
}

fn dash() -> String {
    "-".to_owned()
}
