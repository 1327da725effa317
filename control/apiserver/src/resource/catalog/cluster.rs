//! What a cluster is made of besides workloads and services: rights, classes, storage, certificates, admission.

use k8s_openapi::api::{
    admissionregistration, certificates, coordination, events, node, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;

use super::*;

const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

pub(super) const LEASE: Resource = Resource {
    group: "coordination.k8s.io",
    columns: columns::LEASE,
    strategy: &LEASE_RULES,
    ..plain("Lease", "LeaseList", "leases", "lease")
};

static LEASE_RULES: Strategy =
    Strategy { rules: &[&[at("", rules::LEASE)]], decode: decode::<coordination::v1::Lease>, ..PLAIN };

pub(super) const NEW_EVENT: Resource = Resource {
    group: "events.k8s.io",
    short_names: &["ev"],
    columns: columns::EVENT,
    field_selectors: NEW_EVENT_FIELDS,
    strategy: &NEW_EVENT_RULES,
    ..plain("Event", "EventList", "events", "event")
};

static NEW_EVENT_RULES: Strategy = Strategy {
    rules: &[&[at("", rules::EVENT)]],
    decode: decode::<events::v1::Event>,
    conversion: Some(convert::EVENTS),
    ..PLAIN
};

/// kubectl looks here before it says that it does not know a kind.
pub(super) const CUSTOM_RESOURCE_DEFINITION: Resource = Resource {
    group: "apiextensions.k8s.io",
    short_names: &["crd", "crds"],
    namespaced: false,
    verbs: READ_VERBS,
    storage_prefix: "apiextensions.k8s.io/customresourcedefinitions",
    columns: columns::CUSTOM_RESOURCE_DEFINITION,
    strategy: &CUSTOM_RESOURCE_DEFINITION_RULES,
    ..plain(
        "CustomResourceDefinition",
        "CustomResourceDefinitionList",
        "customresourcedefinitions",
        "customresourcedefinition",
    )
};

static CUSTOM_RESOURCE_DEFINITION_RULES: Strategy =
    Strategy { decode: decode::<apiextensions::v1::CustomResourceDefinition>, ..PLAIN };

pub(super) const ROLE: Resource = Resource {
    group: RBAC,
    columns: columns::CREATED_AT,
    strategy: &Strategy {
        rules: &[&[at("rules[*]", rules::POLICY_RULE)]],
        name: NameSyntax::PathSegment,
        decode: decode::<rbac::v1::Role>,
        ..PLAIN
    },
    ..plain("Role", "RoleList", "roles", "role")
};

pub(super) const CLUSTER_ROLE: Resource = Resource {
    group: RBAC,
    namespaced: false,
    columns: columns::CREATED_AT,
    strategy: &Strategy {
        rules: &[&[at("rules[*]", rules::POLICY_RULE)]],
        name: NameSyntax::PathSegment,
        decode: decode::<rbac::v1::ClusterRole>,
        ..PLAIN
    },
    ..plain("ClusterRole", "ClusterRoleList", "clusterroles", "clusterrole")
};

pub(super) const ROLE_BINDING: Resource = Resource {
    group: RBAC,
    columns: columns::ROLE_BINDING,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::ROLE_BINDING)]],
        rules: &[&[at("", rules::ROLE_BINDING)]],
        immutable: rules::ROLE_BINDING_IMMUTABLE,
        name: NameSyntax::PathSegment,
        decode: decode::<rbac::v1::RoleBinding>,
        ..PLAIN
    },
    ..plain("RoleBinding", "RoleBindingList", "rolebindings", "rolebinding")
};

pub(super) const CLUSTER_ROLE_BINDING: Resource = Resource {
    group: RBAC,
    namespaced: false,
    columns: columns::ROLE_BINDING,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::ROLE_BINDING)]],
        rules: &[&[at("", rules::ROLE_BINDING)]],
        immutable: rules::ROLE_BINDING_IMMUTABLE,
        name: NameSyntax::PathSegment,
        decode: decode::<rbac::v1::ClusterRoleBinding>,
        ..PLAIN
    },
    ..plain("ClusterRoleBinding", "ClusterRoleBindingList", "clusterrolebindings", "clusterrolebinding")
};

pub(super) const PRIORITY_CLASS: Resource = Resource {
    group: "scheduling.k8s.io",
    short_names: &["pc"],
    namespaced: false,
    columns: columns::PRIORITY_CLASS,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::PRIORITY_CLASS)]],
        rules: &[&[at("", rules::PRIORITY_CLASS)]],
        immutable: rules::PRIORITY_CLASS_IMMUTABLE,
        generation_of: &[],
        decode: decode::<scheduling::v1::PriorityClass>,
        ..PLAIN
    },
    ..plain("PriorityClass", "PriorityClassList", "priorityclasses", "priorityclass")
};

