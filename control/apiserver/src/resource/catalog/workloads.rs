//! Workloads, and what scales and protects them.

use k8s_openapi::api::{apps, autoscaling, batch, policy};

use super::*;

pub(super) const DEPLOYMENT: Resource = Resource {
    group: "apps",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &["status", "scale"],
    columns: columns::DEPLOYMENT,
    has_status: true,
    has_generation: true,
    strategy: &DEPLOYMENT_RULES,
    ..plain("Deployment", "DeploymentList", "deployments", "deployment")
};

static DEPLOYMENT_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::DEPLOYMENT)], TEMPLATE_DEFAULTS],
    rules: &[&[at("", rules::DEPLOYMENT)], TEMPLATE_RULES, ALWAYS_RESTARTED],
    immutable: rules::SELECTOR_IMMUTABLE,
    merge: TEMPLATE_MERGE,
    decode: decode::<apps::v1::Deployment>,
    ..PLAIN
};

pub(super) const REPLICA_SET: Resource = Resource {
    group: "apps",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &["status", "scale"],
    columns: columns::REPLICA_SET,
    field_selectors: &[field("status.replicas", "0")],
    has_status: true,
    has_generation: true,
    strategy: &REPLICA_SET_RULES,
    ..plain("ReplicaSet", "ReplicaSetList", "replicasets", "replicaset")
};

static REPLICA_SET_RULES: Strategy = Strategy {
    defaults: &[OBJECT, &[at("", defaults::REPLICA_SET)], TEMPLATE_DEFAULTS],
    rules: &[&[at("", rules::REPLICA_SET)], TEMPLATE_RULES, ALWAYS_RESTARTED],
    immutable: rules::SELECTOR_IMMUTABLE,
    merge: TEMPLATE_MERGE,
    status_on_create: StatusOnCreate::Start(replica_set_status),
    decode: decode::<apps::v1::ReplicaSet>,
    ..PLAIN
};

pub(super) const STATEFUL_SET: Resource = Resource {
    group: "apps",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &["status", "scale"],
    columns: columns::STATEFUL_SET,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[
            OBJECT,
            &[
                at("", defaults::STATEFUL_SET),
                at("spec.volumeClaimTemplates[*]", defaults::CLAIM_TEMPLATE),
                at("spec.volumeClaimTemplates[*].spec", defaults::VOLUME_CLAIM),
            ],
            TEMPLATE_DEFAULTS,
        ],
        rules: &[&[at("", rules::STATEFUL_SET)], TEMPLATE_RULES, ALWAYS_RESTARTED],
        immutable: rules::STATEFUL_SET_IMMUTABLE,
        merge: TEMPLATE_MERGE,
        status_on_create: StatusOnCreate::Start(stateful_set_status),
        decode: decode::<apps::v1::StatefulSet>,
        ..PLAIN
    },
    ..plain("StatefulSet", "StatefulSetList", "statefulsets", "statefulset")
};

pub(super) const DAEMON_SET: Resource = Resource {
    group: "apps",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &["status"],
    columns: columns::DAEMON_SET,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::DAEMON_SET)], TEMPLATE_DEFAULTS],
        rules: &[&[at("", rules::DAEMON_SET)], TEMPLATE_RULES, ALWAYS_RESTARTED],
        immutable: rules::SELECTOR_IMMUTABLE,
        merge: TEMPLATE_MERGE,
        status_on_create: StatusOnCreate::Start(daemon_set_status),
        decode: decode::<apps::v1::DaemonSet>,
        ..PLAIN
    },
    ..plain("DaemonSet", "DaemonSetList", "daemonsets", "daemonset")
};

pub(super) const CONTROLLER_REVISION: Resource = Resource {
    group: "apps",
    columns: columns::CONTROLLER_REVISION,
    strategy: &Strategy {
        rules: &[&[at("", rules::CONTROLLER_REVISION)]],
        immutable: &[Immutable::Field("data")],
        decode: decode::<apps::v1::ControllerRevision>,
        ..PLAIN
    },
    ..plain("ControllerRevision", "ControllerRevisionList", "controllerrevisions", "controllerrevision")
};

