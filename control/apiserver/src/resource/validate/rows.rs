//! The rows: what must hold, kind by kind.

use super::Check::*;
use super::{Immutable, Rule, apps, data, immutable, network, node, pod, service};
use crate::resource::names;

mod cluster;
mod workloads;

pub(crate) use cluster::*;
pub(crate) use workloads::*;

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

const fn rule(path: &'static str, checks: &'static [super::Check]) -> Rule {
    Rule { path, checks }
}

/// A pod's spec and a template's alike.
pub(crate) const POD_SPEC: &[Rule] = &[
    rule("", &[With(pod::spec), With(pod::dns)]),
    rule("containers", &[Required("")]),
    rule("restartPolicy", &[Required(""), OneOf(&["Always", "OnFailure", "Never"])]),
    rule("dnsPolicy", &[OneOf(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"])]),
    rule("activeDeadlineSeconds", &[Range(1, i32::MAX as i64)]),
    rule("hostname", &[Syntax(names::dns_label)]),
    rule("subdomain", &[Syntax(names::dns_label)]),
    rule("nodeName", &[Syntax(names::dns_subdomain)]),
    rule("serviceAccountName", &[Syntax(names::dns_subdomain)]),
    rule("nodeSelector", &[Labels]),
    rule("preemptionPolicy", &[OneOf(&["PreemptLowerPriority", "Never"])]),
    rule("volumes", &[Unique("name")]),
    rule("volumes[*]", &[With(pod::volume)]),
    rule("volumes[*].name", &[Required(""), Syntax(names::dns_label)]),
    rule("volumes[*].hostPath.path", &[Required("")]),
    rule("volumes[*].secret.secretName", &[Required("")]),
    rule("volumes[*].configMap.name", &[Required("")]),
    rule("volumes[*].persistentVolumeClaim.claimName", &[Required("")]),
    rule("volumes[*].emptyDir.sizeLimit", &[Quantity]),
    rule("tolerations[*]", &[With(pod::toleration)]),
    rule("tolerations[*].key", &[Syntax(names::qualified_name)]),
    rule("tolerations[*].operator", &[OneOf(&["Equal", "Exists", "Lt", "Gt"])]),
    rule("tolerations[*].effect", &[OneOf(EFFECTS)]),
    rule("hostAliases[*].ip", &[Required(""), Syntax(names::ip_address)]),
    rule("hostAliases[*].hostnames[*]", &[Syntax(names::dns_subdomain)]),
    rule("topologySpreadConstraints[*].topologyKey", &[Required("can not be empty")]),
    rule("topologySpreadConstraints[*].maxSkew", &[Present, Positive]),
    rule(
        "topologySpreadConstraints[*].whenUnsatisfiable",
        &[Required(""), OneOf(&["DoNotSchedule", "ScheduleAnyway"])],
    ),
    rule("topologySpreadConstraints[*].labelSelector", &[With(apps::label_selector)]),
    rule("readinessGates[*].conditionType", &[Required(""), Syntax(names::qualified_name)]),
    rule("schedulingGates", &[Unique("name")]),
    rule("schedulingGates[*].name", &[Required(""), Syntax(names::qualified_name)]),
];

/// A container and an init container alike.
pub(crate) const CONTAINER: &[Rule] = &[
    rule("name", &[Required(""), Syntax(names::dns_label)]),
    rule("image", &[Required("")]),
    rule("imagePullPolicy", &[Required(""), OneOf(&["Always", "IfNotPresent", "Never"])]),
    rule("terminationMessagePath", &[Required("")]),
    rule("terminationMessagePolicy", &[Required(""), OneOf(&["File", "FallbackToLogsOnError"])]),
    rule("ports", &[Unique("name")]),
    rule("ports[*].name", &[Syntax(names::port_name)]),
    rule("ports[*].containerPort", &[Required(""), Range(1, 65_535)]),
    rule("ports[*].hostPort", &[Range(0, 65_535)]),
    rule("ports[*].protocol", &[Required(""), OneOf(PROTOCOLS)]),
    rule("env[*]", &[With(pod::env)]),
    rule("env[*].name", &[Required(""), Syntax(names::env_name)]),
    rule("env[*].valueFrom.fieldRef.fieldPath", &[Required("")]),
    rule("env[*].valueFrom.configMapKeyRef.key", &[Required(""), Syntax(names::config_key)]),
    rule("env[*].valueFrom.secretKeyRef.key", &[Required(""), Syntax(names::config_key)]),
    rule("resources", &[With(pod::requests_within_limits)]),
    rule("resources.limits{*}", &[Quantity]),
    rule("resources.requests{*}", &[Quantity]),
    rule("lifecycle.postStart", &[With(pod::hook)]),
    rule("lifecycle.preStop", &[With(pod::hook)]),
    rule("livenessProbe", &[With(pod::restarting_probe)]),
    rule("startupProbe", &[With(pod::restarting_probe)]),
];

/// A liveness, readiness or startup probe.
pub(crate) const PROBE: &[Rule] = &[
    rule("", &[With(pod::probe)]),
    rule("initialDelaySeconds", &[NotNegative]),
    rule("timeoutSeconds", &[NotNegative]),
    rule("periodSeconds", &[NotNegative]),
    rule("successThreshold", &[NotNegative]),
    rule("failureThreshold", &[NotNegative]),
    rule("httpGet.path", &[Required("")]),
    rule("httpGet.port", &[Present, Port]),
    rule("httpGet.scheme", &[OneOf(SCHEMES)]),
    rule("httpGet.httpHeaders[*].name", &[Required("")]),
    rule("tcpSocket.port", &[Present, Port]),
    rule("grpc.port", &[Present, Range(1, 65_535)]),
    rule("exec.command", &[Required("")]),
];

/// What the pods of a workload are made from.
pub(crate) const TEMPLATE: &[Rule] = &[rule("metadata.labels", &[Labels]), rule("spec", &[Required("")])];

/// A deployment.
pub(crate) const DEPLOYMENT: &[Rule] = &[
    rule("spec", &[Required(""), With(apps::deployment_selector), With(apps::progress_deadline)]),
    rule("spec.replicas", &[NotNegative]),
    rule("spec.minReadySeconds", &[NotNegative]),
    rule("spec.revisionHistoryLimit", &[NotNegative]),
    rule("spec.progressDeadlineSeconds", &[NotNegative]),
    rule("spec.strategy.type", &[OneOf(&["Recreate", "RollingUpdate"])]),
    rule("spec.strategy", &[With(apps::strategy)]),
    rule("spec.template", &[Required("")]),
];

/// A replica set.
pub(crate) const REPLICA_SET: &[Rule] = &[
    rule("spec", &[Required(""), With(apps::replica_set_selector)]),
    rule("spec.replicas", &[NotNegative]),
    rule("spec.minReadySeconds", &[NotNegative]),
    rule("spec.template", &[Required("")]),
];

/// A selector that may not change.
pub(crate) const SELECTOR_IMMUTABLE: &[Immutable] = &[Immutable::Field("spec.selector")];

/// A pod.
pub(crate) const POD: &[Rule] = &[rule("spec", &[Required("")])];

/// What of a pod may not change.
pub(crate) const POD_IMMUTABLE: &[Immutable] = &[Immutable::With(immutable::pod_spec)];

/// A service.
pub(crate) const SERVICE: &[Rule] = &[
    rule(
        "spec",
        &[
            With(network::service),
            With(network::session_affinity),
            With(service::traffic_policies),
            With(service::load_balancer),
            With(service::ports),
        ],
    ),
    rule("", &[With(service::load_balancer_status)]),
    rule("spec.type", &[Required(""), OneOf(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])]),
    rule("spec.sessionAffinity", &[Required(""), OneOf(&["ClientIP", "None"])]),
    rule("spec.selector", &[Labels]),
    rule("spec.ports", &[Unique("name")]),
    rule("spec.ports[*].name", &[Syntax(names::dns_label)]),
    rule("spec.ports[*].port", &[Present, Range(1, 65_535)]),
    rule("spec.ports[*].protocol", &[Required(""), OneOf(PROTOCOLS)]),
    rule("spec.ports[*].targetPort", &[Port]),
    rule("spec.ports[*].nodePort", &[Range(0, 65_535)]),
    rule("spec.ports[*].appProtocol", &[Syntax(names::qualified_name)]),
    rule("spec.externalIPs[*]", &[Syntax(names::ip_address), With(service::external_ip)]),
    rule("spec.internalTrafficPolicy", &[OneOf(&["Cluster", "Local"])]),
    rule("spec.loadBalancerClass", &[Syntax(names::qualified_name)]),
    rule("spec.ipFamilyPolicy", &[OneOf(&["SingleStack", "PreferDualStack", "RequireDualStack"])]),
    rule("spec.trafficDistribution", &[OneOf(&["PreferClose", "PreferSameZone", "PreferSameNode"])]),
];

/// What of a service may not change.
pub(crate) const SERVICE_IMMUTABLE: &[Immutable] =
    &[Immutable::With(immutable::cluster_ip), Immutable::With(service::class_unchanged)];

/// An endpoint slice.
pub(crate) const ENDPOINT_SLICE: &[Rule] = &[
    rule("", &[With(network::endpoint_slice)]),
    rule("addressType", &[Required(""), OneOf(&["FQDN", "IPv4", "IPv6"])]),
    rule("endpoints", &[AtMost(1000)]),
    rule("endpoints[*].hostname", &[Syntax(names::dns_label)]),
    rule("endpoints[*].nodeName", &[Syntax(names::dns_subdomain)]),
    rule("ports", &[AtMost(20_000)]),
    rule("ports[*].name", &[Syntax(names::dns_label)]),
    rule("ports[*].port", &[Range(1, 65_535)]),
    rule("ports[*].protocol", &[Required(""), OneOf(PROTOCOLS)]),
    rule("ports[*].appProtocol", &[Syntax(names::qualified_name)]),
];

/// What of an endpoint slice may not change.
pub(crate) const ENDPOINT_SLICE_IMMUTABLE: &[Immutable] = &[Immutable::Field("addressType")];

/// The older endpoints kind.
pub(crate) const ENDPOINTS: &[Rule] = &[
    rule("subsets[*].addresses[*].ip", &[Required(""), Syntax(names::ip_address)]),
    rule("subsets[*].notReadyAddresses[*].ip", &[Required(""), Syntax(names::ip_address)]),
    rule("subsets[*].ports[*].port", &[Present, Range(1, 65_535)]),
    rule("subsets[*].ports[*].protocol", &[Required(""), OneOf(PROTOCOLS)]),
];

/// A lease.
pub(crate) const LEASE: &[Rule] =
    &[rule("spec.leaseDurationSeconds", &[Positive]), rule("spec.leaseTransitions", &[NotNegative])];

/// A node.
pub(crate) const NODE: &[Rule] = &[
    rule("spec.taints", &[With(node::taints)]),
    rule("spec.taints[*].key", &[Required(""), Syntax(names::qualified_name)]),
    rule("spec.taints[*].effect", &[Required(""), OneOf(EFFECTS)]),
    rule("spec.podCIDRs[*]", &[Syntax(names::cidr)]),
    rule("status.capacity{*}", &[Quantity]),
    rule("status.allocatable{*}", &[Quantity]),
];

/// What of a node may not change.
pub(crate) const NODE_IMMUTABLE: &[Immutable] = &[
    Immutable::OnceSet("spec.podCIDR", "node updates may not change podCIDR except from \"\" to valid"),
    Immutable::OnceSet("spec.providerID", "node updates may not change providerID except from \"\" to valid"),
];

/// A config map.
pub(crate) const CONFIG_MAP: &[Rule] = &[
    rule("", &[With(data::config_map)]),
    rule("data", &[Keys(names::config_key)]),
    rule("binaryData", &[Keys(names::config_key)]),
];

/// What of a config map may not change.
pub(crate) const CONFIG_MAP_IMMUTABLE: &[Immutable] =
    &[Immutable::OnceFrozen(&["immutable", "data", "binaryData"])];

/// A secret.
pub(crate) const SECRET: &[Rule] =
    &[rule("", &[With(data::secret)]), rule("data", &[Keys(names::config_key)])];

/// What of a secret may not change.
pub(crate) const SECRET_IMMUTABLE: &[Immutable] =
    &[Immutable::Field("type"), Immutable::OnceFrozen(&["immutable", "data"])];

/// An event.
pub(crate) const EVENT: &[Rule] = &[rule("", &[With(data::event)])];
