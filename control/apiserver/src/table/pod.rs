//! What a pod's row says: one word for the state of all its containers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{list, or};
use super::duration::human_duration;
use crate::resource::text;

const NONE: &str = "<none>";

/// What the containers' statuses amount to.
#[derive(Debug, Default)]
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    reason: String,
}

pub(super) fn ready(pod: &Value, _: Timestamp) -> Value {
    let summary = summarize(pod);
    json!(format!("{}/{}", summary.ready, summary.total))
}

pub(super) fn status(pod: &Value, _: Timestamp) -> Value {
    json!(summarize(pod).reason)
}

pub(super) fn restarts(pod: &Value, now: Timestamp) -> Value {
    let Summary { restarts, last_restart, .. } = summarize(pod);
    match last_restart {
        Some(at) if restarts != 0 => {
            json!(format!("{restarts} ({} ago)", human_duration(now.duration_since(at).as_secs())))
        }
        _ => json!(restarts.to_string()),
    }
}

pub(super) fn ip(pod: &Value, _: Timestamp) -> Value {
    json!(or(pod, "/status/podIPs/0/ip", or(pod, "/status/podIP", NONE)))
}

pub(super) fn node(pod: &Value, _: Timestamp) -> Value {
    json!(or(pod, "/spec/nodeName", NONE))
}

pub(super) fn nominated_node(pod: &Value, _: Timestamp) -> Value {
    json!(or(pod, "/status/nominatedNodeName", NONE))
}

pub(super) fn readiness_gates(pod: &Value, _: Timestamp) -> Value {
    let gates = list(pod, "/spec/readinessGates");
    let passed = gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType")) == "True").count();
    if gates.is_empty() { json!(NONE) } else { json!(format!("{passed}/{}", gates.len())) }
}

fn condition<'v>(pod: &'v Value, kind: &str) -> &'v str {
    let conditions = list(pod, "/status/conditions");
    conditions.iter().find(|one| text(one, "/type") == kind).map_or("", |one| text(one, "/status"))
}

/// The rules of upstream's `printPod`, in its order: init containers first, and what stands out wins.
fn summarize(pod: &Value) -> Summary {
    let phase = text(pod, "/status/phase");
    let sidecars = list(pod, "/spec/initContainers").iter().filter(|one| restartable(one)).count();
    let mut summary = Summary {
        total: list(pod, "/spec/containers").len() + sidecars,
        reason: or(pod, "/status/reason", phase).to_owned(),
        ..Summary::default()
    };
    let gated =
        |one: &&Value| text(one, "/type") == "PodScheduled" && text(one, "/reason") == "SchedulingGated";
    if list(pod, "/status/conditions").iter().any(|one| gated(&one)) {
        "SchedulingGated".clone_into(&mut summary.reason);
    }
    let (initializing, sidecar_restarts) = init_containers(pod, &mut summary);
    if !initializing || condition(pod, "Initialized") == "True" {
        (summary.restarts, summary.last_restart) = sidecar_restarts;
        containers(pod, &mut summary);
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        if text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

/// Whether an init container keeps the pod from starting, and the restarts of those that run beside the others.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, (i64, Option<Timestamp>)) {
    let specs = list(pod, "/spec/initContainers");
    let mut sidecars = (0, None);
    for (index, container) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let spec = specs.iter().find(|spec| text(spec, "/name") == text(container, "/name"));
        let sidecar = spec.is_some_and(restartable);
        count_restarts(container, &mut summary.restarts, &mut summary.last_restart);
        if sidecar {
            count_restarts(container, &mut sidecars.0, &mut sidecars.1);
        }
        let terminated = container.pointer("/state/terminated").filter(|state| !state.is_null());
        let waiting = text(container, "/state/waiting/reason");
        if terminated.is_some_and(|state| state.get("exitCode") == Some(&json!(0))) {
            continue;
        }
        if sidecar && container.get("started") == Some(&Value::Bool(true)) {
            summary.ready += usize::from(container.get("ready") == Some(&Value::Bool(true)));
            continue;
        }
        summary.reason = match terminated {
            Some(state) => format!("Init:{}", termination(state)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for container in list(pod, "/status/containerStatuses").iter().rev() {
        count_restarts(container, &mut summary.restarts, &mut summary.last_restart);
        let state = |name: &str| container.get("state")?.get(name).filter(|state| !state.is_null());
        let waiting = text(container, "/state/waiting/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if let Some(terminated) = state("terminated") {
            summary.reason = termination(terminated);
        } else if container.get("ready") == Some(&Value::Bool(true)) && state("running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let reason = if condition(pod, "Ready") == "True" { "Running" } else { "NotReady" };
        reason.clone_into(&mut summary.reason);
    }
}

fn termination(state: &Value) -> String {
    let number = |field| state.get(field).and_then(Value::as_i64).unwrap_or_default();
    match (text(state, "/reason"), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn count_restarts(container: &Value, restarts: &mut i64, last: &mut Option<Timestamp>) {
    *restarts += container.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
    let finished = text(container, "/lastState/terminated/finishedAt").parse::<Timestamp>().ok();
    *last = (*last).max(finished);
}

fn restartable(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

#[cfg(test)]
mod tests;
