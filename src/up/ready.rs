//! Waiting for a node to be Ready.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::{Api, Client};

/// How long to wait when the watch was refused, which it is while the API server starts.
const RETRY: Duration = Duration::from_millis(50);

/// Waits until a node says that it is Ready, however long the API server takes to answer. What it said in an earlier
/// life, and is still stored, does not count.
pub(super) async fn ready(client: Client, name: &str, since: Timestamp) -> String {
    let nodes = Api::<Node>::all(client);
    let is_ready = move |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter().any(|c| c.type_ == "Ready" && c.status == "True" && is_since(c, since))
        })
    };
    while let Err(problem) = kube::runtime::wait::await_condition(nodes.clone(), name, is_ready).await {
        tracing::debug!(%problem, name, "waiting for the node");
        tokio::time::sleep(RETRY).await;
    }
    name.to_owned()
}

/// The API writes whole seconds.
fn is_since(condition: &NodeCondition, since: Timestamp) -> bool {
    condition.last_heartbeat_time.as_ref().is_some_and(|time| time.0.as_second() >= since.as_second())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};

    use super::is_since;

    #[test]
    fn a_condition_of_an_earlier_life_does_not_count() {
        let began = Timestamp::from_millisecond(1_700_000_000_900).unwrap();
        let at = |second| NodeCondition {
            last_heartbeat_time: Some(Time(Timestamp::from_second(second).unwrap())),
            ..NodeCondition::default()
        };
        assert!(is_since(&at(1_700_000_000), began), "the API writes whole seconds");
        assert!(!is_since(&at(1_699_999_999), began));
        assert!(!is_since(&NodeCondition::default(), began));
    }
}