pub(super) const JOB: Resource = Resource {
    group: "batch",
    categories: &["all"],
    subresources: &["status"],
    columns: columns::JOB,
    field_selectors: &[field("status.successful", "0")],
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::JOB)], TEMPLATE_DEFAULTS],
        rules: &[&[at("", rules::JOB), at("spec", rules::JOB_SPEC)], TEMPLATE_RULES, EVENTUALLY_ENDED],
        immutable: rules::JOB_IMMUTABLE,
        merge: TEMPLATE_MERGE,
        decode: decode::<batch::v1::Job>,
        ..PLAIN
    },
    ..plain("Job", "JobList", "jobs", "job")
};

pub(super) const CRON_JOB: Resource = Resource {
    group: "batch",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &["status"],
    columns: columns::CRON_JOB,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        defaults: &[
            OBJECT,
            &[
                at("", defaults::CRON_JOB),
                at("spec.jobTemplate.spec.template.spec", defaults::POD_SPEC),
                at("spec.jobTemplate.spec.template.spec.containers|initContainers[*]", defaults::CONTAINER),
                at(
                    "spec.jobTemplate.spec.template.spec.containers|initContainers[*].livenessProbe|readinessProbe|startupProbe",
                    defaults::PROBE,
                ),
            ],
        ],
        rules: &[&[
            at("", rules::CRON_JOB),
            at("spec.jobTemplate.spec", rules::JOB_SPEC),
            at("spec.jobTemplate.spec.template", rules::TEMPLATE),
            at("spec.jobTemplate.spec.template", rules::ENDING_TEMPLATE),
            at("spec.jobTemplate.spec.template.spec", rules::POD_SPEC),
            at("spec.jobTemplate.spec.template.spec.containers|initContainers[*]", rules::CONTAINER),
        ]],
        merge: &[at("spec.jobTemplate.spec.template.spec", merge::POD_SPEC)],
        decode: decode::<batch::v1::CronJob>,
        ..PLAIN
    },
    ..plain("CronJob", "CronJobList", "cronjobs", "cronjob")
};

pub(super) const AUTOSCALER: Resource = Resource {
    group: "autoscaling",
    version: "v2",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &["status"],
    columns: columns::AUTOSCALER,
    has_status: true,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::AUTOSCALER)]],
        rules: &[&[at("", rules::SPEC_REQUIRED), at("spec", rules::AUTOSCALER)]],
        status_on_create: StatusOnCreate::Start(autoscaler_status),
        decode: decode::<autoscaling::v2::HorizontalPodAutoscaler>,
        ..PLAIN
    },
    ..plain(
        "HorizontalPodAutoscaler",
        "HorizontalPodAutoscalerList",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
    )
};

pub(super) const OLD_AUTOSCALER: Resource = Resource {
    version: "v1",
    columns: columns::OLD_AUTOSCALER,
    strategy: &Strategy {
        defaults: &[OBJECT, &[at("", defaults::OLD_AUTOSCALER)]],
        rules: &[&[
            at("", rules::SPEC_REQUIRED),
            at("spec", rules::AUTOSCALER),
            at("spec", rules::OLD_AUTOSCALER),
        ]],
        status_on_create: StatusOnCreate::Start(old_autoscaler_status),
        decode: decode::<autoscaling::v1::HorizontalPodAutoscaler>,
        conversion: Some(convert::AUTOSCALERS),
        ..PLAIN
    },
    ..AUTOSCALER
};

pub(super) const DISRUPTION_BUDGET: Resource = Resource {
    group: "policy",
    short_names: &["pdb"],
    subresources: &["status"],
    columns: columns::DISRUPTION_BUDGET,
    has_status: true,
    has_generation: true,
    strategy: &Strategy {
        rules: &[&[at("", rules::DISRUPTION_BUDGET)]],
        merge: &[at("status", merge::CONDITIONS)],
        status_on_create: StatusOnCreate::Start(disruption_budget_status),
        decode: decode::<policy::v1::PodDisruptionBudget>,
        ..PLAIN
    },
    ..plain("PodDisruptionBudget", "PodDisruptionBudgetList", "poddisruptionbudgets", "poddisruptionbudget")
};
