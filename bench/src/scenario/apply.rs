//! The workload is applied, its pods become Ready on both nodes.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};

use super::NAMESPACE;
use crate::{cluster::Cluster, screen::detail};

/// The manifest, which is also the one to read and to try by hand.
pub const MANIFEST: &str = include_str!("../../manifests/demo.yaml");

/// Where the echo pods run.
pub struct Placed {
    /// Node by pod.
    pub nodes: BTreeMap<String, String>,
}

/// Applies the workload and waits for it.
pub async fn run(cluster: &Cluster) -> Result<Placed> {
    let kubectl = cluster.kubectl();
    kubectl.apply(MANIFEST).await?;
    kubectl.run(&["-n", NAMESPACE, "rollout", "status", "deployment/echo", "--timeout=60s"]).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client().await?, NAMESPACE);
    let list = pods.list(&ListParams::default().labels("app=echo")).await?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let nodes: BTreeMap<_, _> = list.iter().map(|pod| (pod.name_any(), node(pod))).collect();
    ensure!(nodes.len() == 3, "three echo pods were asked for, {} exist", nodes.len());
    let distinct: std::collections::BTreeSet<_> = nodes.values().collect();
    ensure!(distinct.len() > 1, "all echo pods landed on one node: {nodes:?}");
    Ok(Placed { nodes })
}

impl Placed {
    /// Prints one line a pod.
    pub fn print(&self) {
        for (pod, node) in &self.nodes {
            detail(format!("{pod}  on  {node}"));
        }
    }
}