pub(super) const RUNTIME_CLASS: Resource = Resource {
    group: "node.k8s.io",
    namespaced: false,
    columns: columns::RUNTIME_CLASS,
    strategy: &Strategy {
        rules: &[&[at("", rules::RUNTIME_CLASS)]],
        immutable: &[Immutable::Field("handler")],
        decode: decode::<node::v1::RuntimeClass>,
        ..PLAIN
    },
    ..plain("RuntimeClass", "RuntimeClassList", "runtimeclasses", "runtimeclass")
};

pub(super) const STORAGE_CLASS: Resource = Resource {
    group: STORAGE,
    short_names: &["sc"],
    namespaced: false,
    columns: columns::STORAGE_CLASS,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::STORAGE_CLASS)]],
        rules: &[&[at("", rules::STORAGE_CLASS)]],
        immutable: rules::STORAGE_CLASS_IMMUTABLE,
        decode: decode::<storage::v1::StorageClass>,
        ..PLAIN
    },
    ..plain("StorageClass", "StorageClassList", "storageclasses", "storageclass")
};

pub(super) const ATTRIBUTES_CLASS: Resource = Resource {
    group: STORAGE,
    short_names: &["vac"],
    namespaced: false,
    columns: columns::ATTRIBUTES_CLASS,
    strategy: &Strategy {
        rules: &[&[at("", rules::ATTRIBUTES_CLASS)]],
        immutable: &[Immutable::Field("driverName"), Immutable::Field("parameters")],
        decode: decode::<storage::v1::VolumeAttributesClass>,
        ..PLAIN
    },
    ..plain(
        "VolumeAttributesClass",
        "VolumeAttributesClassList",
        "volumeattributesclasses",
        "volumeattributesclass",
    )
};

pub(super) const VOLUME_ATTACHMENT: Resource = Resource {
    group: STORAGE,
    namespaced: false,
    subresources: &["status"],
    columns: columns::VOLUME_ATTACHMENT,
    has_status: true,
    strategy: &Strategy {
        rules: &[&[at("", rules::VOLUME_ATTACHMENT)]],
        immutable: &[Immutable::Field("spec")],
        status_on_create: StatusOnCreate::Start(attachment_status),
        decode: decode::<storage::v1::VolumeAttachment>,
        ..PLAIN
    },
    ..plain("VolumeAttachment", "VolumeAttachmentList", "volumeattachments", "volumeattachment")
};

pub(super) const CSI_DRIVER: Resource = Resource {
    group: STORAGE,
    namespaced: false,
    columns: columns::CSI_DRIVER,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::CSI_DRIVER)]],
        rules: &[&[at("", rules::SPEC_REQUIRED)]],
        decode: decode::<storage::v1::CSIDriver>,
        ..PLAIN
    },
    ..plain("CSIDriver", "CSIDriverList", "csidrivers", "csidriver")
};

pub(super) const CSI_NODE: Resource = Resource {
    group: STORAGE,
    namespaced: false,
    columns: columns::CSI_NODE,
    strategy: &Strategy {
        rules: &[&[at("spec.drivers[*]", rules::CSI_NODE_DRIVER)]],
        merge: &[at("spec", merge::CSI_NODE)],
        decode: decode::<storage::v1::CSINode>,
        ..PLAIN
    },
    ..plain("CSINode", "CSINodeList", "csinodes", "csinode")
};

pub(super) const STORAGE_CAPACITY: Resource = Resource {
    group: STORAGE,
    columns: columns::STORAGE_CAPACITY,
    strategy: &Strategy {
        rules: &[&[at("", rules::STORAGE_CAPACITY)]],
        immutable: &[Immutable::Field("storageClassName"), Immutable::Field("nodeTopology")],
        decode: decode::<storage::v1::CSIStorageCapacity>,
        ..PLAIN
    },
    ..plain("CSIStorageCapacity", "CSIStorageCapacityList", "csistoragecapacities", "csistoragecapacity")
};

pub(super) const SIGNING_REQUEST: Resource = Resource {
    group: "certificates.k8s.io",
    short_names: &["csr"],
    namespaced: false,
    subresources: &["status", "approval"],
    columns: columns::SIGNING_REQUEST,
    field_selectors: &[field("spec.signerName", "")],
    has_status: true,
    strategy: &Strategy {
        rules: &[&[at("", rules::SPEC_REQUIRED), at("", rules::SIGNING_REQUEST)]],
        immutable: &[Immutable::Field("spec")],
        name: NameSyntax::PathSegment,
        decode: decode::<certificates::v1::CertificateSigningRequest>,
        ..PLAIN
    },
    ..plain(
        "CertificateSigningRequest",
        "CertificateSigningRequestList",
        "certificatesigningrequests",
        "certificatesigningrequest",
    )
};

