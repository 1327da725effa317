//! The loop that makes the kernel hold what the feed says.
//!
//! An update is applied to the view, then only what it touched is planned and applied. When an operation fails, what
//! the kernel holds is observed anew and everything is planned again: the same path as after a restart.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_kernel::{Interface, KernelError, State};
use fairlead_model::{Prefix, Update};
use fairlead_plan::{Changes, LocalNode, ObservedRoutes, Op, Planner, Problem, Scope, plan_routes};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval_at, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ServiceConfig,
    cluster::{Changed, Cluster},
    local::{entrances, local_node, service_networks},
    network::Network,
    resolver::Life,
    rules::{Rules, leftovers::Leftovers},
    sockets::Stopped,
    stats::Stats,
};

/// Pause after a failed sync.
const RETRY: Duration = Duration::from_secs(1);
/// How long who is told to stop goes on with what it is applying; systems kill after 30 s or more.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How many problems of one update are told each by itself. A map that is full concerns thousands of services at once.
const TOLD_EACH: usize = 20;

/// What the loop tells the rest of the agent.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) stats: Arc<Stats>,
    /// A complete view has been applied once.
    pub(crate) ready: watch::Sender<bool>,
    /// This node's pod networks; empty while unknown.
    pub(crate) networks: watch::Sender<Vec<Prefix>>,
    /// Endpoints that stopped, once nothing leads to them any more.
    pub(crate) stopped: mpsc::UnboundedSender<Stopped>,
}

/// What the loop is told of beside the feed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// Other interfaces than the uplink have other addresses.
    pub(crate) addresses: Arc<Notify>,
    /// The uplink came, went or changed.
    pub(crate) uplink: Arc<Notify>,
}

/// What waits to be applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Pending {
    changes: Changes,
    all: bool,
}

/// The loop.
#[derive(Debug)]
pub(crate) struct SyncLoop<S> {
    node: String,
    state: S,
    outputs: Outputs,
    services: ServiceConfig,
    signals: Signals,
    /// How the node's own DNS server is.
    life: Option<watch::Receiver<Life>>,
    /// None until the kernel has been observed, and after a failure.
    planner: Option<Planner>,
    routes: Option<ObservedRoutes>,
    /// Routes that have no place in the map.
    no_routes: Option<Problem>,
    /// None until the node's addresses have been observed, and when they may have changed.
    local: Option<LocalNode>,
    /// The node's interfaces as they were observed, and that nobody has looked at them since.
    interfaces: (Vec<Interface>, bool),
    /// The networks of services that the kernel was told of, and those that it was not.
    service_networks: Option<(Vec<Prefix>, Vec<Prefix>)>,
    /// The kernel was told that everything is there.
    complete: bool,
    /// Whether routes to pods are ours.
    routing: bool,
    /// Carries services in place of the maps.
    rules: Option<Rules>,
    /// What is beside the maps is to be looked at.
    look: bool,
    /// Rules or maps are to be compared with what the kernel holds.
    audit: bool,
    /// What other modes left, until this one has taken over.
    leftovers: Option<(Leftovers, Arc<Network>)>,
    pending: Pending,
    retry_at: Option<Instant>,
    started: Instant,
}

/// The first network of each family, which are as many as the programs know, and all others.
fn one_of_each_family((networks, mut left): (Vec<Prefix>, Vec<Prefix>)) -> (Vec<Prefix>, Vec<Prefix>) {
    let mut first: Vec<Prefix> = Vec::new();
    for network in networks {
        let is_known = first.iter().any(|other| other.address.is_ipv4() == network.address.is_ipv4());
        if is_known { &mut left } else { &mut first }.push(network);
    }
    (first, left)
}

/// Warns of problems that are new.
fn warn_of<'a>(mut new: impl Iterator<Item = &'a String>) {
    for problem in new.by_ref().take(TOLD_EACH) {
        tracing::warn!("{problem}");
    }
    let more = new.count();
    if more > 0 {
        tracing::warn!("and {more} more problems like that; `fairlead status` names them");
    }
}

impl<S: State> SyncLoop<S> {
    pub(crate) fn new(node: String, state: S, outputs: Outputs, services: ServiceConfig) -> Self {
        Self {
            node,
            state,
            outputs,
            services,
            signals: Signals::default(),
            life: None,
            planner: None,
            routes: None,
            no_routes: None,
            local: None,
            interfaces: (Vec::new(), false),
            service_networks: None,
            complete: false,
            routing: true,
            rules: None,
            look: false,
            audit: false,
            leftovers: None,
            pending: Pending::default(),
            retry_at: None,
            started: Instant::now(),
        }
    }

