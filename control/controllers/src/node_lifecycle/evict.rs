//! Pods that do not tolerate their node's taints any longer.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    jiff::Timestamp,
};
use kube::Resource;

use super::taints::{NOT_READY, UNREACHABLE};
use crate::{
    meta::is_deleting,
    plan::{Announce, Plan, Write},
    pods::is_finished,
};

/// Deletes the pods whose time on the node is over, and comes back for the next one.
pub(super) fn evict(node: &Node, pods: &[Arc<Pod>], default: Duration, now: Timestamp, plan: &mut Plan) {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taints: Vec<&Taint> = taints.filter(|taint| taint.effect == "NoExecute").collect();
    if taints.is_empty() {
        return;
    }
    for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata) && !is_finished(pod)) {
        let left = taints.iter().filter_map(|taint| time_left(pod, taint, default, now)).min();
        match left {
            None => {}
            Some(left) if left.is_zero() => {
                let announce = Announce {
                    regarding: pod.object_ref(&()),
                    done: "TaintManagerEviction",
                    failed: "TaintManagerEviction",
                    what: "Marking for deletion Pod",
                };
                plan.writes.push(Write::delete(pod.as_ref(), Some(announce)));
            }
            Some(left) => plan.again(left),
        }
    }
}

/// How long a pod may stay in spite of a taint; `None` is for ever.
fn time_left(pod: &Pod, taint: &Taint, default: Duration, now: Timestamp) -> Option<Duration> {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let tolerations: Vec<&Toleration> =
        tolerations.filter(|toleration| tolerates(toleration, taint)).collect();
    let secs = if tolerations.is_empty() {
        let by_default = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        if by_default { default } else { Duration::ZERO }
    } else {
        let limits = tolerations.iter().filter_map(|toleration| toleration.toleration_seconds);
        Duration::from_secs(u64::try_from(limits.min()?).unwrap_or(0))
    };
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    Some(secs.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default()))
}

/// core/v1 `Toleration.ToleratesTaint`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    let exists = text(&toleration.operator) == "Exists";
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || text(&toleration.value) == text(&taint.value))
}