pub(super) const MUTATING_WEBHOOKS: Resource = Resource {
    group: ADMISSION,
    categories: &["api-extensions"],
    namespaced: false,
    columns: columns::WEBHOOKS,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[
            OBJECT,
            &[at("webhooks[*]", defaults::WEBHOOK), at("webhooks[*]", defaults::MUTATING_WEBHOOK)],
        ],
        rules: &[&[at("webhooks", rules::WEBHOOKS), at("webhooks[*]", rules::WEBHOOK)]],
        merge: &[at("", merge::WEBHOOKS)],
        generation_of: &["webhooks"],
        decode: decode::<admissionregistration::v1::MutatingWebhookConfiguration>,
        ..PLAIN
    },
    ..plain(
        "MutatingWebhookConfiguration",
        "MutatingWebhookConfigurationList",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
    )
};

pub(super) const VALIDATING_WEBHOOKS: Resource = Resource {
    group: ADMISSION,
    categories: &["api-extensions"],
    namespaced: false,
    columns: columns::WEBHOOKS,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("webhooks[*]", defaults::WEBHOOK)]],
        rules: &[&[at("webhooks", rules::WEBHOOKS), at("webhooks[*]", rules::WEBHOOK)]],
        merge: &[at("", merge::WEBHOOKS)],
        generation_of: &["webhooks"],
        decode: decode::<admissionregistration::v1::ValidatingWebhookConfiguration>,
        ..PLAIN
    },
    ..plain(
        "ValidatingWebhookConfiguration",
        "ValidatingWebhookConfigurationList",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
    )
};

pub(super) const VALIDATING_POLICY: Resource = Resource {
    group: ADMISSION,
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &["status"],
    columns: columns::VALIDATING_POLICY,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[
            OBJECT,
            &[at("spec", defaults::ADMISSION_POLICY), at("spec.matchConstraints", defaults::MATCH_RESOURCES)],
        ],
        rules: &[&[at("", rules::SPEC_REQUIRED)]],
        merge: &[at("spec", merge::ADMISSION_POLICY)],
        decode: decode::<admissionregistration::v1::ValidatingAdmissionPolicy>,
        ..PLAIN
    },
    ..plain(
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyList",
        "validatingadmissionpolicies",
        "validatingadmissionpolicy",
    )
};

pub(super) const VALIDATING_POLICY_BINDING: Resource = Resource {
    group: ADMISSION,
    categories: &["api-extensions"],
    namespaced: false,
    columns: columns::POLICY_BINDING,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("spec.matchResources", defaults::MATCH_RESOURCES)]],
        rules: &[&[at("", rules::POLICY_BINDING)]],
        decode: decode::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>,
        ..PLAIN
    },
    ..plain(
        "ValidatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicyBindingList",
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
    )
};

pub(super) const MUTATING_POLICY: Resource = Resource {
    group: ADMISSION,
    categories: &["api-extensions"],
    namespaced: false,
    columns: columns::MUTATING_POLICY,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[
            OBJECT,
            &[
                at("spec", defaults::ADMISSION_POLICY),
                at("spec", defaults::MUTATING_POLICY),
                at("spec.matchConstraints", defaults::MATCH_RESOURCES),
            ],
        ],
        rules: &[&[at("", rules::SPEC_REQUIRED), at("spec", rules::MUTATING_POLICY)]],
        merge: &[at("spec", merge::ADMISSION_POLICY)],
        decode: decode::<admissionregistration::v1::MutatingAdmissionPolicy>,
        ..PLAIN
    },
    ..plain(
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyList",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicy",
    )
};

pub(super) const MUTATING_POLICY_BINDING: Resource = Resource {
    group: ADMISSION,
    categories: &["api-extensions"],
    namespaced: false,
    columns: columns::POLICY_BINDING,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("spec.matchResources", defaults::MATCH_RESOURCES)]],
        rules: &[&[at("", rules::POLICY_BINDING)]],
        decode: decode::<admissionregistration::v1::MutatingAdmissionPolicyBinding>,
        ..PLAIN
    },
    ..plain(
        "MutatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicyBindingList",
        "mutatingadmissionpolicybindings",
        "mutatingadmissionpolicybinding",
    )
};

const NEW_EVENT_FIELDS: &[FieldLabel] = &[
    field("regarding.kind", ""),
    field("regarding.namespace", ""),
    field("regarding.name", ""),
    field("regarding.uid", ""),
    field("regarding.apiVersion", ""),
    field("regarding.resourceVersion", ""),
    field("regarding.fieldPath", ""),
    field("reason", ""),
    field("reportingController", ""),
    field("type", ""),
];
