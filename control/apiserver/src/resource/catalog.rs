//! Every kind, one row each.

use k8s_openapi::api::{apps, coordination, core, discovery, events};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;

use super::decode::decode;
use super::path::Below;
use super::strategy::{
    StatusOnCreate, empty_status, namespace_status, pod_status, replica_set_status, service_status,
};
use super::validate::{NameSyntax, Rule, rows as rules};
use super::{FieldLabel, Resource, Strategy, convert, defaults, merge};
use crate::table::columns;

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Of kinds that clients look for, and of which there are none.
const READ_VERBS: &[&str] = &["get", "list", "watch"];
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

/// Every kind the API serves.
pub static RESOURCES: &[Resource] = &[
    Resource {
        short_names: &["ns"],
        namespaced: false,
        verbs: NAMESPACE_VERBS,
        subresources: &["status", "finalize"],
        columns: columns::NAMESPACE,
        field_selectors: &[field("status.phase", "Active")],
        has_status: true,
        strategy: &NAMESPACE,
        ..plain("Namespace", "NamespaceList", "namespaces", "namespace")
    },
    Resource {
        short_names: &["no"],
        namespaced: false,
        subresources: &["status"],
        storage_prefix: "minions",
        columns: columns::NODE,
        field_selectors: &[field("spec.unschedulable", "false")],
        has_status: true,
        strategy: &NODE,
        ..plain("Node", "NodeList", "nodes", "node")
    },
    Resource {
        short_names: &["po"],
        categories: &["all"],
        subresources: &["status", "log", "binding", "eviction"],
        columns: columns::POD,
        field_selectors: POD_FIELDS,
        has_status: true,
        has_generation: true,
        strategy: &POD,
        ..plain("Pod", "PodList", "pods", "pod")
    },
    Resource {
        short_names: &["svc"],
        categories: &["all"],
        subresources: &["status"],
        storage_prefix: "services/specs",
        columns: columns::SERVICE,
        field_selectors: &[field("spec.clusterIP", ""), field("spec.type", "")],
        has_status: true,
        strategy: &SERVICE,
        ..plain("Service", "ServiceList", "services", "service")
    },
    Resource {
        short_names: &["cm"],
        columns: columns::CONFIG_MAP,
        strategy: &CONFIG_MAP,
        ..plain("ConfigMap", "ConfigMapList", "configmaps", "configmap")
    },
    Resource {
        columns: columns::SECRET,
        field_selectors: &[field("type", "")],
        strategy: &SECRET,
        ..plain("Secret", "SecretList", "secrets", "secret")
    },
    Resource {
        short_names: &["ev"],
        columns: columns::EVENT,
        field_selectors: EVENT_FIELDS,
        strategy: &CORE_EVENT,
        ..plain("Event", "EventList", "events", "event")
    },
    Resource {
        short_names: &["sa"],
        columns: columns::SERVICE_ACCOUNT,
        strategy: &SERVICE_ACCOUNT,
        ..plain("ServiceAccount", "ServiceAccountList", "serviceaccounts", "serviceaccount")
    },
    Resource {
        short_names: &["ep"],
        storage_prefix: "services/endpoints",
        columns: columns::ENDPOINTS,
        strategy: &ENDPOINTS,
        ..plain("Endpoints", "EndpointsList", "endpoints", "endpoints")
    },
    Resource {
        group: "discovery.k8s.io",
        columns: columns::ENDPOINT_SLICE,
        has_generation: true,
        strategy: &ENDPOINT_SLICE,
        ..plain("EndpointSlice", "EndpointSliceList", "endpointslices", "endpointslice")
    },
    Resource {
        group: "coordination.k8s.io",
        columns: columns::LEASE,
        strategy: &LEASE,
        ..plain("Lease", "LeaseList", "leases", "lease")
    },
    Resource {
        group: "events.k8s.io",
        short_names: &["ev"],
        columns: columns::EVENT,
        field_selectors: NEW_EVENT_FIELDS,
        strategy: &NEW_EVENT,
        ..plain("Event", "EventList", "events", "event")
    },
    Resource {
        group: "apps",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &["status", "scale"],
        columns: columns::DEPLOYMENT,
        has_status: true,
        has_generation: true,
        strategy: &DEPLOYMENT,
        ..plain("Deployment", "DeploymentList", "deployments", "deployment")
    },
    Resource {
        group: "apps",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &["status", "scale"],
        columns: columns::REPLICA_SET,
        field_selectors: &[field("status.replicas", "0")],
        has_status: true,
        has_generation: true,
        strategy: &REPLICA_SET,
        ..plain("ReplicaSet", "ReplicaSetList", "replicasets", "replicaset")
    },
    // kubectl looks here before it says that it does not know a kind.
    Resource {
        group: "apiextensions.k8s.io",
        short_names: &["crd", "crds"],
        namespaced: false,
        verbs: READ_VERBS,
        storage_prefix: "apiextensions.k8s.io/customresourcedefinitions",
        columns: columns::CUSTOM_RESOURCE_DEFINITION,
        strategy: &CUSTOM_RESOURCE_DEFINITION,
        ..plain(
            "CustomResourceDefinition",
            "CustomResourceDefinitionList",
            "customresourcedefinitions",
            "customresourcedefinition",
        )
    },
];

