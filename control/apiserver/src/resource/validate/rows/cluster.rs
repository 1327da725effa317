//! Ingress, policies, rights, classes, certificates and admission.

use super::super::Check::*;
use super::super::{Immutable, Rule, access, apps, ingress};
use super::rule;
use crate::resource::names;

/// An ingress.
pub(crate) const INGRESS: &[Rule] = &[
    rule("spec", &[With(ingress::spec)]),
    rule("spec.ingressClassName", &[Syntax(names::dns_subdomain)]),
    rule("spec.defaultBackend", &[With(ingress::backend)]),
    rule("spec.tls[*].hosts[*]", &[With(ingress::host)]),
    rule("spec.rules[*].host", &[With(ingress::host)]),
    rule("spec.rules[*].http.paths", &[Required("")]),
    rule("spec.rules[*].http.paths[*]", &[With(ingress::path)]),
    rule("spec.rules[*].http.paths[*].backend", &[Required(""), With(ingress::backend)]),
];

/// An ingress class.
pub(crate) const INGRESS_CLASS: &[Rule] = &[
    rule("spec.controller", &[With(ingress::controller)]),
    rule("spec.parameters.kind", &[Required("kind is required")]),
    rule("spec.parameters.name", &[Required("name is required")]),
    rule("spec.parameters.scope", &[OneOf(&["Cluster", "Namespace"])]),
];

/// What of an ingress class may not change.
pub(crate) const INGRESS_CLASS_IMMUTABLE: &[Immutable] = &[Immutable::Field("spec.controller")];

/// A network policy.
pub(crate) const NETWORK_POLICY: &[Rule] = &[
    rule("spec.podSelector", &[With(apps::label_selector)]),
    rule("spec.policyTypes", &[With(ingress::policy_types)]),
    rule("spec.policyTypes[*]", &[OneOf(&["Egress", "Ingress"])]),
    rule("spec.ingress|egress[*].ports[*]", &[With(ingress::policy_port)]),
    rule("spec.ingress|egress[*].ports[*].protocol", &[OneOf(&["SCTP", "TCP", "UDP"])]),
    rule("spec.ingress[*].from[*]", &[With(ingress::peer)]),
    rule("spec.egress[*].to[*]", &[With(ingress::peer)]),
];

/// An address of a Service.
pub(crate) const IP_ADDRESS: &[Rule] = &[
    rule("spec.parentRef", &[Required("")]),
    rule("spec.parentRef.resource", &[Required(""), Syntax(names::path_segment)]),
    rule("spec.parentRef.name", &[Required(""), Syntax(names::path_segment)]),
];

/// A network of service addresses.
pub(crate) const SERVICE_CIDR: &[Rule] = &[
    rule("spec.cidrs", &[Required("at least one CIDR required"), AtMost(2)]),
    rule("spec.cidrs[*]", &[Syntax(names::cidr)]),
];

/// A rule of a role.
pub(crate) const POLICY_RULE: &[Rule] = &[
    rule("", &[With(access::policy_rule)]),
    rule("verbs", &[Required("verbs must contain at least one value")]),
];

/// A binding of a role.
pub(crate) const ROLE_BINDING: &[Rule] = &[
    rule("roleRef", &[Required("")]),
    rule("roleRef.apiGroup", &[OneOf(&["rbac.authorization.k8s.io"])]),
    rule("roleRef.kind", &[Required(""), With(access::role_kind)]),
    rule("roleRef.name", &[Required(""), Syntax(names::path_segment)]),
    rule("subjects[*]", &[With(access::subject)]),
    rule("subjects[*].name", &[Required("")]),
];

/// What of a binding may not change.
pub(crate) const ROLE_BINDING_IMMUTABLE: &[Immutable] = &[Immutable::With(access::role_unchanged)];

/// A priority class.
pub(crate) const PRIORITY_CLASS: &[Rule] = &[
    rule("", &[With(access::priority_class)]),
    rule("preemptionPolicy", &[OneOf(&["PreemptLowerPriority", "Never"])]),
];

/// What of a priority class may not change.
pub(crate) const PRIORITY_CLASS_IMMUTABLE: &[Immutable] = &[
    Immutable::Said("value", "may not be changed in an update."),
    Immutable::Said("preemptionPolicy", "may not be changed in an update."),
];

