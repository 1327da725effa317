//! The taints that say in what state a node is.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::Health;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The taints a node should have; `None` when it has them. Those of others are kept.
pub(super) fn wanted(node: &Node, health: Health, now: Timestamp) -> Option<Vec<Taint>> {
    let key = match health {
        Health::New => return None,
        Health::Ready => None,
        Health::NotReady => Some(NOT_READY),
        Health::Silent => Some(UNREACHABLE),
    };
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let ours = |taint: &Taint| {
        [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) && taint.effect != "PreferNoSchedule"
    };
    let mut taints: Vec<Taint> =
        old.iter().filter(|taint| !ours(taint) || Some(taint.key.as_str()) == key).cloned().collect();
    for effect in ["NoSchedule", "NoExecute"] {
        let Some(key) = key else { break };
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (taints != old).then_some(taints)
}