/// What a kind of the core group is unless its row says otherwise.
pub(super) const fn plain(
    kind: &'static str,
    list_kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Resource {
    Resource {
        group: "",
        version: "v1",
        kind,
        list_kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        storage_prefix: plural,
        columns: &[],
        field_selectors: &[],
        has_status: false,
        has_generation: false,
        strategy: &PLAIN,
    }
}

const fn field(label: &'static str, absent: &'static str) -> FieldLabel {
    FieldLabel { label, path: label, otherwise: "", absent }
}

/// A label whose name is not the path of its value.
const fn named(label: &'static str, path: &'static str, otherwise: &'static str) -> FieldLabel {
    FieldLabel { label, path, otherwise, absent: "" }
}

const POD_FIELDS: &[FieldLabel] = &[
    field("spec.nodeName", ""),
    // What v1 clients of old called it.
    named("spec.host", "spec.nodeName", ""),
    field("spec.restartPolicy", ""),
    field("spec.schedulerName", ""),
    field("spec.serviceAccountName", ""),
    field("spec.hostNetwork", "false"),
    field("status.phase", ""),
    field("status.podIP", ""),
    named("status.podIPs", "status.podIP", ""),
    field("status.nominatedNodeName", ""),
];

const EVENT_FIELDS: &[FieldLabel] = &[
    field("involvedObject.kind", ""),
    field("involvedObject.namespace", ""),
    field("involvedObject.name", ""),
    field("involvedObject.uid", ""),
    field("involvedObject.apiVersion", ""),
    field("involvedObject.resourceVersion", ""),
    field("involvedObject.fieldPath", ""),
    field("reason", ""),
    field("reportingComponent", ""),
    named("source", "source.component", "reportingComponent"),
    field("type", ""),
];

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

/// What a kind does unless its row says otherwise.
pub(super) const PLAIN: Strategy = Strategy {
    defaults: &[OBJECT],
    rules: &[],
    immutable: &[],
    merge: &[],
    status_on_create: StatusOnCreate::Start(empty_status),
    name: NameSyntax::Subdomain,
    generation_of: &["spec"],
    decode: |_, _| Ok(()),
    conversion: None,
};

/// What every kind is given.
const OBJECT: &[Below<defaults::Default>] = &[at("", defaults::OBJECT)];

/// What the pods of every workload are made from.
const TEMPLATE_DEFAULTS: &[Below<defaults::Default>] = &[
    at("spec.template.spec", defaults::POD_SPEC),
    at("spec.template.spec.containers|initContainers[*]", defaults::CONTAINER),
    at(
        "spec.template.spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe",
        defaults::PROBE,
    ),
];

/// What must hold of the pods of every workload.
const TEMPLATE_RULES: &[Below<Rule>] = &[
    at("spec.template", rules::TEMPLATE),
    at("spec.template.spec", rules::POD_SPEC),
    at("spec.template.spec.containers|initContainers[*]", rules::CONTAINER),
    at(
        "spec.template.spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe",
        rules::PROBE,
    ),
];

const fn at<T>(at: &'static str, rules: &'static [T]) -> Below<T> {
    Below { at, rules }
}

static NAMESPACE: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::NAMESPACE)]],
    merge: &[at("status", merge::CONDITIONS)],
    status_on_create: StatusOnCreate::Start(namespace_status),
    name: NameSyntax::Label,
    decode: decode::<core::v1::Namespace>,
    ..PLAIN
};

static NODE: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::NODE)]],
    rules: &[&[at("", rules::NODE)]],
    immutable: rules::NODE_IMMUTABLE,
    merge: &[at("", merge::NODE)],
    status_on_create: StatusOnCreate::Keep,
    decode: decode::<core::v1::Node>,
    ..PLAIN
};

