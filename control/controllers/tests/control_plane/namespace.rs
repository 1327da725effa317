//! The end of a namespace.

use fairlead_controllers::ControllersConfig;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Namespace, Pod, Service},
};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::support::{ControlPlane, deployment, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_everything_in_it() {
    let plane = ControlPlane::start(1, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    plane.create::<ConfigMap>("demo", json!({"metadata": {"name": "settings"}, "data": {"a": "b"}})).await;
    plane
        .create::<Service>("demo", json!({"metadata": {"name": "echo"}, "spec": {"selector": {"app": "echo"}, "ports": [{"port": 80}]}}))
        .await;
    plane.create::<Deployment>("demo", deployment("echo", 3)).await;
    eventually("three pods run", || async {
        let pods = plane.list::<Pod>("demo").await;
        let running =
            |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        (pods.iter().filter(running).count() == 3).then_some(())
    })
    .await;
    let namespaces = Api::<Namespace>::all(plane.client.clone());
    namespaces.delete("demo", &DeleteParams::default()).await.expect("deleted");
    eventually("the namespace is gone", || async {
        namespaces.get_opt("demo").await.expect("asked").is_none().then_some(())
    })
    .await;
    assert!(plane.list::<Pod>("demo").await.is_empty());
    assert!(plane.list::<ReplicaSet>("demo").await.is_empty());
    assert!(
        plane
            .list::<ConfigMap>("demo")
            .await
            .iter()
            .all(|map| map.metadata.name.as_deref() != Some("settings"))
    );
}
