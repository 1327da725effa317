//! The core group.

use k8s_openapi::api::core;

use super::*;

pub(super) const NAMESPACE: Resource = Resource {
    short_names: &["ns"],
    namespaced: false,
    verbs: NAMESPACE_VERBS,
    subresources: &["status", "finalize"],
    columns: columns::NAMESPACE,
    field_selectors: &[field("status.phase", "Active")],
    has_status: true,
    strategy: &NAMESPACE_RULES,
    ..plain("Namespace", "NamespaceList", "namespaces", "namespace")
};

static NAMESPACE_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::NAMESPACE)]],
    merge: &[at("status", merge::CONDITIONS)],
    status_on_create: StatusOnCreate::Start(namespace_status),
    name: NameSyntax::Label,
    decode: decode::<core::v1::Namespace>,
    ..PLAIN
};

pub(super) const NODE: Resource = Resource {
    short_names: &["no"],
    namespaced: false,
    subresources: &["status"],
    storage_prefix: "minions",
    columns: columns::NODE,
    field_selectors: &[field("spec.unschedulable", "false")],
    has_status: true,
    strategy: &NODE_RULES,
    ..plain("Node", "NodeList", "nodes", "node")
};

static NODE_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::NODE)]],
    rules: &[&[at("", rules::NODE)]],
    immutable: rules::NODE_IMMUTABLE,
    merge: &[at("", merge::NODE)],
    status_on_create: StatusOnCreate::Keep,
    decode: decode::<core::v1::Node>,
    ..PLAIN
};

pub(super) const POD: Resource = Resource {
    short_names: &["po"],
    categories: &["all"],
    subresources: &["status", "log", "binding", "eviction", "ephemeralcontainers", "resize"],
    columns: columns::POD,
    field_selectors: POD_FIELDS,
    has_status: true,
    has_generation: true,
    strategy: &POD_RULES,
    ..plain("Pod", "PodList", "pods", "pod")
};

static POD_RULES: Strategy = Strategy {
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
        at("spec.containers|initContainers|ephemeralContainers[*]", rules::CONTAINER),
        at("spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe", rules::PROBE),
    ]],
    immutable: rules::POD_IMMUTABLE,
    merge: &[at("spec", merge::POD_SPEC), at("status", merge::POD_STATUS)],
    status_on_create: StatusOnCreate::Start(pod_status),
    decode: decode::<core::v1::Pod>,
    ..PLAIN
};

pub(super) const SERVICE: Resource = Resource {
    short_names: &["svc"],
    categories: &["all"],
    subresources: &["status"],
    storage_prefix: "services/specs",
    columns: columns::SERVICE,
    field_selectors: &[field("spec.clusterIP", ""), field("spec.type", "")],
    has_status: true,
    strategy: &SERVICE_RULES,
    ..plain("Service", "ServiceList", "services", "service")
};

static SERVICE_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::SERVICE)]],
    rules: &[&[at("", rules::SERVICE)]],
    immutable: rules::SERVICE_IMMUTABLE,
    merge: &[at("", merge::SERVICE)],
    name: NameSyntax::Label1035,
    status_on_create: StatusOnCreate::Start(service_status),
    decode: decode::<core::v1::Service>,
    ..PLAIN
};

pub(super) const CONFIG_MAP: Resource = Resource {
    short_names: &["cm"],
    columns: columns::CONFIG_MAP,
    strategy: &CONFIG_MAP_RULES,
    ..plain("ConfigMap", "ConfigMapList", "configmaps", "configmap")
};

static CONFIG_MAP_RULES: Strategy = Strategy {
    rules: &[&[at("", rules::CONFIG_MAP)]],
    immutable: rules::CONFIG_MAP_IMMUTABLE,
    decode: decode::<core::v1::ConfigMap>,
    ..PLAIN
};

pub(super) const SECRET: Resource = Resource {
    columns: columns::SECRET,
    field_selectors: &[field("type", "")],
    strategy: &SECRET_RULES,
    ..plain("Secret", "SecretList", "secrets", "secret")
};

static SECRET_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::SECRET)]],
    rules: &[&[at("", rules::SECRET)]],
    immutable: rules::SECRET_IMMUTABLE,
    decode: decode::<core::v1::Secret>,
    ..PLAIN
};

pub(super) const EVENT: Resource = Resource {
    short_names: &["ev"],
    columns: columns::EVENT,
    field_selectors: EVENT_FIELDS,
    strategy: &EVENT_RULES,
    ..plain("Event", "EventList", "events", "event")
};

static EVENT_RULES: Strategy =
    Strategy { rules: &[&[at("", rules::EVENT)]], decode: decode::<core::v1::Event>, ..PLAIN };

pub(super) const SERVICE_ACCOUNT: Resource = Resource {
    short_names: &["sa"],
    columns: columns::SERVICE_ACCOUNT,
    strategy: &SERVICE_ACCOUNT_RULES,
    ..plain("ServiceAccount", "ServiceAccountList", "serviceaccounts", "serviceaccount")
};

