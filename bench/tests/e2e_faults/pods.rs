//! Pods that cannot run: what `kubectl get pod` and `kubectl get events` say about them.

use anyhow::{Context, Result, ensure};
use fairlead_bench::cluster::{Cluster, succeed};
use futures::future::try_join_all;
use serde_json::Value;

use crate::support::eventually;

const MANIFEST: &str = include_str!("pods.yaml");

/// A pod, where its status says why, the words there, and an Event's reason and words.
struct Case {
    pod: &'static str,
    status: fn(&Value) -> String,
    words: &'static [&'static str],
    event: (&'static str, &'static str),
}

const CASES: &[Case] = &[
    Case {
        pod: "no-such-image",
        status: waiting,
        words: &[
            "ImagePullBackOff",
            "nowhere.example/none:1 is not on this node",
            "OCI archive",
            "target/images",
        ],
        event: ("Failed", "put an OCI archive (*.tar) of it into"),
    },
    Case {
        pod: "no-such-label",
        status: unscheduled,
        words: &[
            "Pending",
            "Unschedulable",
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
        ],
        event: ("FailedScheduling", "0/2 nodes are available"),
    },
    Case {
        pod: "too-large",
        status: unscheduled,
        words: &["Pending", "Unschedulable", "0/2 nodes are available: 2 Insufficient cpu."],
        event: ("FailedScheduling", "Insufficient cpu"),
    },
    Case {
        pod: "fails",
        status: restarted,
        words: &["CrashLoopBackOff", "\"exitCode\":1"],
        event: ("BackOff", "restarting failed container"),
    },
    Case {
        pod: "no-such-command",
        status: restarted,
        words: &["StartError", "/bin/nothing", "no such file or directory"],
        event: ("Failed", "/bin/nothing"),
    },
    Case {
        pod: "not-alive",
        status: restarted,
        words: &["\"lastState\":{\"terminated\""],
        event: ("Unhealthy", "Liveness probe failed"),
    },
];

fn waiting(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["state"]["waiting"].to_string()
}

fn unscheduled(pod: &Value) -> String {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let scheduled =
        conditions.filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    format!("{} {}", pod["status"]["phase"], scheduled.map(Value::to_string).collect::<String>())
}

fn restarted(pod: &Value) -> String {
    let container = &pod["status"]["containerStatuses"][0];
    if container["restartCount"].as_u64() < Some(1) { String::new() } else { container.to_string() }
}

/// Applies them all and waits until each says what is wrong.
pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    cluster.kubectl().apply(MANIFEST).await?;
    try_join_all(CASES.iter().map(|case| says_why(cluster, case))).await?;
    is_refused_at_once(cluster).await?;
    cluster.kubectl().run(&["delete", "pods", "--all", "--timeout=60s"]).await.map(drop)
}

async fn says_why(cluster: &Cluster, case: &Case) -> Result<()> {
    let kubectl = cluster.kubectl();
    let mut last = String::new();
    let told = eventually(&format!("the status of {} says {:?}", case.pod, case.words), async || {
        last = (case.status)(&kubectl.json(&["get", "pod", case.pod]).await?);
        Ok(case.words.iter().all(|word| last.contains(word)).then_some(()))
    })
    .await;
    told.with_context(|| format!("the status of {} says {last}", case.pod))?;
    let (reason, words) = case.event;
    let selector = format!("--field-selector=involvedObject.name={},reason={reason}", case.pod);
    eventually(&format!("an Event {reason} of {} says {words:?}", case.pod), async || {
        let events = kubectl.json(&["get", "events", &selector]).await?;
        let said =
            events["items"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
        Ok(said.into_iter().any(|message| message.contains(words)).then_some(()))
    })
    .await
}

/// A connection to a service without endpoints is refused before a packet is sent, and `fairlead flows` tells it.
async fn is_refused_at_once(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let text = eventually("the caller reports a failure", async || {
        let text = kubectl.run(&["logs", "caller"]).await?;
        Ok(text.contains("Connection refused").then_some(text))
    })
    .await?;
    let failures = || text.lines().filter(|line| line.contains("\"failure\""));
    let other = failures().find(|line| !line.contains("Connection refused (os error 111)"));
    ensure!(other.is_none(), "a connection failed in another way: {other:?}");
    eventually("`fairlead flows --verdict denied` names caller and service", async || {
        let flows = cluster.json(&["flows", "--verdict", "denied", "--pod", "default/caller"]).await?;
        let named = |flow: &Value| flow["service"]["name"] == "empty" && flow["reason"] == "no-endpoints";
        Ok(flows.as_array().into_iter().flatten().any(named).then_some(()))
    })
    .await?;
    // A pod has its name from its first connection on, before the cluster knows its address.
    let flows = cluster.json(&["flows", "--verdict", "denied", "--last", "10000"]).await?;
    let unnamed = |flow: &&Value| flow["service"]["name"] == "empty" && flow["source"]["pod"] != "caller";
    let found = flows.as_array().into_iter().flatten().find(unnamed);
    ensure!(found.is_none(), "a flow does not name its pod: {found:?}");
    let line = succeed(cluster.fairlead("flows")?.args(["--verdict", "denied", "--last", "1"])).await?;
    let is_read = line.contains("default/caller → default/empty (")
        && line.trim_end().ends_with("denied: no-endpoints");
    ensure!(is_read, "flows printed {line:?}");
    Ok(())
}
