//! The shell around the decision: watches, the queue, bindings in flight.

use std::{collections::HashSet, future, sync::Arc};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bind::{Binder, Outcome, SCHEDULER_NAME},
    cluster::{Cluster, PodNews},
    decide::{Decision, decide},
    pod::PodInfo,
    queue::Queue,
    reports::Reports,
};

/// Writes that may be in flight; what exceeds them waits in the queue.
const IN_FLIGHT_MAX: usize = 64;
/// And how many of those that only say why a pod has no node.
const REPORTS_IN_FLIGHT_MAX: usize = 4;

/// The scheduler of the pods whose `schedulerName` is `default-scheduler`.
pub struct Scheduler {
    client: Client,
    binder: Binder,
    cluster: Cluster,
    queue: Queue,
    reports: Reports,
    nodes: Listing,
    pods: Listing,
}

/// How far the listing of one kind is.
#[derive(Debug, Default)]
struct Listing {
    /// Keys seen since the listing began; `None` outside a listing.
    seen: Option<HashSet<String>>,
    /// Listed at least once.
    done: bool,
}

#[expect(clippy::large_enum_variant, reason = "moved once, from the watch to its handler")]
enum Seen {
    Node(watcher::Event<Node>),
    Pod(watcher::Event<Pod>),
}

impl Scheduler {
    /// A scheduler that works through the given client.
    pub fn new(client: Client) -> Self {
        Self {
            binder: Binder::new(client.clone()),
            client,
            cluster: Cluster::default(),
            queue: Queue::default(),
            reports: Reports::default(),
            nodes: Listing::default(),
            pods: Listing::default(),
        }
    }

    /// Schedules until the shutdown. Interrupted watches are resumed; writes in flight are finished.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut events = watches(&self.client);
        let (mut writes, mut reporting) = (JoinSet::new(), JoinSet::new());
        loop {
            let due = self.queue.next_due();
            let pause = async move {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = events.next() => self.observe(event),
                Some(outcome) = writes.join_next() => self.settle(outcome.ok()),
                Some(_) = reporting.join_next() => {}
                () = pause => {}
            }
            // Whatever else has arrived belongs to the same round.
            while let Some(Some(event)) = events.next().now_or_never() {
                self.observe(event);
            }
            if self.nodes.done && self.pods.done {
                self.schedule(&mut writes);
            }
            self.report(&mut reporting);
        }
        while writes.join_next().await.is_some() || reporting.join_next().await.is_some() {}
    }

    fn observe(&mut self, event: Seen) {
        match event {
            Seen::Node(event) => self.observe_node(event),
            Seen::Pod(event) => self.observe_pod(event),
        }
    }

    fn observe_node(&mut self, event: watcher::Event<Node>) {
        match event {
            watcher::Event::Init => self.nodes.seen = Some(HashSet::new()),
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                if let Some(seen) = &mut self.nodes.seen {
                    seen.insert(node.metadata.name.clone().unwrap_or_default());
                }
                if self.cluster.put_node(&node) {
                    self.queue.wake();
                }
            }
            watcher::Event::InitDone => {
                for name in self.nodes.finish(self.cluster.node_names()) {
                    self.cluster.delete_node(&name);
                }
            }
            watcher::Event::Delete(node) => {
                self.cluster.delete_node(node.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    fn observe_pod(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.pods.seen = Some(HashSet::new()),
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if let Some(seen) = &mut self.pods.seen {
                    seen.insert(uid.clone());
                }
                let pod = Arc::new(pod);
                match self.cluster.put_pod(&pod) {
                    PodNews::Pending if is_ours(&pod) => {
                        self.reports.refresh(&pod);
                        self.queue.put(pod);
                    }
                    news => self.left_queue(&uid, news),
                }
            }
            watcher::Event::InitDone => {
                let mut known = self.cluster.pod_uids();
                known.extend(self.queue.uids());
                for uid in self.pods.finish(known) {
                    let news = self.cluster.delete_pod(&uid);
                    self.left_queue(&uid, news);
                }
            }
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                let news = self.cluster.delete_pod(&uid);
                self.left_queue(&uid, news);
            }
        }
    }

    fn left_queue(&mut self, uid: &str, news: PodNews) {
        self.queue.remove(uid);
        self.reports.remove(uid);
        if news == PodNews::Released {
            self.queue.wake();
        }
    }

    /// Decides about every pod that can be tried.
    fn schedule(&mut self, writes: &mut JoinSet<Outcome>) {
        while writes.len() < IN_FLIGHT_MAX {
            let now = Instant::now();
            let Some(pod) = self.queue.pop(now) else { break };
            let info = PodInfo::new(Arc::clone(&pod));
            match decide(&info, &self.cluster) {
                Decision::Bind(node) => {
                    self.reports.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                    self.cluster.assume(info, &node);
                    writes.spawn(self.binder.clone().bind(pod, node));
                }
                Decision::Unschedulable(diagnosis) => {
                    self.queue.park(Arc::clone(&pod), false, now);
                    self.reports.put(pod, diagnosis.to_string());
                }
            }
        }
    }

    /// Says why pods have no node, of a few at a time.
    fn report(&mut self, reporting: &mut JoinSet<()>) {
        while reporting.len() < REPORTS_IN_FLIGHT_MAX
            && let Some((pod, message)) = self.reports.pop()
        {
            reporting.spawn(self.binder.clone().report(pod, message));
        }
    }

    fn settle(&mut self, outcome: Option<Outcome>) {
        if let Some(Outcome::Failed(pod)) = outcome {
            self.cluster.forget(pod.metadata.uid.as_deref().unwrap_or_default());
            self.queue.park(pod, true, Instant::now());
        }
    }
}

impl Listing {
    /// Ends a listing; returns the known keys that it lacks.
    fn finish(&mut self, known: Vec<String>) -> Vec<String> {
        self.done = true;
        let seen = self.seen.take().unwrap_or_default();
        known.into_iter().filter(|key| !seen.contains(key)).collect()
    }
}

/// Whether the scheduler is responsible for a pod without a node.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let name = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
    !gated && name == SCHEDULER_NAME
}

fn watches(client: &Client) -> BoxStream<'static, Seen> {
    let config = watcher::Config::default;
    let nodes = watcher(Api::<Node>::all(client.clone()), config()).default_backoff();
    let pods = watcher(Api::<Pod>::all(client.clone()), config()).default_backoff();
    let nodes = nodes.filter_map(|event| future::ready(seen(event, Seen::Node)));
    let pods = pods.filter_map(|event| future::ready(seen(event, Seen::Pod)));
    futures::stream::select(nodes, pods).boxed()
}

fn seen<K>(
    event: Result<watcher::Event<K>, watcher::Error>,
    wrap: fn(watcher::Event<K>) -> Seen,
) -> Option<Seen> {
    match event {
        Ok(event) => Some(wrap(event)),
        Err(error) => {
            tracing::warn!(%error, "the scheduler's watch is interrupted; it is resumed");
            None
        }
    }
}
