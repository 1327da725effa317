//! Nodes that fall silent: their condition, their taints, their pods.

mod evict;
mod taints;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Pod},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::Resource;
use serde_json::json;

use crate::{
    cache::{Caches, Key, Touched},
    driver::Controller,
    plan::{Notice, Plan, Write},
    pods,
};

/// Where nodes keep their leases.
const LEASES: &str = "kube-node-lease";

/// How long a pod's node has to be missing before the pod is deleted: longer than any two watches are apart.
const ORPHAN_DELAY: Duration = Duration::from_secs(2);

/// Conditions that become Unknown with the node.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The controller.
#[derive(Debug)]
pub struct NodeLifecycle {
    grace: Duration,
    default_toleration: Duration,
    /// When each node last showed a sign of life, by our clock, and which: clocks of nodes are not compared with ours,
    /// and after a restart of the control plane every node has its full grace again.
    seen: Mutex<HashMap<String, (Sign, Timestamp)>>,
}

/// What a living node renews.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sign {
    lease: Option<MicroTime>,
    heartbeat: Option<Time>,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Ready,
    NotReady,
    Silent,
    /// Has registered and not said anything about itself yet.
    New,
}

impl NodeLifecycle {
    /// A node is silent after `grace` without a sign of life; pods that say nothing about failing nodes stay on one
    /// for `default_toleration` (upstream's admission writes the same into every pod).
    pub fn new(grace: Duration, default_toleration: Duration) -> Self {
        Self { grace, default_toleration, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, (Sign, Timestamp)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the node last showed a sign of life.
    fn silence(&self, name: &str, sign: Sign, now: Timestamp) -> Duration {
        let mut seen = self.seen();
        let last = seen.entry(name.to_owned()).or_insert_with(|| (sign.clone(), now));
        if last.0 != sign {
            *last = (sign, now);
        }
        Duration::try_from(now.duration_since(last.1)).unwrap_or_default()
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn keys(&self, _: &Caches, touched: &Touched) -> Vec<Key> {
        match touched {
            Touched::Node(changed) => vec![Key::of(changed.latest())],
            Touched::Lease(changed) => {
                let key = Key::of(changed.latest());
                if key.namespace == LEASES { vec![Key::new("", key.name)] } else { Vec::new() }
            }
            // A pod that comes to a node, or changes there, may have to leave it.
            Touched::Pod(changed) => {
                let moved = changed.old.as_deref().and_then(pods::node)
                    != changed.new.as_deref().and_then(pods::node);
                let node = changed.new.as_deref().and_then(pods::node).filter(|_| moved);
                node.map(|node| Key::new("", node)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, view: &Caches, key: &Key, now: Timestamp) -> Plan {
        let on_node = || {
            let all = view.pods.all();
            all.into_iter().filter(|pod| pods::node(pod) == Some(&key.name)).collect::<Vec<_>>()
        };
        let Some(node) = view.nodes.get(key) else { return self.without_node(&key.name, &on_node(), now) };
        let lease = view.leases.get(&Key::new(LEASES, &key.name));
        let sign = Sign {
            lease: lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone()),
            heartbeat: ready(&node).and_then(|ready| ready.last_heartbeat_time.clone()),
        };
        let silence = self.silence(&key.name, sign, now);
        let mut plan = Plan::default();
        let health = match ready(&node).map(|ready| ready.status.as_str()) {
            _ if silence >= self.grace => Health::Silent,
            None => Health::New,
            Some("True") => Health::Ready,
            Some("False") => Health::NotReady,
            // Unknown, and alive: its own next report says what it is.
            Some(_) => Health::Silent,
        };
        if silence < self.grace {
            plan.again(self.grace - silence);
        }
        if health == Health::Silent {
            plan.writes.extend(mark_unknown(&node, now));
        }
        // Where the status is written, what that returns brings us back here for the taints.
        if let Some(taints) = taints::wanted(&node, health, now).filter(|_| plan.writes.is_empty()) {
            plan.writes.push(Write::patch(node.as_ref(), json!({"spec": {"taints": taints}})));
        }
        let repels = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_ref())
            .is_some_and(|taints| taints.iter().any(|taint| taint.effect == "NoExecute"));
        if repels || health == Health::Silent {
            let on_node = on_node();
            if health == Health::Silent {
                plan.writes.extend(on_node.iter().filter_map(|pod| mark_not_ready(pod, now)));
            }
            evict::evict(&node, &on_node, self.default_toleration, now, &mut plan);
        }
        plan
    }
}

impl NodeLifecycle {
    /// Pods of a node that is gone have nobody to end them.
    fn without_node(&self, name: &str, on_node: &[std::sync::Arc<Pod>], now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if on_node.is_empty() {
            self.seen().remove(name);
            return plan;
        }
        // Not its last sign of life, but the first time it was missed.
        let gone = Sign::default();
        if self.silence(name, gone, now) < ORPHAN_DELAY {
            plan.again(ORPHAN_DELAY);
            return plan;
        }
        plan.writes = on_node.iter().map(|pod| Write::delete_now(pod.as_ref())).collect();
        plan
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Says that nothing is known of the node any more; nothing when that is said already.
fn mark_unknown(node: &Node, now: Timestamp) -> Vec<Write> {
    let mut conditions =
        node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let was_ready = ready(node).is_some_and(|ready| ready.status == "True");
    let mut changed = false;
    for type_ in REPORTED {
        let known = conditions.iter_mut().find(|condition| condition.type_ == type_);
        let (reason, message, heartbeat) = match &known {
            Some(known) if known.status == "Unknown" => continue,
            Some(known) => (
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
                known.last_heartbeat_time.clone(),
            ),
            None if type_ != "Ready" => continue,
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status.", None),
        };
        let condition = NodeCondition {
            type_: type_.into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(Time(now)),
        };
        match known {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
        changed = true;
    }
    if !changed {
        return Vec::new();
    }
    let mut writes = vec![Write::patch_read_status(node, &json!({"conditions": conditions}))];
    if was_ready {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        writes.push(Write::Notify(Notice {
            regarding: node.object_ref(&()),
            related: None,
            warning: false,
            reason: "NodeNotReady",
            note: format!("Node {name} status is now: NodeNotReady"),
        }));
    }
    writes
}

/// Takes a pod of a silent node out of its services. The kubelet says otherwise when it is back.
fn mark_not_ready(pod: &Pod, now: Timestamp) -> Option<Write> {
    if !pods::is_ready(pod) {
        return None;
    }
    let mut conditions = pod.status.as_ref()?.conditions.clone()?;
    let ready = conditions.iter_mut().find(|condition| condition.type_ == "Ready")?;
    ready.status = "False".into();
    ready.reason = Some("NodeNotReady".into());
    ready.last_transition_time = Some(Time(now));
    Some(Write::patch_read_status(pod, &json!({"conditions": conditions})))
}

#[cfg(test)]
mod tests;
