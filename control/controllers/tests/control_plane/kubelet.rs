//! A kubelet that only pretends: pods on its nodes run at once, and end as soon as they are told to.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

/// Registers node `node-<number>` as Ready.
pub(crate) async fn register(client: &Client, number: usize) {
    let name = format!("node-{number}");
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": format!("172.29.0.{}", 10 + number)},
                          {"type": "InternalIP", "address": format!("fd00:29::{number}")}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    });
    let nodes = Api::<Node>::all(client.clone());
    let object: Node = serde_json::from_value(node.clone()).expect("a node");
    nodes.create(&PostParams::default(), &object).await.expect("registered");
    let status = Patch::Merge(json!({"status": node["status"]}));
    nodes.patch_status(&name, &PatchParams::default(), &status).await.expect("a status");
    renew(client, &name).await;
}

/// Renews a node's lease.
pub(crate) async fn renew(client: &Client, name: &str) {
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "renewTime": MicroTime(Timestamp::now())}});
    let lease: Lease = serde_json::from_value(lease).expect("a lease");
    if leases.create(&PostParams::default(), &lease).await.is_err() {
        let patch = Patch::Merge(json!({"spec": lease.spec}));
        leases.patch(name, &PatchParams::default(), &patch).await.expect("renewed");
    }
}

static ADDRESSES: AtomicU32 = AtomicU32::new(2);

/// Runs all pods of all nodes but those that are called `silent`.
pub(crate) async fn run(client: Client) {
    let pods = Api::<Pod>::all(client.clone());
    let mut events = watcher(pods, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Ok(Some(pod)) = events.try_next().await {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
        if node.contains("silent") {
            continue;
        }
        let name = pod.metadata.name.clone().expect("a name");
        let namespace = pod.metadata.namespace.as_deref().expect("a namespace");
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() {
            // Gone already is as good.
            drop(pods.delete(&name, &DeleteParams::default().grace_period(0)).await);
        } else if phase != Some("Running") {
            let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
            let status = json!({"status": {
                "phase": "Running", "podIP": format!("10.244.0.{number}"),
                "podIPs": [{"ip": format!("10.244.0.{number}")}, {"ip": format!("fd00:244::{number:x}")}],
                "conditions": [{"type": "PodScheduled", "status": "True"},
                               {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            }});
            drop(pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await);
        }
    }
}
