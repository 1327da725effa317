//! One pod's life: looks at what is wanted and what happened, does the next thing, tells the status.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Summary,
    labels::{self, Found},
    plan::{self, RestartPolicy, Step},
    record::{self, Record, Role, State, Termination},
    start::Sandbox,
    writer,
};
use crate::{
    Error,
    containerd::Exit,
    logs::{self, reader::tail_text},
    network::PodIdentity,
    pod_files,
    probe::{Outcome, ProbeKind, Prober},
    status::View,
};

/// Longest termination message (upstream's limit).
const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;
/// Pause before a failed removal is tried again.
const REMOVAL_RETRY: Duration = Duration::from_secs(1);
/// Exit code of a container whose end nobody saw.
const EXIT_CODE_UNKNOWN: i32 = 255;

/// What the API wants of the pod.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone.
    pub(crate) removed: bool,
}

/// What happens to a container, told by the tasks that watch it.
#[derive(Debug)]
pub(super) enum Signal {
    Exited {
        id: String,
        exit: Option<Exit>,
    },
    Probed {
        id: String,
        kind: ProbeKind,
        outcome: Outcome,
    },
    /// A hook after the start failed.
    HookFailed {
        id: String,
        message: String,
    },
}

/// A pod's worker.
pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: PodIdentity,
    pub(super) pod: Arc<Pod>,
    pub(super) records: Vec<Record>,
    pub(super) sandbox: Option<Sandbox>,
    /// Not to be tried again before; the pause then.
    pub(super) sandbox_retry: Option<(Instant, Duration)>,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) tasks: JoinSet<()>,
    /// Probes of running containers, by container identifier.
    pub(super) probes: HashMap<String, Vec<AbortHandle>>,
    /// What probes and hooks ask through, by container identifier.
    pub(super) probers: HashMap<String, Arc<Prober>>,
    /// Seconds of grace, once the pod is to end.
    pub(super) terminating: Option<i64>,
    incoming: mpsc::Receiver<Signal>,
    desired: watch::Receiver<Desired>,
    summary: watch::Sender<Summary>,
    status: watch::Sender<PodStatus>,
    succeeded: Option<bool>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        identity: PodIdentity,
        mut desired: watch::Receiver<Desired>,
        summary: watch::Sender<Summary>,
    ) -> Self {
        let pod = desired.borrow_and_update().pod.clone();
        desired.mark_changed();
        let (signals, incoming) = mpsc::channel(64);
        let (status, _) = watch::channel(pod.status.clone().unwrap_or_default());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let succeeded = match phase {
            Some("Succeeded") => Some(true),
            Some("Failed") => Some(false),
            _ => None,
        };
        Self {
            records: record::of_pod(&pod),
            shared,
            identity,
            pod,
            sandbox: None,
            sandbox_retry: None,
            signals,
            tasks: JoinSet::new(),
            probes: HashMap::new(),
            probers: HashMap::new(),
            terminating: None,
            incoming,
            desired,
            summary,
            status,
            succeeded,
        }
    }

    /// Runs until the pod is removed, or `shutdown`; then containers go on.
    pub(crate) async fn run(mut self, found: Vec<Found>, shutdown: CancellationToken) {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &self.identity.namespace);
        let written = self.pod.status.clone().unwrap_or_default();
        let (name, uid) = (self.identity.name.clone(), self.identity.uid.clone());
        let mut writer = JoinSet::new();
        writer.spawn(writer::write(api.clone(), name, uid, written, self.status.subscribe()));
        self.adopt(found).await;
        loop {
            self.observe_desired().await;
            let wake = match self.reconcile().await {
                Some(wake) => wake,
                None => break,
            };
            self.publish();
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                Some(signal) = self.incoming.recv() => self.handle(signal).await,
                () = sleep_until(wake) => {}
                () = shutdown.cancelled() => return,
            }
            while self.tasks.try_join_next().is_some() {}
        }
        tokio::select! {
            () = self.finish(&api, writer) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn observe_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        self.pod = desired.pod;
        let grace = if desired.removed {
            Some(0)
        } else {
            let metadata = &self.pod.metadata;
            metadata.deletion_timestamp.as_ref().map(|_| metadata.deletion_grace_period_seconds.unwrap_or(30))
        };
        if let Some(grace) = grace
            && self.terminating.is_none_or(|before| grace < before)
        {
            self.terminating = Some(grace);
            // Not ready any more: said before anything else is done.
            self.publish();
            self.stop_all(Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
        }
    }

    /// Does what can be done now. `None`: everything has ended and the pod is to be removed.
    async fn reconcile(&mut self) -> Option<Option<Instant>> {
        loop {
            if self.terminating.is_some() {
                return self.any_running().then_some(None);
            }
            if self.succeeded.is_some() {
                return Some(None);
            }
            let now = Instant::now();
            if let Some((at, _)) = self.sandbox_retry
                && at > now
            {
                return Some(Some(at));
            }
            let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
            match plan::next(RestartPolicy::parse(policy), &self.records, now) {
                Step::Wait(wake) => return Some(wake),
                Step::Start(index) => {
                    if self.ensure_sandbox().await {
                        self.start_container(index).await;
                    }
                    self.publish();
                    if self.desired.has_changed().unwrap_or(true) {
                        return Some(Some(Instant::now()));
                    }
                }
                Step::Finished { .. } if self.any_running() => {
                    if self.records.iter().any(|record| record.running_id().is_some() && !record.stopping) {
                        self.stop_all(self.grace());
                    }
                    return Some(None);
                }
                Step::Finished { succeeded } => {
                    self.succeeded = Some(succeeded);
                    self.sandbox = None;
                    if let Err(error) = self.shared.network.detach(&self.identity.uid).await {
                        tracing::warn!(%error, pod = self.identity.name, "network of an ended pod not taken back");
                    }
                }
            }
        }
    }

    pub(super) async fn handle(&mut self, signal: Signal) {
        match signal {
            Signal::Exited { id, exit } => {
                if let Some(index) = self.index_of(&id) {
                    self.exited(index, id, exit).await;
                }
            }
            Signal::Probed { id, kind, outcome } => {
                if let Some(index) = self.index_of(&id) {
                    self.probed(index, kind, &outcome);
                }
            }
            Signal::HookFailed { id, message } => {
                if let Some(index) = self.index_of(&id) {
                    self.event(Some(index), true, "FailedPostStartHook", message);
                    self.stop(index, self.grace(), "its postStart hook failed");
                }
            }
        }
    }

    pub(super) async fn exited(&mut self, index: usize, id: String, exit: Option<Exit>) {
        for probe in self.probes.remove(&id).unwrap_or_default() {
            probe.abort();
        }
        self.probers.remove(&id);
        let shared = self.shared.clone();
        let record = &self.records[index];
        let out_of_memory = shared.cgroups.was_out_of_memory(&self.identity.uid, &id);
        let exit = exit.unwrap_or(Exit { code: EXIT_CODE_UNKNOWN, at: Timestamp::now() });
        let reason = match exit.code {
            _ if out_of_memory => "OOMKilled",
            0 => "Completed",
            EXIT_CODE_UNKNOWN => "ContainerStatusUnknown",
            _ => "Error",
        };
        let started_at = match &record.state {
            State::Running { started_at, .. } => Some(*started_at),
            _ => None,
        };
        let message = self.termination_message(index, &id, exit.code);
        let end = Termination {
            id: id.clone(),
            exit_code: exit.code,
            reason: reason.to_owned(),
            message,
            started_at,
            finished_at: exit.at,
        };
        // Deleting the task waits for the end of its log.
        if let Err(error) = shared.containerd.delete_task(&id).await {
            tracing::warn!(%error, "ended task not deleted");
        }
        if let Err(error) = shared.containerd.label_container(&id, labels::end(&end)).await {
            tracing::warn!(%error, "end of container not recorded");
        }
        self.records[index].exited(end, Instant::now());
        if let Some(at) = self.records[index].not_before
            && self.terminating.is_none()
        {
            let name = &self.records[index].container.name;
            let pause = at.saturating_duration_since(Instant::now()).as_secs_f32().ceil();
            let message = format!("Back-off {pause} s restarting failed container {name}");
            self.event(Some(index), true, "BackOff", message);
        }
    }

    fn termination_message(&self, index: usize, id: &str, exit_code: i32) -> String {
        let container = &self.records[index].container;
        let file = pod_files::termination_log(&self.shared.pod_directory(&self.identity.uid), id);
        let text = tail_text(&file, TERMINATION_MESSAGE_BYTES_MAX);
        let from_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if !text.is_empty() || !from_log || exit_code == 0 {
            return text;
        }
        let attempt = self.records[index].restarts();
        let log = logs::file(&self.shared.config.log_dir, &self.identity, &container.name, attempt);
        tail_text(&log, TERMINATION_MESSAGE_BYTES_MAX / 2)
    }

    fn probed(&mut self, index: usize, kind: ProbeKind, outcome: &Outcome) {
        if let Outcome::Failed(message) | Outcome::Unhealthy(message) = outcome {
            let text = format!("{} probe failed: {message}", kind.name());
            self.event(Some(index), true, "Unhealthy", text);
        }
        let healthy = *outcome == Outcome::Healthy;
        let unhealthy = matches!(outcome, Outcome::Unhealthy(_));
        match kind {
            ProbeKind::Readiness if healthy || unhealthy => self.records[index].probed_ready = healthy,
            ProbeKind::Startup if healthy => {
                self.records[index].startup_passed = true;
                self.start_probes(index);
            }
            ProbeKind::Startup | ProbeKind::Liveness if unhealthy => {
                let reason =
                    format!("it failed its {} probe and will be restarted", kind.name().to_lowercase());
                let probe = match kind {
                    ProbeKind::Startup => self.records[index].container.startup_probe.as_ref(),
                    _ => self.records[index].container.liveness_probe.as_ref(),
                };
                let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
                let grace = own.and_then(|secs| u64::try_from(secs).ok()).map(Duration::from_secs);
                self.stop(index, grace.unwrap_or(self.grace()), &reason);
            }
            _ => {}
        }
    }

    /// Tells everybody what is.
    fn publish(&mut self) {
        let own = self.status.borrow().clone();
        let theirs = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let before = PodStatus {
            conditions: Some(merge_conditions(own.conditions.as_deref(), theirs.map(Vec::as_slice))),
            ..own
        };
        let addresses = self.sandbox.as_ref().map(|sandbox| sandbox.addresses.clone());
        let before_addresses = before.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
        let status = View {
            pod: &self.pod,
            records: &self.records,
            addresses: &addresses.unwrap_or(before_addresses),
            host_ips: &self.shared.config.node_ips,
            before: &before,
            sandbox_ready: self.sandbox.is_some(),
            terminating: self.terminating.is_some(),
            succeeded: self.succeeded,
            now: Timestamp::now(),
        }
        .status();
        let containers = self.records.iter().map(|record| {
            (record.container.name.clone(), record.next_attempt, record.running_id().is_some())
        });
        let mut pod = (*self.pod).clone();
        pod.status = Some(status.clone());
        self.summary.send_replace(Summary { pod: Arc::new(pod), containers: containers.collect() });
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    /// Removes everything of the pod, tells its last status, and lets the API forget it.
    async fn finish(mut self, api: &Api<Pod>, mut writer: JoinSet<()>) {
        while let Err(error) = self.remove().await {
            tracing::warn!(%error, pod = self.identity.name, "pod not removed yet; trying again");
            tokio::time::sleep(REMOVAL_RETRY).await;
        }
        self.sandbox = None;
        self.publish();
        if self.desired.borrow().removed {
            return;
        }
        let Self { identity, status, .. } = self;
        drop(status);
        writer.join_next().await;
        let preconditions = Preconditions { uid: Some(identity.uid.clone()), resource_version: None };
        let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
        loop {
            match api.delete(&identity.name, &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => tracing::warn!(%error, pod = identity.name, "pod not deleted; trying again"),
            }
            tokio::time::sleep(REMOVAL_RETRY).await;
        }
    }

    async fn remove(&self) -> Result<(), Error> {
        for record in &self.records {
            for attempt in record.next_attempt.saturating_sub(2)..record.next_attempt {
                let id = labels::container_id(&self.identity.uid, &record.container.name, attempt);
                self.shared.containerd.delete_container(&id).await?;
            }
        }
        self.shared.clean_up(&self.identity.uid).await?;
        let log_directory = logs::pod_directory(&self.shared.config.log_dir, &self.identity);
        crate::volumes::remove(&log_directory)
    }

    pub(super) fn event(
        &self,
        container: Option<usize>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let name = container.map(|index| self.records[index].container.name.as_str());
        self.shared.recorder.pod(&self.pod, name, warning, reason, message);
    }

    /// The pod's usual grace period.
    pub(super) fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30))
    }

    fn any_running(&self) -> bool {
        self.records.iter().any(|record| record.running_id().is_some())
    }

    fn index_of(&self, id: &str) -> Option<usize> {
        self.records.iter().position(|record| record.running_id() == Some(id))
    }

    fn stop_all(&mut self, grace: Duration) {
        // Sidecars serve the others until those have ended.
        let apps_run = self.records.iter().any(|r| r.role != Role::Sidecar && r.running_id().is_some());
        for index in 0..self.records.len() {
            if !(apps_run && self.records[index].role == Role::Sidecar && self.terminating.is_none()) {
                self.stop(index, grace, "the pod ends");
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Our conditions as we last told them, those of others as the API has them.
fn merge_conditions(
    own: Option<&[k8s_openapi::api::core::v1::PodCondition]>,
    theirs: Option<&[k8s_openapi::api::core::v1::PodCondition]>,
) -> Vec<k8s_openapi::api::core::v1::PodCondition> {
    let own = own.unwrap_or_default();
    let is_ours = |kind: &str| crate::status::OWN_CONDITIONS.contains(&kind);
    let ours = own.iter().filter(|condition| is_ours(&condition.type_));
    let others = theirs.unwrap_or_default().iter().filter(|condition| !is_ours(&condition.type_));
    ours.chain(others).cloned().collect()
}
