//! What of an object is kept: not who owns which field, and of pods, of which there are many, only what a controller
//! asks for.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{Container, ContainerStatus, Namespace, Node, Pod, PodSpec, PodStatus, Service},
    discovery::v1::EndpointSlice,
};
use kube::Resource;

use crate::replica_set::DELETION_COST;

/// A kind that is kept.
pub trait Slim: Resource<DynamicType = ()> {
    /// Drops what nobody asks for.
    fn slim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

macro_rules! whole {
    ($($kind:ident),*) => {
        $(impl Slim for $kind {})*
    };
}

// The API replaces what was read of slices and services, so these are whole but for their owners.
whole!(Deployment, ReplicaSet, Service, EndpointSlice, Node, Lease, Namespace);

impl Slim for Pod {
    /// Pods are patched and deleted, never replaced; a patch of a list in their status needs the list whole.
    fn slim(&mut self) {
        let meta = &mut self.metadata;
        meta.managed_fields = None;
        let cost = meta.annotations.take().and_then(|mut all| all.remove_entry(DELETION_COST));
        meta.annotations = cost.map(|cost| [cost].into());
        self.spec = self.spec.take().map(|spec| PodSpec {
            containers: spec.containers.into_iter().map(ports).collect(),
            init_containers: spec.init_containers.map(|all| all.into_iter().map(ports).collect()),
            node_name: spec.node_name,
            tolerations: spec.tolerations,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            ..PodSpec::default()
        });
        self.status = self.status.take().map(|status| PodStatus {
            phase: status.phase,
            conditions: status.conditions,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            container_statuses: status.container_statuses.map(|all| all.into_iter().map(restarts).collect()),
            ..PodStatus::default()
        });
    }
}

fn ports(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    }
}

fn restarts(status: ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        name: status.name,
        restart_count: status.restart_count,
        ready: status.ready,
        ..ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_pod_is_kept_what_controllers_ask_for() {
        let kept = json!({
            "metadata": {
                "name": "a", "uid": "1", "resourceVersion": "7", "labels": { "app": "web" },
                "annotations": { DELETION_COST: "3" }, "finalizers": ["f"],
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2" }],
            },
            "spec": {
                "nodeName": "n", "hostname": "h", "subdomain": "s",
                "tolerations": [{ "key": "k", "operator": "Exists" }],
                "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 80 }] }],
                "initContainers": [{ "name": "i", "restartPolicy": "Always" }],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }],
                "conditions": [{ "type": "Ready", "status": "True", "message": "m" }],
            },
        });
        let mut full = kept.clone();
        full["metadata"]["annotations"]["other"] = json!("x");
        full["metadata"]["managedFields"] = json!([{ "manager": "m", "fieldsV1": { "f:spec": {} } }]);
        full["spec"]["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
        full["spec"]["containers"][0]["image"] = json!("i");
        full["status"]["message"] = json!("m");
        let mut pod: Pod = serde_json::from_value(full).expect("a pod");
        pod.slim();
        assert_eq!(pod, serde_json::from_value(kept).expect("a pod"));
    }
}