    /// To be told when the node itself changes.
    pub(crate) fn signals(&self) -> Signals {
        self.signals.clone()
    }

    /// To be told how the node's own DNS server is.
    pub(crate) fn with_life(mut self, life: Option<watch::Receiver<Life>>) -> Self {
        self.life = life;
        self
    }

    /// Whether routes to pods are ours; they are unless it is said.
    pub(crate) fn with_routes(mut self, routing: bool) -> Self {
        self.routing = routing;
        self
    }

    /// In a mode with rules, or coming from another mode.
    pub(crate) fn with_mode(
        mut self,
        rules: Option<Rules>,
        leftovers: Leftovers,
        network: Arc<Network>,
    ) -> Self {
        self.rules = rules;
        if let Some(rules) = self.rules.as_mut().filter(|_| leftovers.had_shortcuts()) {
            rules.follow_programs();
        }
        self.leftovers = (!leftovers.is_empty()).then_some((leftovers, network));
        self
    }

    /// Runs until it is told to stop or the sender of updates is gone.
    pub(crate) async fn run(mut self, mut updates: mpsc::Receiver<Update>, shutdown: CancellationToken) {
        let period = self.services.repair_period;
        let mut audit = interval_at(tokio::time::Instant::now() + period, period);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life = self.life.take();
        if let Some(life) = &life {
            self.outputs.stats.update(|stats| stats.resolver.turn(*life.borrow()));
        }
        loop {
            let wake = self.next_wake();
            tokio::select! {
                () = shutdown.cancelled() => return,
                update = updates.recv() => match update {
                    Some(update) => {
                        self.take_in(update);
                        // What is there already is cheaper to apply together.
                        while let Ok(update) = updates.try_recv() {
                            self.take_in(update);
                        }
                    }
                    None => return,
                },
                life = next_life(&mut life) => {
                    let changed = self.outputs.cluster.turn(life, &self.node);
                    self.queue(changed, Instant::now());
                    self.outputs.stats.update(|stats| stats.resolver.turn(life));
                }
                () = self.signals.addresses.notified() => self.local = None,
                () = self.signals.uplink.notified() => (self.routes, self.local, self.look) = (None, None, true),
                _ = audit.tick() => {
                    (self.routes, self.local, self.look, self.audit) = (None, None, true, true);
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
            if self.retry_at.is_none_or(|at| at <= Instant::now()) {
                // What is cut short is as if the process had been killed, which the next start puts right.
                let out_of_patience = async {
                    shutdown.cancelled().await;
                    sleep(STOP_GRACE).await;
                };
                tokio::select! {
                    () = self.sync() => {}
                    () = out_of_patience => {
                        tracing::warn!("what was being applied to the kernel has not ended; stopping all the same");
                        return;
                    }
                }
            }
        }
    }

    fn take_in(&mut self, update: Update) {
        let arrived = Instant::now();
        let changed = self.outputs.cluster.apply(update, &self.node);
        self.queue(changed, arrived);
        if let Some(node) = self.outputs.cluster.node(&self.node) {
            self.outputs.networks.send_if_modified(|networks| {
                let changed = *networks != node.pod_networks;
                networks.clone_from(&node.pod_networks);
                changed
            });
        }
    }

    fn queue(&mut self, changed: Changed, arrived: Instant) {
        self.outputs.stats.update(|stats| stats.queued(&changed, arrived));
        let changes = &mut self.pending.changes;
        changes.services.extend(changed.services);
        changes.pods.extend(changed.pods);
        changes.nodes |= changed.nodes;
        self.pending.all |= changed.everything;
    }

    /// Applies what is pending; keeps everything pending when that fails.
    async fn sync(&mut self) {
        let begin = Instant::now();
        let pending = std::mem::take(&mut self.pending);
        let result = self.sync_all(&pending).await;
        let revision = self.outputs.cluster.read(|inner| inner.view.revision());
        let usage = self.planner.as_ref().map(Planner::usage).unwrap_or_default();
        let routes = self.routes.as_ref().map_or(0, |routes| routes.map.len());
        let routes_refused = match &self.no_routes {
            Some(Problem::NoRoutes { networks }) => networks.len(),
            _ => 0,
        };
        match result {
            Ok(problems) => {
                self.retry_at = None;
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let known: HashSet<String> = self.outputs.stats.read().problems.into_iter().collect();
                warn_of(problems.iter().filter(|problem| !known.contains(*problem)));
                let serving = self.local.iter().flat_map(|local| &local.addresses);
                let serving = serving.filter(|(_, serves)| **serves).map(|(address, _)| *address).collect();
                self.outputs.stats.update(|stats| {
                    stats.applied(begin.elapsed());
                    stats.node_port_addresses = serving;
                    stats.problems = problems;
                    stats.revision = revision;
                    (stats.usage, stats.routes) = (usage, routes);
                    stats.routes_refused = routes_refused;
                });
                let complete = self.outputs.cluster.read(|inner| inner.view.is_complete());
                self.outputs.ready.send_if_modified(|ready| complete && !std::mem::replace(ready, complete));
            }
            Err(error) => {
                tracing::error!(%error, "applying the cluster's state failed; observing the kernel and trying again");
                self.planner = None;
                (self.routes, self.local) = (None, None);
                self.pending = Pending { all: true, ..Pending::default() };
                self.retry_at = Some(Instant::now() + RETRY);
                self.outputs.stats.update(|stats| {
                    stats.failures += 1;
                    stats.last_error = Some(error.to_string());
                    stats.pending_since.get_or_insert(begin);
                });
            }
        }
    }

    async fn sync_all(&mut self, pending: &Pending) -> Result<Vec<Problem>, KernelError> {
        if std::mem::take(&mut self.look) {
            self.repair().await;
        }
        let mut problems = match self.rules {
            Some(_) => self.sync_rules(pending).await?,
            None => self.sync_services(pending).await?,
        };
        self.sync_routes(pending).await?;
        problems.extend(self.no_routes.clone());
        if !self.complete && self.outputs.cluster.read(|inner| inner.view.is_complete()) {
            self.state.complete()?;
            self.complete = true;
        }
        if self.complete {
            self.take_over().await?;
            self.serve_on_interfaces(pending)?;
        }
        Ok(problems)
    }

    /// The node, as it was observed or, if it may have changed, as it is now.
    async fn take_local(&mut self) -> Result<LocalNode, KernelError> {
        if let Some(local) = self.local.take() {
            return Ok(local);
        }
        let observed = self.state.observe_local().await?;
        let local = local_node(&observed, &self.services);
        self.interfaces = (observed.interfaces, true);
        Ok(local)
    }

    async fn sync_rules(&mut self, pending: &Pending) -> Result<Vec<Problem>, KernelError> {
        let local = self.take_local().await?;
        let now_ms = self.now_ms();
        let scope = if pending.all { Scope::All } else { Scope::Changed(&pending.changes) };
        let mut problems = Vec::new();
        if let Some(rules) = &mut self.rules {
            if std::mem::take(&mut self.audit) {
                rules.audit().await?;
            }
            problems = rules.sync(&self.outputs.cluster, &local, scope, now_ms).await?;
        }
        self.local = Some(local);
        Ok(problems)
    }

    /// Has clients served who come by whichever interface.
    fn serve_on_interfaces(&mut self, pending: &Pending) -> Result<(), KernelError> {
        let (interfaces, fresh) = &mut self.interfaces;
        let concerned = std::mem::take(fresh) || pending.all || pending.changes.nodes;
        if !concerned || self.rules.is_some() {
            return Ok(());
        }
        let (wanted, networks) = self.outputs.cluster.read(|inner| {
            let node = inner.view.node(&self.node);
            let networks = node.map_or(&[][..], |node| &node.pod_networks);
            let wanted = entrances(interfaces, networks, self.routing);
            (wanted, service_networks(&self.services, &inner.view))
        });
        let networks = one_of_each_family(networks);
        let served = self.state.serve_on(&wanted)?;
        self.outputs.stats.update(|stats| stats.interfaces = served);
        if self.service_networks.as_ref() != Some(&networks) {
            self.state.set_service_networks(&networks.0)?;
            let known = self.service_networks.as_ref().map(|(_, left)| left);
            if known != Some(&networks.1) && !networks.1.is_empty() {
                let left = networks.1.iter().map(|network| format!("{}/{}", network.address, network.length));
                tracing::warn!(
                    networks = left.collect::<Vec<_>>().join(", "),
                    "addresses in these networks of services that no service has are not refused: nodes or pods are in them \
                     too, or another network of the family is known already"
                );
            }
            self.service_networks = Some(networks);
        }
        Ok(())
    }

    /// This mode carries every service: what the one before left can go.
    async fn take_over(&mut self) -> Result<(), KernelError> {
        let Some((mut leftovers, network)) = self.leftovers.take() else { return Ok(()) };
        if let Err(error) = leftovers.take_over(&network).await {
            tracing::error!(%error, "what another proxy mode left cannot be removed yet; trying again");
            self.leftovers = Some((leftovers, network));
            return Ok(());
        }
        let now_ms = self.now_ms();
        if let Some(rules) = &mut self.rules {
            rules.are_in_charge(now_ms);
            self.state.serve_on(&BTreeMap::new())?;
        }
        // Routes past the host's stack may be used from now on.
        self.routes = None;
        self.sync_routes(&Pending { all: true, ..Pending::default() }).await
    }

    /// Whether packets to pods of other nodes may pass the host's stack by.
    fn uses_shortcuts(&self) -> bool {
        self.rules.is_none() && self.leftovers.is_none()
    }

    async fn sync_services(&mut self, pending: &Pending) -> Result<Vec<Problem>, KernelError> {
        let local = self.take_local().await?;
        let now_ms = self.now_ms();
        if std::mem::take(&mut self.audit) {
            self.audit_maps()?;
        }
        let fresh = self.planner.is_none();
        let planner = match &mut self.planner {
            Some(planner) => planner,
            empty => {
                let observed = self.state.observe_services()?;
                let limits = self.services.options.limits();
                empty.insert(Planner::adopt(self.node.as_str(), limits, &observed, now_ms))
            }
        };
        let scope = if fresh || pending.all { Scope::All } else { Scope::Changed(&pending.changes) };
        let plan = self.outputs.cluster.read(|inner| planner.plan(&inner.view, &local, scope, now_ms));
        self.local = Some(local);
        if !plan.ops.is_empty() {
            tracing::debug!(operations = plan.ops.len(), "applying services");
            self.state.apply(&plan.ops).await?;
        }
        if !plan.stopped.is_empty() {
            // Nobody listens when the agent is about to end.
            let _ = self.outputs.stopped.send(plan.stopped);
        }
        Ok(plan.problems)
    }

    /// Puts right what is beside the maps. That it cannot be keeps no service from being programmed.
    async fn repair(&mut self) {
        match self.state.repair().await {
            Ok(repaired) => {
                for what in &repaired {
                    tracing::warn!("somebody else has removed or changed {what}; it is put right");
                }
                self.outputs.stats.update(|stats| {
                    stats.upkeep += repaired.len() as u64;
                    stats.last_upkeep = repaired.into_iter().last().or(stats.last_upkeep.take());
                });
            }
            Err(error) => {
                tracing::error!(%error, "something that the node needs is gone and cannot be put back");
            }
        }
    }

    /// Lets go of the planner when somebody else has written to the maps, so that what they hold is observed anew.
    fn audit_maps(&mut self) -> Result<(), KernelError> {
        let Some(planner) = &self.planner else { return Ok(()) };
        let observed = self.state.observe_services()?;
        if let Some(map) = planner.map_that_differs(&observed) {
            tracing::warn!("somebody else has changed the eBPF map {map}; putting services right");
            self.planner = None;
            self.outputs.stats.update(|stats| stats.repairs += 1);
        }
        Ok(())
    }

    async fn sync_routes(&mut self, pending: &Pending) -> Result<(), KernelError> {
        if !self.routing || (self.routes.is_some() && !pending.changes.nodes && !pending.all) {
            return Ok(());
        }
        let observed = match self.routes.take() {
            Some(observed) => observed,
            None => self.state.observe_routes().await?,
        };
        let capacity = self.services.options.capacities.routes;
        let (mut ops, problem) =
            self.outputs.cluster.read(|inner| plan_routes(&inner.view, &self.node, &observed, capacity));
        self.no_routes = problem;
        if !self.uses_shortcuts() {
            ops.retain(|op| !matches!(op, Op::PutRoute { .. }));
        }
        if ops.is_empty() {
            self.routes = Some(observed);
            return Ok(());
        }
        tracing::debug!(operations = ops.len(), "applying routes");
        self.state.apply(&ops).await?;
        self.routes = Some(self.state.observe_routes().await?);
        Ok(())
    }

    /// When something is due without an update: a retry, or what leaves quarantine.
    fn next_wake(&self) -> Option<Instant> {
        let of_maps = self.planner.as_ref().and_then(Planner::next_release_ms);
        let release = of_maps.or_else(|| self.rules.as_ref().and_then(Rules::next_release_ms));
        let release = release.map(|ms| self.started + Duration::from_millis(ms));
        // After a failure everything waits for the retry.
        self.retry_at.or(release)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How the node's own DNS server is, when that changes.
async fn next_life(life: &mut Option<watch::Receiver<Life>>) -> Life {
    if let Some(life) = life
        && life.changed().await.is_ok()
    {
        return *life.borrow_and_update();
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
