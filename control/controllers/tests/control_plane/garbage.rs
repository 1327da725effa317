//! What becomes of objects whose owner is deleted.

use fairlead_controllers::ControllersConfig;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::api::DeleteParams;

use crate::support::{ControlPlane, deployment, eventually};

async fn with_deployment() -> ControlPlane {
    let plane = ControlPlane::start(1, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    plane.create::<Deployment>("demo", deployment("echo", 2)).await;
    eventually("two pods exist", || async { (plane.list::<Pod>("demo").await.len() == 2).then_some(()) })
        .await;
    plane
}

async fn everything_goes(plane: &ControlPlane) {
    eventually("nothing is left", || async {
        let left = plane.list::<ReplicaSet>("demo").await.len() + plane.list::<Pod>("demo").await.len();
        (left == 0 && plane.list::<Deployment>("demo").await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_dependents_follow_their_owner() {
    let plane = with_deployment().await;
    plane.delete::<Deployment>("demo", "echo", DeleteParams::background()).await;
    everything_goes(&plane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_the_owner_goes_last() {
    let plane = with_deployment().await;
    plane.delete::<Deployment>("demo", "echo", DeleteParams::foreground()).await;
    everything_goes(&plane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted_again() {
    let plane = with_deployment().await;
    plane.delete::<Deployment>("demo", "echo", DeleteParams::orphan()).await;
    eventually("the deployment is gone", || async {
        plane.list::<Deployment>("demo").await.is_empty().then_some(())
    })
    .await;
    let sets = plane.list::<ReplicaSet>("demo").await;
    assert_eq!(sets.len(), 1);
    assert!(sets[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
    let again = plane.create::<Deployment>("demo", deployment("echo", 2)).await;
    eventually("the replica set is adopted", || async {
        let sets = plane.list::<ReplicaSet>("demo").await;
        let owner = sets[0].metadata.owner_references.clone()?.pop()?;
        (sets.len() == 1 && Some(owner.uid) == again.metadata.uid).then_some(())
    })
    .await;
    assert_eq!(plane.list::<Pod>("demo").await.len(), 2);
}
