//! Workloads, and what scales, protects and limits them.

use super::super::Check::*;
use super::super::{Immutable, Rule, apps, batch, quota};
use super::rule;
use crate::resource::names;

/// A template whose pods run until somebody deletes them.
pub(crate) const LASTING_TEMPLATE: &[Rule] =
    &[rule("spec.restartPolicy", &[With(apps::template_restart_policy)])];

/// A template whose pods end.
pub(crate) const ENDING_TEMPLATE: &[Rule] =
    &[rule("spec.restartPolicy", &[With(batch::template_restart_policy)])];

/// A kind that is nothing without its spec.
pub(crate) const SPEC_REQUIRED: &[Rule] = &[rule("spec", &[Required("")])];

/// A replication controller.
pub(crate) const REPLICATION_CONTROLLER: &[Rule] = &[
    rule("spec", &[Required(""), With(apps::replication_controller_selector)]),
    rule("spec.replicas", &[NotNegative]),
    rule("spec.minReadySeconds", &[NotNegative]),
    rule("spec.template", &[Required("")]),
];

/// A stateful set.
pub(crate) const STATEFUL_SET: &[Rule] = &[
    rule("spec", &[Required(""), With(apps::stateful_set_selector)]),
    rule("spec.replicas", &[NotNegative]),
    rule("spec.minReadySeconds", &[NotNegative]),
    rule("spec.revisionHistoryLimit", &[NotNegative]),
    rule("spec.ordinals.start", &[NotNegative]),
    rule("spec.podManagementPolicy", &[Required(""), With(apps::pod_management)]),
    rule("spec.updateStrategy.type", &[Required(""), With(apps::stateful_strategy)]),
    rule("spec.updateStrategy.rollingUpdate.partition", &[NotNegative]),
    rule("spec.persistentVolumeClaimRetentionPolicy.whenDeleted|whenScaled", &[OneOf(&["Retain", "Delete"])]),
    rule("spec.template", &[Required("")]),
];

/// What of a stateful set may not change.
pub(crate) const STATEFUL_SET_IMMUTABLE: &[Immutable] = &[Immutable::With(apps::stateful_set_unchanged)];

/// A daemon set.
pub(crate) const DAEMON_SET: &[Rule] = &[
    rule("spec", &[Required(""), With(apps::daemon_set_selector)]),
    rule("spec.minReadySeconds", &[NotNegative]),
    rule("spec.revisionHistoryLimit", &[NotNegative]),
    rule("spec.updateStrategy.type", &[OneOf(&["OnDelete", "RollingUpdate"])]),
    rule("spec.updateStrategy", &[With(apps::daemon_strategy)]),
    rule("spec.template", &[Required("")]),
];

/// A revision of a controller.
pub(crate) const CONTROLLER_REVISION: &[Rule] =
    &[rule("data", &[Required("data is mandatory")]), rule("revision", &[NotNegative])];

/// A job.
pub(crate) const JOB: &[Rule] =
    &[rule("spec", &[Required(""), With(batch::selector)]), rule("spec.template", &[Required("")])];

/// The spec of a job, and that of a cron job's template.
pub(crate) const JOB_SPEC: &[Rule] = &[
    rule("", &[With(batch::indexed)]),
    rule("parallelism", &[NotNegative]),
    rule("completions", &[NotNegative]),
    rule("activeDeadlineSeconds", &[NotNegative]),
    rule("backoffLimit", &[NotNegative]),
    rule("backoffLimitPerIndex", &[NotNegative]),
    rule("maxFailedIndexes", &[NotNegative]),
    rule("ttlSecondsAfterFinished", &[NotNegative]),
    rule("completionMode", &[OneOf(&["NonIndexed", "Indexed"])]),
    rule("podReplacementPolicy", &[OneOf(&["TerminatingOrFailed", "Failed"])]),
    rule(
        "podFailurePolicy.rules[*].action",
        &[Required(""), OneOf(&["Count", "FailIndex", "FailJob", "Ignore"])],
    ),
    rule("managedBy", &[Syntax(names::qualified_name)]),
];

/// What of a job may not change.
pub(crate) const JOB_IMMUTABLE: &[Immutable] = &[
    Immutable::Field("spec.selector"),
    Immutable::Field("spec.completionMode"),
    Immutable::Field("spec.podFailurePolicy"),
    Immutable::Field("spec.backoffLimitPerIndex"),
    Immutable::Field("spec.managedBy"),
    Immutable::With(batch::job_unchanged),
];

