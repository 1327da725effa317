//! Rights, classes, ingress and admission.

use super::{Default, compute, flag, int, object, text, when};
use crate::resource::defaults::compute as computed;

const RBAC: &str = "rbac.authorization.k8s.io";

/// An ingress.
pub(crate) const INGRESS: &[Default] = &[object("spec")];

/// An ingress class.
pub(crate) const INGRESS_CLASS: &[Default] = &[text("spec.parameters.scope", "Cluster")];

/// A network policy.
pub(crate) const NETWORK_POLICY: &[Default] = &[
    object("spec"),
    object("spec.podSelector"),
    compute("spec.policyTypes", computed::policy_types),
    text("spec.ingress|egress[*].ports[*].protocol", "TCP"),
];

/// A binding of a role.
pub(crate) const ROLE_BINDING: &[Default] =
    &[text("roleRef.apiGroup", RBAC), when("kind", &["User", "Group"], &text("subjects[*].apiGroup", RBAC))];

/// A priority class.
pub(crate) const PRIORITY_CLASS: &[Default] =
    &[text("preemptionPolicy", "PreemptLowerPriority"), int("value", 0)];

/// A storage class.
pub(crate) const STORAGE_CLASS: &[Default] =
    &[text("reclaimPolicy", "Delete"), text("volumeBindingMode", "Immediate")];

/// A driver of the container storage interface.
pub(crate) const CSI_DRIVER: &[Default] = &[
    flag("spec.attachRequired", true),
    flag("spec.podInfoOnMount", false),
    flag("spec.storageCapacity", false),
    text("spec.fsGroupPolicy", "ReadWriteOnceWithFSType"),
    flag("spec.requiresRepublish", false),
    flag("spec.seLinuxMount", false),
    compute("spec.volumeLifecycleModes", computed::lifecycle_modes),
];

/// A webhook of either kind.
pub(crate) const WEBHOOK: &[Default] = &[
    text("failurePolicy", "Fail"),
    text("matchPolicy", "Equivalent"),
    object("namespaceSelector"),
    object("objectSelector"),
    int("timeoutSeconds", 10),
    int("clientConfig.service.port", 443),
    text("rules[*].scope", "*"),
];

/// A webhook that changes objects.
pub(crate) const MUTATING_WEBHOOK: &[Default] = &[text("reinvocationPolicy", "Never")];

/// A policy of admission.
pub(crate) const ADMISSION_POLICY: &[Default] = &[text("failurePolicy", "Fail")];

/// A policy that changes objects.
pub(crate) const MUTATING_POLICY: &[Default] = &[text("reinvocationPolicy", "Never")];

/// The objects that a policy or a binding is about.
pub(crate) const MATCH_RESOURCES: &[Default] = &[
    text("matchPolicy", "Equivalent"),
    object("namespaceSelector"),
    object("objectSelector"),
    text("resourceRules|excludeResourceRules[*].scope", "*"),
];