static SERVICE_ACCOUNT_RULES: Strategy = Strategy {
    merge: &[at("", merge::SERVICE_ACCOUNT)],
    decode: decode::<core::v1::ServiceAccount>,
    ..PLAIN
};

pub(super) const ENDPOINTS: Resource = Resource {
    short_names: &["ep"],
    storage_prefix: "services/endpoints",
    columns: columns::ENDPOINTS,
    strategy: &ENDPOINTS_RULES,
    ..plain("Endpoints", "EndpointsList", "endpoints", "endpoints")
};

static ENDPOINTS_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::ENDPOINTS)]],
    rules: &[&[at("", rules::ENDPOINTS)]],
    decode: decode::<core::v1::Endpoints>,
    ..PLAIN
};

pub(super) const REPLICATION_CONTROLLER: Resource = Resource {
    short_names: &["rc"],
    categories: &["all"],
    subresources: &["status", "scale"],
    storage_prefix: "controllers",
    columns: columns::REPLICATION_CONTROLLER,
    field_selectors: &[field("status.replicas", "0")],
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::REPLICATION_CONTROLLER)], TEMPLATE_DEFAULTS],
        rules: &[&[at("", rules::REPLICATION_CONTROLLER)], TEMPLATE_RULES, ALWAYS_RESTARTED],
        merge: TEMPLATE_MERGE,
        status_on_create: StatusOnCreate::Start(replica_set_status),
        decode: decode::<core::v1::ReplicationController>,
        ..PLAIN
    },
    ..plain(
        "ReplicationController",
        "ReplicationControllerList",
        "replicationcontrollers",
        "replicationcontroller",
    )
};

pub(super) const POD_TEMPLATE: Resource = Resource {
    columns: columns::POD_TEMPLATE,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[
            OBJECT,
            &[
                at("template.spec", defaults::POD_SPEC),
                at("template.spec.containers|initContainers[*]", defaults::CONTAINER),
            ],
        ],
        rules: &[&[at("template.spec", rules::POD_SPEC)]],
        merge: &[at("template.spec", merge::POD_SPEC)],
        generation_of: &["template"],
        decode: decode::<core::v1::PodTemplate>,
        ..PLAIN
    },
    ..plain("PodTemplate", "PodTemplateList", "podtemplates", "podtemplate")
};

pub(super) const RESOURCE_QUOTA: Resource = Resource {
    short_names: &["quota"],
    subresources: &["status"],
    columns: columns::RESOURCE_QUOTA,
    has_status: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::RESOURCE_QUOTA)]],
        rules: &[&[at("", rules::RESOURCE_QUOTA)]],
        immutable: rules::RESOURCE_QUOTA_IMMUTABLE,
        decode: decode::<core::v1::ResourceQuota>,
        ..PLAIN
    },
    ..plain("ResourceQuota", "ResourceQuotaList", "resourcequotas", "resourcequota")
};

pub(super) const LIMIT_RANGE: Resource = Resource {
    short_names: &["limits"],
    columns: columns::CREATED_AT,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("spec.limits[*]", defaults::LIMIT_RANGE_ITEM)]],
        rules: &[&[at("", rules::LIMIT_RANGE)]],
        decode: decode::<core::v1::LimitRange>,
        ..PLAIN
    },
    ..plain("LimitRange", "LimitRangeList", "limitranges", "limitrange")
};

pub(super) const VOLUME: Resource = Resource {
    short_names: &["pv"],
    namespaced: false,
    subresources: &["status"],
    columns: columns::VOLUME,
    has_status: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::VOLUME)]],
        rules: &[&[at("", rules::VOLUME)]],
        immutable: rules::VOLUME_IMMUTABLE,
        status_on_create: StatusOnCreate::Start(pending_status),
        decode: decode::<core::v1::PersistentVolume>,
        ..PLAIN
    },
    ..plain("PersistentVolume", "PersistentVolumeList", "persistentvolumes", "persistentvolume")
};

pub(super) const VOLUME_CLAIM: Resource = Resource {
    short_names: &["pvc"],
    subresources: &["status"],
    columns: columns::VOLUME_CLAIM,
    has_status: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("spec", defaults::VOLUME_CLAIM)]],
        rules: &[&[at("", rules::SPEC_REQUIRED), at("spec", rules::VOLUME_CLAIM)]],
        immutable: rules::VOLUME_CLAIM_IMMUTABLE,
        merge: &[at("status", merge::CONDITIONS)],
        status_on_create: StatusOnCreate::Start(pending_status),
        decode: decode::<core::v1::PersistentVolumeClaim>,
        ..PLAIN
    },
    ..plain(
        "PersistentVolumeClaim",
        "PersistentVolumeClaimList",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
    )
};

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