/// A runtime class.
pub(crate) const RUNTIME_CLASS: &[Rule] =
    &[rule("handler", &[Required(""), Syntax(names::dns_label)]), rule("overhead.podFixed{*}", &[Quantity])];

/// A storage class.
pub(crate) const STORAGE_CLASS: &[Rule] = &[
    rule("provisioner", &[Required(""), Syntax(names::provisioner)]),
    rule("reclaimPolicy", &[OneOf(&["Delete", "Retain"])]),
    rule("volumeBindingMode", &[Required(""), OneOf(&["Immediate", "WaitForFirstConsumer"])]),
];

/// What of a storage class may not change.
pub(crate) const STORAGE_CLASS_IMMUTABLE: &[Immutable] = &[
    Immutable::Said("parameters", "updates to parameters are forbidden."),
    Immutable::Said("provisioner", "updates to provisioner are forbidden."),
    Immutable::Said("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    Immutable::Field("volumeBindingMode"),
];

/// A class of attributes.
pub(crate) const ATTRIBUTES_CLASS: &[Rule] = &[
    rule("driverName", &[Required("")]),
    rule("parameters", &[Required("must contain at least one key/value pair")]),
];

/// An attachment of a volume.
pub(crate) const VOLUME_ATTACHMENT: &[Rule] = &[
    rule("spec", &[Required("")]),
    rule("spec.attacher", &[Required("")]),
    rule("spec.nodeName", &[Required("")]),
];

/// A driver of a node.
pub(crate) const CSI_NODE_DRIVER: &[Rule] = &[
    rule("name", &[Required("")]),
    rule("nodeID", &[Required("")]),
    rule("allocatable.count", &[NotNegative]),
];

/// What storage is left.
pub(crate) const STORAGE_CAPACITY: &[Rule] = &[
    rule("storageClassName", &[Required(""), Syntax(names::dns_subdomain)]),
    rule("capacity", &[Quantity]),
    rule("maximumVolumeSize", &[Quantity]),
];

/// A request for a certificate.
pub(crate) const SIGNING_REQUEST: &[Rule] = &[
    rule("spec.request", &[Required(""), With(access::certificate_request)]),
    rule("spec.usages", &[Required("")]),
    rule("spec.signerName", &[Required(""), With(access::signer_name)]),
    rule("spec.expirationSeconds", &[With(access::certificate_duration)]),
    rule("status.conditions", &[With(access::request_conditions)]),
];

/// The webhooks of a configuration.
pub(crate) const WEBHOOKS: &[Rule] = &[rule("", &[Unique("name")])];

/// A webhook.
pub(crate) const WEBHOOK: &[Rule] = &[
    rule("name", &[Required("")]),
    rule("clientConfig", &[With(access::client_config)]),
    rule(
        "sideEffects",
        &[Required("must specify one of None, NoneOnDryRun"), OneOf(&["None", "NoneOnDryRun"])],
    ),
    rule("admissionReviewVersions", &[Required("must specify one of v1, v1beta1")]),
    rule("failurePolicy", &[OneOf(&["Fail", "Ignore"])]),
    rule("matchPolicy", &[OneOf(&["Equivalent", "Exact"])]),
    rule("timeoutSeconds", &[Range(1, 30)]),
    rule("namespaceSelector", &[With(apps::label_selector)]),
    rule("objectSelector", &[With(apps::label_selector)]),
];

/// A policy that changes objects.
pub(crate) const MUTATING_POLICY: &[Rule] = &[
    rule("mutations", &[Required("mutations must contain at least one item")]),
    rule("mutations[*].patchType", &[Required(""), OneOf(&["ApplyConfiguration", "JSONPatch"])]),
    rule("failurePolicy", &[OneOf(&["Fail", "Ignore"])]),
    rule("reinvocationPolicy", &[Required(""), OneOf(&["IfNeeded", "Never"])]),
];

/// Where a policy holds.
pub(crate) const POLICY_BINDING: &[Rule] =
    &[rule("spec", &[Required("")]), rule("spec.policyName", &[Required("")])];