/// A cron job.
pub(crate) const CRON_JOB: &[Rule] = &[
    rule("metadata.name", &[With(batch::cron_job_name)]),
    rule("spec", &[Required("")]),
    rule("spec.schedule", &[Required(""), With(batch::schedule)]),
    rule("spec.timeZone", &[With(batch::time_zone)]),
    rule("spec.startingDeadlineSeconds", &[NotNegative]),
    rule("spec.concurrencyPolicy", &[Required(""), OneOf(&["Allow", "Forbid", "Replace"])]),
    rule("spec.successfulJobsHistoryLimit", &[NotNegative]),
    rule("spec.failedJobsHistoryLimit", &[NotNegative]),
    rule("spec.jobTemplate", &[With(batch::job_template)]),
];

/// A horizontal pod autoscaler's spec.
pub(crate) const AUTOSCALER: &[Rule] = &[
    rule("", &[With(quota::replica_bounds)]),
    rule("scaleTargetRef.kind", &[Required(""), Syntax(names::path_segment)]),
    rule("scaleTargetRef.name", &[Required(""), Syntax(names::path_segment)]),
    rule("scaleTargetRef", &[Required("")]),
    rule("metrics[*]", &[With(quota::metric)]),
    rule(
        "metrics[*].type",
        &[Required(""), OneOf(&["ContainerResource", "External", "Object", "Pods", "Resource"])],
    ),
    rule("behavior.scaleUp|scaleDown", &[With(quota::scaling_rules)]),
];

/// What else holds of one of `v1`.
pub(crate) const OLD_AUTOSCALER: &[Rule] = &[rule("targetCPUUtilizationPercentage", &[Positive])];

/// A pod disruption budget.
pub(crate) const DISRUPTION_BUDGET: &[Rule] = &[
    rule("spec", &[With(quota::budget)]),
    rule("spec.selector", &[With(apps::label_selector)]),
    rule("spec.unhealthyPodEvictionPolicy", &[OneOf(&["IfHealthyBudget", "AlwaysAllow"])]),
];

/// A quota.
pub(crate) const RESOURCE_QUOTA: &[Rule] = &[
    rule("spec.hard", &[With(quota::hard)]),
    rule("spec.hard{*}", &[Quantity]),
    rule("status.hard|used{*}", &[Quantity]),
    rule("spec.scopes", &[With(quota::scopes)]),
];

/// What of a quota may not change.
pub(crate) const RESOURCE_QUOTA_IMMUTABLE: &[Immutable] = &[Immutable::Field("spec.scopes")];

/// A limit range.
pub(crate) const LIMIT_RANGE: &[Rule] = &[rule("spec.limits", &[With(quota::limits)])];

/// A volume.
pub(crate) const VOLUME: &[Rule] = &[
    rule("spec", &[Required(""), With(quota::volume)]),
    rule("spec.capacity", &[Required("")]),
    rule("spec.capacity{*}", &[Quantity]),
    rule("spec.accessModes", &[Required("")]),
    rule("spec.accessModes[*]", &[OneOf(ACCESS_MODES)]),
    rule("spec.persistentVolumeReclaimPolicy", &[OneOf(&["Delete", "Recycle", "Retain"])]),
    rule("spec.volumeMode", &[OneOf(&["Block", "Filesystem"])]),
];

/// What of a volume may not change.
pub(crate) const VOLUME_IMMUTABLE: &[Immutable] = &[Immutable::Field("spec.volumeMode")];

const ACCESS_MODES: &[&str] = &["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

/// The spec of a claim.
pub(crate) const VOLUME_CLAIM: &[Rule] = &[
    rule("", &[With(quota::claim)]),
    rule("accessModes", &[Required("at least 1 access mode is required")]),
    rule("accessModes[*]", &[OneOf(ACCESS_MODES)]),
    rule("resources.requests{*}", &[Quantity]),
    rule("selector", &[With(apps::label_selector)]),
    rule("storageClassName", &[Syntax(names::dns_subdomain)]),
    rule("volumeMode", &[OneOf(&["Block", "Filesystem"])]),
];

/// What of a claim may not change.
pub(crate) const VOLUME_CLAIM_IMMUTABLE: &[Immutable] = &[Immutable::With(quota::claim_unchanged)];
