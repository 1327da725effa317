//! Workloads, what scales them and what protects them.

use super::{AGE, Cell, Column, NAME, column, integer, wide};
use crate::table::cells::{self, workload as cell};

const CONTAINERS: Column =
    wide("Containers", Cell::Of(cells::container_names), "The containers of the template.");
const IMAGES: Column =
    wide("Images", Cell::Of(cells::container_images), "The images of the template's containers.");
const SELECTOR: Column = wide("Selector", Cell::Of(cells::label_selector), "The labels of the pods.");

/// Replication controllers.
pub(crate) const REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    integer("Desired", Cell::Of(cells::desired_replicas), "The pods wanted."),
    integer("Current", Cell::Of(cells::current_replicas), "The pods that exist."),
    integer("Ready", Cell::Of(cells::ready_count), "The pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector", Cell::Of(cells::service_selector), "The labels of the pods."),
];

/// Pod templates.
pub(crate) const POD_TEMPLATE: &[Column] = &[
    NAME,
    column("Containers", Cell::Of(cell::template_names), "The containers of the template."),
    column("Images", Cell::Of(cell::template_images), "The images of the template's containers."),
    column("Pod Labels", Cell::Of(cell::template_labels), "The labels of the template."),
];

/// Daemon sets.
pub(crate) const DAEMON_SET: &[Column] = &[
    NAME,
    integer("Desired", Cell::At("/status/desiredNumberScheduled"), "The nodes that should run a pod."),
    integer("Current", Cell::At("/status/currentNumberScheduled"), "The nodes that run a pod and should."),
    integer("Ready", Cell::At("/status/numberReady"), "The nodes whose pod is ready."),
    integer("Up-to-date", Cell::Of(cell::daemons_updated), "The nodes whose pod is of the newest template."),
    integer("Available", Cell::Of(cell::daemons_available), "The nodes whose pod is ready for long enough."),
    column("Node Selector", Cell::Of(cell::node_selector), "The labels of the nodes."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Stateful sets.
pub(crate) const STATEFUL_SET: &[Column] = &[
    NAME,
    column("Ready", Cell::Of(cells::ready_replicas), "The pods that are ready, of those wanted."),
    AGE,
    CONTAINERS,
    IMAGES,
];

/// Controller revisions.
pub(crate) const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    column("Controller", Cell::Of(cell::controller), "Whose revision it is."),
    integer("Revision", Cell::At("/revision"), "The number of the revision."),
    AGE,
];

/// Jobs.
pub(crate) const JOB: &[Column] = &[
    NAME,
    column("Status", Cell::Of(cell::job_status), "Whether it runs, is suspended, or how it ended."),
    column("Completions", Cell::Of(cell::job_completions), "The pods that succeeded, of those wanted."),
    column("Duration", Cell::Of(cell::job_duration), "How long it ran or has been running."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Cron jobs.
pub(crate) const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule", Cell::At("/spec/schedule"), "When it runs."),
    column("Timezone", Cell::Of(cell::time_zone), "Where the schedule's hours are counted."),
    column("Suspend", Cell::Of(cell::suspended), "Whether it makes no new jobs."),
    integer("Active", Cell::Of(cell::active_jobs), "The jobs that run."),
    column("Last Schedule", Cell::Of(cell::last_schedule), "The time since it last made a job."),
    AGE,
    wide("Containers", Cell::Of(cell::cron_names), "The containers of the template."),
    wide("Images", Cell::Of(cell::cron_images), "The images of the template's containers."),
    wide("Selector", Cell::Of(cell::cron_selector), "The labels of the pods."),
];

/// Horizontal pod autoscalers.
pub(crate) const AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference", Cell::Of(cell::scale_target), "What is scaled."),
    column("Targets", Cell::Of(cell::scale_metrics), "What is measured, and what it should be."),
    column("MinPods", Cell::Of(cell::replicas_min), "The fewest pods."),
    integer("MaxPods", Cell::At("/spec/maxReplicas"), "The most pods."),
    integer("Replicas", Cell::Of(cell::scaled_replicas), "The pods there are."),
    AGE,
];

/// The same of `v1`, of which the targets are in more than one place.
pub(crate) const OLD_AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference", Cell::Of(cell::scale_target), "What is scaled."),
    column("Targets", Cell::Of(cell::old_scale_metrics), "What is measured, and what it should be."),
    column("MinPods", Cell::Of(cell::replicas_min), "The fewest pods."),
    integer("MaxPods", Cell::At("/spec/maxReplicas"), "The most pods."),
    integer("Replicas", Cell::Of(cell::scaled_replicas), "The pods there are."),
    AGE,
];

/// Pod disruption budgets.
pub(crate) const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    column("Min Available", Cell::Of(cell::min_available), "How many pods must stay available."),
    column("Max Unavailable", Cell::Of(cell::max_unavailable), "How many pods may be unavailable."),
    integer("Allowed Disruptions", Cell::Of(cell::disruptions_allowed), "How many may be evicted now."),
    AGE,
];

/// Resource quotas.
pub(crate) const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    column("Request", Cell::Of(cell::quota_requests), "What is used of what may be requested."),
    column("Limit", Cell::Of(cell::quota_limits), "What is used of the limits there may be."),
    AGE,
];

/// Kinds that tell only when they were made.
pub(crate) const CREATED_AT: &[Column] = super::CUSTOM_RESOURCE_DEFINITION;

/// Priority classes.
pub(crate) const PRIORITY_CLASS: &[Column] = &[
    NAME,
    integer("Value", Cell::At("/value"), "The priority; the greater number goes first."),
    column("Global-Default", Cell::Of(cell::global_default), "Whether it is of pods that name none."),
    AGE,
    column("PreemptionPolicy", Cell::At("/preemptionPolicy"), "Whether pods of lower priority make room."),
];

/// Runtime classes.
pub(crate) const RUNTIME_CLASS: &[Column] =
    &[NAME, column("Handler", Cell::At("/handler"), "The handler of the container runtime."), AGE];
