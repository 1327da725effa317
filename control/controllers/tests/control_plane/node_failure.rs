//! A node that falls silent, and one that is removed.

use std::time::Duration;

use fairlead_controllers::ControllersConfig;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::{
    kubelet,
    support::{ControlPlane, deployment, eventually},
};

fn on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_silent_node_are_replaced_on_another_one() {
    let config =
        ControllersConfig { node_monitor_grace: Duration::from_secs(2), ..ControllersConfig::default() };
    let plane = ControlPlane::start(2, config).await;
    plane.create_namespace("demo").await;
    let mut impatient = deployment("echo", 2);
    impatient["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]);
    plane.create::<Deployment>("demo", impatient).await;
    let living = |count: usize| {
        let plane = &plane;
        move || async move {
            // Only one of the nodes goes on renewing its lease.
            kubelet::renew(&plane.client, "node-1").await;
            let pods = plane.list::<Pod>("demo").await;
            let on_first =
                pods.iter().filter(|pod| on(pod, "node-1") && pod.metadata.deletion_timestamp.is_none());
            (on_first.count() == count).then_some(())
        }
    };
    eventually("the pods are spread", living(1)).await;
    eventually("both pods are on the node that lives", living(2)).await;
    let node = Api::<Node>::all(plane.client.clone()).get("node-2").await.expect("it is registered");
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    assert!(conditions.iter().any(|one| one.type_ == "Ready" && one.status == "Unknown"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_removed_node_are_replaced() {
    let plane = ControlPlane::start(2, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    plane.create::<Deployment>("demo", deployment("echo", 2)).await;
    eventually("both pods are bound", || async {
        let pods = plane.list::<Pod>("demo").await;
        let bound = |node: &str| pods.iter().filter(|pod| on(pod, node)).count();
        (bound("node-1") == 1 && bound("node-2") == 1).then_some(())
    })
    .await;
    let nodes = Api::<Node>::all(plane.client.clone());
    nodes.delete("node-2", &DeleteParams::default()).await.expect("removed");
    eventually("both pods are on the node that is left", || async {
        let pods = plane.list::<Pod>("demo").await;
        (pods.len() == 2 && pods.iter().all(|pod| on(pod, "node-1"))).then_some(())
    })
    .await;
}
