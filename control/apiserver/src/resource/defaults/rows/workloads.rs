//! Workloads, and what scales and limits them.

use super::{Default, compute, flag, int, object, recompute, text, when};
use crate::resource::defaults::compute as computed;

/// A replication controller.
pub(crate) const REPLICATION_CONTROLLER: &[Default] = &[
    int("spec.replicas", 1),
    compute("spec.selector", computed::selector_from_template),
    object("spec.template.metadata"),
    recompute("metadata", computed::labels_from_template),
];

/// A stateful set.
pub(crate) const STATEFUL_SET: &[Default] = &[
    int("spec.replicas", 1),
    int("spec.revisionHistoryLimit", 10),
    text("spec.podManagementPolicy", "OrderedReady"),
    object("spec.updateStrategy"),
    text("spec.updateStrategy.type", "RollingUpdate"),
    when("type", &["RollingUpdate"], &object("spec.updateStrategy.rollingUpdate")),
    int("spec.updateStrategy.rollingUpdate.partition", 0),
    object("spec.persistentVolumeClaimRetentionPolicy"),
    text("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain"),
    text("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain"),
    object("spec.template.metadata"),
];

/// What the claims of a stateful set are made from.
pub(crate) const CLAIM_TEMPLATE: &[Default] = &[
    text("apiVersion", "v1"),
    text("kind", "PersistentVolumeClaim"),
    object("status"),
    text("status.phase", "Pending"),
];

/// A daemon set.
pub(crate) const DAEMON_SET: &[Default] = &[
    int("spec.revisionHistoryLimit", 10),
    object("spec.updateStrategy"),
    text("spec.updateStrategy.type", "RollingUpdate"),
    when("type", &["RollingUpdate"], &object("spec.updateStrategy.rollingUpdate")),
    int("spec.updateStrategy.rollingUpdate.maxUnavailable", 1),
    int("spec.updateStrategy.rollingUpdate.maxSurge", 0),
    object("spec.template.metadata"),
];

/// A job.
pub(crate) const JOB: &[Default] = &[
    compute("spec.completions", computed::completions),
    int("spec.parallelism", 1),
    compute("spec.backoffLimit", computed::backoff_limit),
    text("spec.completionMode", "NonIndexed"),
    flag("spec.suspend", false),
    compute("spec.podReplacementPolicy", computed::pod_replacement_policy),
    text("spec.podFailurePolicy.rules[*].onPodConditions[*].status", "True"),
    object("spec.template.metadata"),
    recompute("metadata", computed::labels_from_template),
    recompute("spec", computed::job_selector),
];

/// A cron job.
pub(crate) const CRON_JOB: &[Default] = &[
    text("spec.concurrencyPolicy", "Allow"),
    flag("spec.suspend", false),
    int("spec.successfulJobsHistoryLimit", 3),
    int("spec.failedJobsHistoryLimit", 1),
    object("spec.jobTemplate.metadata"),
    object("spec.jobTemplate.spec.template.metadata"),
];

/// A horizontal pod autoscaler.
pub(crate) const AUTOSCALER: &[Default] = &[
    int("spec.minReplicas", 1),
    compute("spec.metrics", computed::metrics),
    recompute("spec.behavior.scaleUp", computed::scale_up),
    recompute("spec.behavior.scaleDown", computed::scale_down),
];

/// A horizontal pod autoscaler of `v1`; what is measured is defaulted when it is stored.
pub(crate) const OLD_AUTOSCALER: &[Default] = &[int("spec.minReplicas", 1)];

/// A quota.
pub(crate) const RESOURCE_QUOTA: &[Default] = &[recompute("spec.hard", computed::hard_as_text)];

/// One item of a limit range.
pub(crate) const LIMIT_RANGE_ITEM: &[Default] = &[
    compute("default", computed::limit_default),
    compute("defaultRequest", computed::limit_default_request),
];

/// The claim of a volume.
pub(crate) const VOLUME_CLAIM: &[Default] = &[
    text("volumeMode", "Filesystem"),
    object("resources"),
    recompute("resources.limits", computed::limits_as_text),
    recompute("resources.requests", computed::requests_as_text),
];

/// A volume.
pub(crate) const VOLUME: &[Default] = &[
    text("spec.persistentVolumeReclaimPolicy", "Retain"),
    text("spec.volumeMode", "Filesystem"),
    text("spec.hostPath.type", ""),
    recompute("spec.capacity", computed::capacity_as_text),
];
