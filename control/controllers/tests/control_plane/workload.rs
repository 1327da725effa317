//! From a Deployment to endpoints, and through the loss of a pod.

use std::collections::BTreeMap;

use fairlead_controllers::ControllersConfig;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::{ControlPlane, deployment, eventually};

fn ready_addresses(slices: &[EndpointSlice]) -> Vec<String> {
    let v4 = slices.iter().filter(|slice| slice.address_type == "IPv4");
    let endpoints = v4.flat_map(|slice| slice.endpoints.iter().flatten());
    let ready =
        endpoints.filter(|one| one.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
    ready.flat_map(|one| one.addresses.clone()).collect()
}

async fn slices_of(plane: &ControlPlane, namespace: &str, service: &str) -> Vec<EndpointSlice> {
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    plane.api::<EndpointSlice>(namespace).list(&params).await.expect("listed").items
}

async fn available(plane: &ControlPlane, name: &str, replicas: i32) -> Option<Deployment> {
    let deployment = plane.api::<Deployment>("demo").get(name).await.expect("it exists");
    let status = deployment.status.clone().unwrap_or_default();
    let complete = status.available_replicas == Some(replicas)
        && status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.observed_generation == deployment.metadata.generation;
    complete.then_some(deployment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_endpoints_and_survives_the_loss_of_a_pod() {
    let plane = ControlPlane::start(2, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    plane
        .create::<Service>(
            "demo",
            json!({"metadata": {"name": "echo"}, "spec": {
            "selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        )
        .await;
    plane.create::<Deployment>("demo", deployment("echo", 4)).await;
    let deployment = eventually("the deployment is complete", || available(&plane, "echo", 4)).await;
    assert_eq!(deployment.metadata.annotations.expect("some")["deployment.kubernetes.io/revision"], "1");
    assert_eq!(plane.list::<ReplicaSet>("demo").await.len(), 1);

    let pods = plane.list::<Pod>("demo").await;
    let mut per_node = BTreeMap::<String, usize>::new();
    for pod in &pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).expect("bound");
        *per_node.entry(node).or_default() += 1;
    }
    assert_eq!(per_node.into_values().collect::<Vec<_>>(), [2, 2]);
    let addresses = eventually("four endpoints are ready", || async {
        let addresses = ready_addresses(&slices_of(&plane, "demo", "echo").await);
        (addresses.len() == 4).then_some(addresses)
    })
    .await;

    let victim = &pods[0];
    let address = victim.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
    assert!(addresses.contains(&address));
    let name = victim.metadata.name.as_deref().expect("a name");
    plane.delete::<Pod>("demo", name, DeleteParams::default()).await;
    eventually("another pod serves instead", || async {
        let addresses = ready_addresses(&slices_of(&plane, "demo", "echo").await);
        (addresses.len() == 4 && !addresses.contains(&address)).then_some(())
    })
    .await;
    eventually("events tell the story", || async {
        let reasons: Vec<_> =
            plane.list::<Event>("demo").await.into_iter().filter_map(|event| event.reason).collect();
        let expected = ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"];
        expected.iter().all(|wanted| reasons.iter().any(|reason| reason == wanted)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_image_rolls_out_and_the_deployment_scales() {
    let plane = ControlPlane::start(2, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    plane.create::<Deployment>("demo", deployment("echo", 3)).await;
    eventually("the deployment is complete", || available(&plane, "echo", 3)).await;
    let api = plane.api::<Deployment>("demo");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "echo:2"}]}}}});
    api.patch("echo", &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched");
    all_run(&plane, "echo:2").await;
    assert_eq!(plane.list::<ReplicaSet>("demo").await.len(), 2);
    let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
    api.patch("echo", &PatchParams::default(), &patch).await.expect("scaled");
    eventually("one is left", || available(&plane, "echo", 1)).await;
}

/// Waits until three pods run this image and no other.
async fn all_run(plane: &ControlPlane, image: &str) {
    eventually(image, || async {
        available(plane, "echo", 3).await?;
        let images = plane.list::<Pod>("demo").await.into_iter();
        let images: Vec<_> = images.filter_map(|pod| pod.spec?.containers[0].image.clone()).collect();
        (images.len() == 3 && images.iter().all(|one| one == image)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_rolls_a_deployment_back_to_an_earlier_revision() {
    let plane = ControlPlane::start(2, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    plane.create::<Deployment>("demo", deployment("echo", 3)).await;
    all_run(&plane, "echo").await;
    plane.kubectl("-n demo set image deployment/echo c=echo:2").await;
    all_run(&plane, "echo:2").await;
    let revisions = async || {
        let history = plane.kubectl("-n demo rollout history deployment/echo").await;
        let first = |line: &str| line.split(' ').next().and_then(|word| word.parse::<u32>().ok());
        history.lines().filter_map(first).collect::<Vec<_>>()
    };
    assert_eq!(revisions().await, [1, 2]);
    let first = plane.kubectl("-n demo rollout history deployment/echo --revision=1").await;
    assert!(first.contains("Image:\techo\n"), "{first}");

    let undone = plane.kubectl("-n demo rollout undo deployment/echo").await;
    assert!(undone.contains("rolled back"), "{undone}");
    all_run(&plane, "echo").await;
    assert_eq!(revisions().await, [2, 3], "the first revision is the newest");
    assert_eq!(plane.list::<ReplicaSet>("demo").await.len(), 2, "its replica set is used again");
    plane.kubectl("-n demo rollout undo deployment/echo --to-revision=2").await;
    all_run(&plane, "echo:2").await;
    assert_eq!(revisions().await, [3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_its_pod_networks_and_serves_the_cluster_dns() {
    let plane = ControlPlane::start(2, ControllersConfig::default()).await;
    let nodes = Api::<Node>::all(plane.client.clone());
    let networks = eventually("both nodes have networks", || async {
        let nodes = nodes.list(&ListParams::default()).await.expect("listed").items;
        let mut networks: Vec<_> = nodes
            .into_iter()
            .filter_map(|node| node.spec?.pod_cidrs)
            .filter(|cidrs| !cidrs.is_empty())
            .collect();
        networks.sort();
        (networks.len() == 2).then_some(networks)
    })
    .await;
    assert_eq!(networks, [["10.244.0.0/24", "fd00:244::/64"], ["10.244.1.0/24", "fd00:244:0:1::/64"]]);
    let slices = eventually("the cluster DNS has endpoints on both nodes", || async {
        let slices = slices_of(&plane, "kube-system", "kube-dns").await;
        (ready_addresses(&slices).len() == 2).then_some(slices)
    })
    .await;
    assert_eq!(slices.len(), 2, "one per family");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_does_not_fit_says_why_and_is_placed_when_a_node_comes() {
    let plane = ControlPlane::start(0, ControllersConfig::default()).await;
    plane.create_namespace("demo").await;
    let spec = json!({"nodeSelector": {"kubernetes.io/hostname": "node-2"}, "containers": [{"name": "c", "image": "echo"}]});
    plane.create::<Pod>("demo", json!({"metadata": {"name": "p"}, "spec": spec})).await;
    crate::kubelet::register(&plane.client, 1).await;
    eventually("the pod says why", || async {
        let pod = plane.api::<Pod>("demo").get("p").await.expect("it exists");
        let conditions = pod.status?.conditions?;
        let scheduled = conditions.into_iter().find(|one| one.type_ == "PodScheduled")?;
        (scheduled.message?
            == "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
            .then_some(())
    })
    .await;
    crate::kubelet::register(&plane.client, 2).await;
    eventually("the pod is bound", || async {
        let pod = plane.api::<Pod>("demo").get("p").await.expect("it exists");
        pod.spec?.node_name.filter(|node| node == "node-2")
    })
    .await;
}
