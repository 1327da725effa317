//! A backend pod is deleted under load: its endpoint leaves, a new pod comes, nobody notices.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, future::Either, stream};
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use super::{NAMESPACE, load::Load};
use crate::{
    cluster::Cluster,
    screen::{detail, human},
};

/// How long the whole replacement may take before the step gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Moments after the deletion was asked for.
#[derive(Default)]
pub struct Replaced {
    pod: String,
    endpoint_left: Option<Duration>,
    created: Option<Duration>,
    replacement: String,
    ready: Option<Duration>,
    endpoint_joined: Option<Duration>,
    gone: Option<Duration>,
}

/// Deletes one backend and watches what follows.
pub async fn run(cluster: &Cluster, load: &Load) -> Result<Replaced> {
    let client = cluster.client().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let before = pods.list(&ListParams::default().labels("app=echo")).await?;
    let known: BTreeSet<String> = before.iter().map(ResourceExt::name_any).collect();
    let victim = known.first().context("there is no echo pod to delete")?.clone();

    let pod_events = watcher(pods, watcher::Config::default().labels("app=echo"));
    let slice_events = watcher(slices, watcher::Config::default().labels("kubernetes.io/service-name=echo"));
    let pod_events = pod_events.default_backoff().map_ok(Either::Left);
    let slice_events = slice_events.default_backoff().map_ok(Either::Right);
    let mut events = stream::select(pod_events, slice_events).boxed();

    cluster.kubectl().run(&["-n", NAMESPACE, "delete", "pod", &victim, "--wait=false"]).await?;
    let clock = Instant::now();
    let mut seen = Replaced { pod: victim, ..Replaced::default() };
    while !seen.is_complete() {
        let left = PATIENCE.checked_sub(clock.elapsed()).unwrap_or_default();
        let Ok(event) = tokio::time::timeout(left, events.next()).await else {
            bail!("the replacement of {} did not finish in {PATIENCE:?}: {}", seen.pod, seen.missing());
        };
        match event.context("the watch ended")?? {
            Either::Left(event) => seen.pod_event(event, &known, clock.elapsed()),
            Either::Right(event) => seen.slice_event(event, clock.elapsed()),
        }
    }
    load.keeps_going(cluster).await.context("after a backend was replaced")?;
    Ok(seen)
}

impl Replaced {
    fn pod_event(&mut self, event: watcher::Event<Pod>, known: &BTreeSet<String>, at: Duration) {
        match event {
            watcher::Event::Delete(pod) if pod.name_any() == self.pod => self.gone = self.gone.or(Some(at)),
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)
                if !known.contains(&pod.name_any()) =>
            {
                self.replacement = pod.name_any();
                self.created = self.created.or(Some(at));
                if is_ready(&pod) {
                    self.ready = self.ready.or(Some(at));
                }
            }
            _ => {}
        }
    }

    fn slice_event(&mut self, event: watcher::Event<EndpointSlice>, at: Duration) {
        let (watcher::Event::Apply(slice) | watcher::Event::InitApply(slice)) = event else { return };
        let ready = |pod: &str| {
            slice.endpoints.iter().flatten().any(|endpoint| {
                let target = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
                let conditions = endpoint.conditions.as_ref();
                target == Some(pod) && conditions.and_then(|conditions| conditions.ready) != Some(false)
            })
        };
        if !ready(&self.pod) {
            self.endpoint_left = self.endpoint_left.or(Some(at));
        }
        if !self.replacement.is_empty() && ready(&self.replacement) {
            self.endpoint_joined = self.endpoint_joined.or(Some(at));
        }
    }

    fn moments(&self) -> [(&'static str, Option<Duration>); 5] {
        [
            ("its endpoint left the service", self.endpoint_left),
            ("a new pod was created", self.created),
            ("the new pod was Ready", self.ready),
            ("its endpoint joined the service", self.endpoint_joined),
            ("the old pod was gone, after its grace", self.gone),
        ]
    }

    fn is_complete(&self) -> bool {
        self.moments().iter().all(|(_, at)| at.is_some())
    }

    fn missing(&self) -> String {
        let open = self.moments().into_iter().filter(|(_, at)| at.is_none());
        open.map(|(what, _)| format!("not yet: {what}")).collect::<Vec<_>>().join("; ")
    }

    /// Prints the moments in their order.
    pub fn print(&self) {
        detail(format!("{} deleted, {} came in its place", self.pod, self.replacement));
        let mut moments = self.moments().map(|(what, at)| (at.unwrap_or_default(), what));
        moments.sort();
        for (at, what) in moments {
            detail(format!("{:>8}  {what}", human(at)));
        }
    }
}

/// The pod's Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
