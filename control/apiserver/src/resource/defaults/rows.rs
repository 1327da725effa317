//! The rows: every default of every kind.

use super::compute;
use super::{Default, Set, When};

mod cluster;
mod workloads;

pub(crate) use cluster::*;
pub(crate) use workloads::*;

type Compute = fn(&compute::Fields) -> Option<serde_json::Value>;

const fn text(path: &'static str, value: &'static str) -> Default {
    Default { path, when: When::Absent, value: Set::Text(value) }
}

const fn int(path: &'static str, value: i64) -> Default {
    Default { path, when: When::Absent, value: Set::Int(value) }
}

const fn flag(path: &'static str, value: bool) -> Default {
    Default { path, when: When::Absent, value: Set::Bool(value) }
}

const fn object(path: &'static str) -> Default {
    Default { path, when: When::Absent, value: Set::Object }
}

const fn when(
    sibling: &'static str,
    values: &'static [&'static str],
    Default { path, value, .. }: &Default,
) -> Default {
    Default { path, when: When::AbsentAnd(sibling, values), value: *value }
}

const fn compute(path: &'static str, f: Compute) -> Default {
    Default { path, when: When::Absent, value: Set::Compute(f) }
}

const fn recompute(path: &'static str, f: Compute) -> Default {
    Default { path, when: When::Always, value: Set::Compute(f) }
}

/// Every object.
pub(crate) const OBJECT: &[Default] = &[object("metadata")];

/// A pod's spec and a template's alike.
pub(crate) const POD_SPEC: &[Default] = &[
    text("restartPolicy", "Always"),
    text("dnsPolicy", "ClusterFirst"),
    text("schedulerName", "default-scheduler"),
    int("terminationGracePeriodSeconds", 30),
    object("securityContext"),
    // A deprecated alias that upstream keeps equal.
    compute("serviceAccountName", compute::service_account_name),
    compute("serviceAccount", compute::service_account),
    compute("volumes[*].emptyDir", compute::empty_dir),
    int("volumes[*].secret.defaultMode", 0o644),
    int("volumes[*].configMap.defaultMode", 0o644),
    int("volumes[*].downwardAPI.defaultMode", 0o644),
    text("volumes[*].downwardAPI.items[*].fieldRef.apiVersion", "v1"),
    int("volumes[*].projected.defaultMode", 0o644),
    int("volumes[*].projected.sources[*].serviceAccountToken.expirationSeconds", 3600),
    text("volumes[*].projected.sources[*].downwardAPI.items[*].fieldRef.apiVersion", "v1"),
    text("volumes[*].hostPath.type", ""),
    recompute("containers", compute::host_ports),
];

/// A container, an init container and an ephemeral container alike.
pub(crate) const CONTAINER: &[Default] = &[
    compute("imagePullPolicy", compute::image_pull_policy),
    text("terminationMessagePath", "/dev/termination-log"),
    text("terminationMessagePolicy", "File"),
    object("resources"),
    recompute("resources.limits", compute::limits_as_text),
    recompute("resources.requests", compute::requests_as_text),
    text("ports[*].protocol", "TCP"),
    text("env[*].valueFrom.fieldRef.apiVersion", "v1"),
    text("lifecycle.postStart.httpGet.path", "/"),
    text("lifecycle.postStart.httpGet.scheme", "HTTP"),
    text("lifecycle.preStop.httpGet.path", "/"),
    text("lifecycle.preStop.httpGet.scheme", "HTTP"),
];

/// A liveness, readiness or startup probe.
pub(crate) const PROBE: &[Default] = &[
    int("timeoutSeconds", 1),
    int("periodSeconds", 10),
    int("successThreshold", 1),
    int("failureThreshold", 3),
    text("httpGet.path", "/"),
    text("httpGet.scheme", "HTTP"),
    text("grpc.service", ""),
];

/// A pod, but not a template.
pub(crate) const POD: &[Default] = &[
    flag("spec.enableServiceLinks", true),
    text("spec.serviceAccountName", "default"),
    text("spec.serviceAccount", "default"),
    recompute("spec.containers[*].resources.requests", compute::requests_from_limits),
    recompute("spec.initContainers[*].resources.requests", compute::requests_from_limits),
];

/// A deployment.
pub(crate) const DEPLOYMENT: &[Default] = &[
    int("spec.replicas", 1),
    int("spec.revisionHistoryLimit", 10),
    int("spec.progressDeadlineSeconds", 600),
    object("spec.strategy"),
    text("spec.strategy.type", "RollingUpdate"),
    when("type", &["RollingUpdate"], &object("spec.strategy.rollingUpdate")),
    text("spec.strategy.rollingUpdate.maxUnavailable", "25%"),
    text("spec.strategy.rollingUpdate.maxSurge", "25%"),
    object("spec.template.metadata"),
];

/// A replica set.
pub(crate) const REPLICA_SET: &[Default] = &[int("spec.replicas", 1), object("spec.template.metadata")];

/// A service.
pub(crate) const SERVICE: &[Default] = &[
    object("spec"),
    text("spec.type", "ClusterIP"),
    text("spec.sessionAffinity", "None"),
    when("sessionAffinity", &["ClientIP"], &object("spec.sessionAffinityConfig")),
    object("spec.sessionAffinityConfig.clientIP"),
    int("spec.sessionAffinityConfig.clientIP.timeoutSeconds", 10_800),
    text("spec.ports[*].protocol", "TCP"),
    recompute("spec.ports[*].targetPort", compute::target_port),
    compute("spec.externalTrafficPolicy", compute::external_traffic_policy),
    when("type", &["ClusterIP", "NodePort", "LoadBalancer"], &text("spec.internalTrafficPolicy", "Cluster")),
    when("type", &["LoadBalancer"], &flag("spec.allocateLoadBalancerNodePorts", true)),
    compute("status.loadBalancer.ingress[*].ipMode", compute::ip_mode),
];

/// A namespace.
pub(crate) const NAMESPACE: &[Default] = &[
    recompute("metadata.labels", compute::namespace_labels),
    object("spec"),
    object("status"),
    text("status.phase", "Active"),
];

/// A secret.
pub(crate) const SECRET: &[Default] = &[
    text("type", "Opaque"),
    recompute("data", compute::secret_data),
    Default { path: "stringData", when: When::Always, value: Set::Remove },
];

/// A node.
pub(crate) const NODE: &[Default] = &[object("spec"), compute("status.allocatable", compute::allocatable)];

/// An endpoint slice.
pub(crate) const ENDPOINT_SLICE: &[Default] =
    &[text("ports[*].name", ""), text("ports[*].protocol", "TCP"), object("endpoints[*].conditions")];

/// The older endpoints kind.
pub(crate) const ENDPOINTS: &[Default] = &[text("subsets[*].ports[*].protocol", "TCP")];