static POD: Strategy = Strategy {
    defaults: &[
        OBJECT,
        &[
            at("spec", defaults::POD_SPEC),
            at("spec.containers|initContainers|ephemeralContainers[*]", defaults::CONTAINER),
            at(
                "spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe",
                defaults::PROBE,
            ),
            at("", defaults::POD),
        ],
    ],
    rules: &[&[
        at("", rules::POD),
        at("spec", rules::POD_SPEC),
        at("spec.containers|initContainers[*]", rules::CONTAINER),
        at("spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe", rules::PROBE),
    ]],
    immutable: rules::POD_IMMUTABLE,
    merge: &[at("spec", merge::POD_SPEC), at("status", merge::POD_STATUS)],
    status_on_create: StatusOnCreate::Start(pod_status),
    decode: decode::<core::v1::Pod>,
    ..PLAIN
};

static SERVICE: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::SERVICE)]],
    rules: &[&[at("", rules::SERVICE)]],
    immutable: rules::SERVICE_IMMUTABLE,
    merge: &[at("", merge::SERVICE)],
    name: NameSyntax::Label1035,
    status_on_create: StatusOnCreate::Start(service_status),
    decode: decode::<core::v1::Service>,
    ..PLAIN
};

static CONFIG_MAP: Strategy = Strategy {
    rules: &[&[at("", rules::CONFIG_MAP)]],
    immutable: rules::CONFIG_MAP_IMMUTABLE,
    decode: decode::<core::v1::ConfigMap>,
    ..PLAIN
};

static SECRET: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::SECRET)]],
    rules: &[&[at("", rules::SECRET)]],
    immutable: rules::SECRET_IMMUTABLE,
    decode: decode::<core::v1::Secret>,
    ..PLAIN
};

static CORE_EVENT: Strategy =
    Strategy { rules: &[&[at("", rules::EVENT)]], decode: decode::<core::v1::Event>, ..PLAIN };

static NEW_EVENT: Strategy = Strategy {
    rules: &[&[at("", rules::EVENT)]],
    decode: decode::<events::v1::Event>,
    conversion: Some(convert::EVENTS),
    ..PLAIN
};

static SERVICE_ACCOUNT: Strategy = Strategy {
    merge: &[at("", merge::SERVICE_ACCOUNT)],
    decode: decode::<core::v1::ServiceAccount>,
    ..PLAIN
};

static ENDPOINTS: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::ENDPOINTS)]],
    rules: &[&[at("", rules::ENDPOINTS)]],
    decode: decode::<core::v1::Endpoints>,
    ..PLAIN
};

static ENDPOINT_SLICE: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::ENDPOINT_SLICE)]],
    rules: &[&[at("", rules::ENDPOINT_SLICE)]],
    immutable: rules::ENDPOINT_SLICE_IMMUTABLE,
    generation_of: &["endpoints", "ports", "metadata.labels"],
    decode: decode::<discovery::v1::EndpointSlice>,
    ..PLAIN
};

static LEASE: Strategy =
    Strategy { rules: &[&[at("", rules::LEASE)]], decode: decode::<coordination::v1::Lease>, ..PLAIN };

static DEPLOYMENT: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::DEPLOYMENT)], TEMPLATE_DEFAULTS],
    rules: &[&[at("", rules::DEPLOYMENT)], TEMPLATE_RULES],
    immutable: rules::SELECTOR_IMMUTABLE,
    merge: &[at("spec.template.spec", merge::POD_SPEC), at("status", merge::CONDITIONS)],
    decode: decode::<apps::v1::Deployment>,
    ..PLAIN
};

static REPLICA_SET: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::REPLICA_SET)], TEMPLATE_DEFAULTS],
    rules: &[&[at("", rules::REPLICA_SET)], TEMPLATE_RULES],
    immutable: rules::SELECTOR_IMMUTABLE,
    merge: &[at("spec.template.spec", merge::POD_SPEC), at("status", merge::CONDITIONS)],
    status_on_create: StatusOnCreate::Start(replica_set_status),
    decode: decode::<apps::v1::ReplicaSet>,
    ..PLAIN
};

static CUSTOM_RESOURCE_DEFINITION: Strategy =
    Strategy { decode: decode::<apiextensions::v1::CustomResourceDefinition>, ..PLAIN };
