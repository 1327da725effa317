//! The modes that program services as rules: iptables, nftables, IPVS.
//!
//! Each has a planner per address family that knows what it wrote last. When anything fails, or an audit finds that
//! somebody took something away, the planners are dropped; the next sync observes the kernel and plans everything anew.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use fairlead_kernel::{KernelError, conntrack, iptables as kernel_iptables, ipvs as kernel_ipvs, nft};
use fairlead_model::{Protocol, View};
use fairlead_plan::{
    LocalNode, Problem, ProxyMode, Scope,
    classic::{self, Family, conntrack::stale},
    iptables, ipvs, nftables,
};

use crate::{NodePortAddresses, ServiceConfig, cluster::Cluster, local::service_networks};

use self::{leftovers::SERVERS_FILE, lenience::Lenience};

pub(crate) mod leftovers;
mod lenience;
mod localnet;
mod notes;

/// Services as rules.
pub(crate) struct Rules {
    mode: ProxyMode,
    node: String,
    services: ServiceConfig,
    state_dir: PathBuf,
    /// What the planners were made with.
    config: classic::Config,
    /// Whether what conntrack cannot place is let through.
    lenience: Lenience,
    /// None until the kernel has been observed, and after a failure.
    planners: Option<[Planner; 2]>,
    /// Open in that mode only.
    ipvs: Option<kernel_ipvs::Ipvs>,
    /// What the file says that IPVS planners made.
    made: BTreeSet<ipvs::Server>,
    problems: classic::Problems,
}

/// A planner of one family.
enum Planner {
    Iptables(iptables::Planner),
    Nftables(nftables::Planner),
    Ipvs(ipvs::Planner),
}

/// A plan of one family.
enum Plan {
    Iptables(Option<iptables::Restore>),
    Nftables(nftables::Scripts),
    Ipvs(ipvs::Plan),
}

impl Rules {
    /// Checks that the machine can do it; none in eBPF mode, which has no rules.
    ///
    /// # Errors
    /// The kernel or a program is missing, or kube-proxy is running.
    pub(crate) async fn open(
        mode: ProxyMode,
        node: &str,
        services: &ServiceConfig,
        state_dir: &Path,
    ) -> Result<Option<Self>, KernelError> {
        if mode == ProxyMode::Ebpf {
            return Ok(None);
        }
        fairlead_kernel::require_no_kube_proxy()?;
        let (mut ipvs, mut made) = (None, BTreeSet::new());
        match mode {
            ProxyMode::Ipvs => {
                ipvs = Some(kernel_ipvs::Ipvs::open()?);
                made = notes::read(&state_dir.join(SERVERS_FILE))?.unwrap_or_default();
            }
            ProxyMode::Nftables => drop(nft::observe(Family::V4).await?),
            ProxyMode::Iptables => drop(kernel_iptables::observe(Family::V4).await?),
            ProxyMode::Ebpf => {}
        }
        // Flows of UDP services must be cleaned from the first change on.
        drop(conntrack::udp_ways(Family::V4).await?);
        let (node, services, state_dir) = (node.to_owned(), services.clone(), state_dir.to_owned());
        let (config, problems) = (classic::Config::default(), classic::Problems::default());
        let lenience = Lenience::default();
        Ok(Some(Self {
            mode,
            node,
            services,
            state_dir,
            config,
            lenience,
            planners: None,
            ipvs,
            made,
            problems,
        }))
    }

    /// Pods' packets have gone past the host's stack so far.
    pub(crate) fn follow_programs(&mut self) {
        self.lenience = Lenience::Begun;
    }

    /// Nothing else carries services or packets any more.
    pub(crate) fn are_in_charge(&mut self, now_ms: u64) {
        self.lenience.hand_over(now_ms);
    }

    /// Makes the kernel hold what the view asks for; returns what could not be done.
    pub(crate) async fn sync(
        &mut self,
        cluster: &Cluster,
        local: &LocalNode,
        scope: Scope<'_>,
        now_ms: u64,
    ) -> Result<Vec<Problem>, KernelError> {
        let tcp_be_liberal = self.lenience.holds(now_ms);
        let config = cluster.read(|inner| self.config(&inner.view, local));
        let config = classic::Config { tcp_be_liberal, ..config };
        if config != self.config {
            (self.config, self.planners) = (config, None);
        }
        let fresh = self.planners.is_none();
        let (mut planners, scope) = match self.planners.take() {
            // Where this node is decides what it prefers.
            Some(planners) if concerns_nodes(scope) => (planners, Scope::All),
            Some(planners) => (planners, scope),
            None => (self.adopt().await?, Scope::All),
        };
        let problems = &mut self.problems;
        let (plans, udp) = cluster.read(|inner| {
            problems.update(&inner.view, scope);
            let plans = planners.each_mut().map(|planner| planner.plan(&inner.view, scope, now_ms));
            (plans, touches_udp(&inner.view, scope))
        });
        let made: BTreeSet<_> = planners.iter().flat_map(Planner::made).collect();
        // Before they are there and until the others are gone, so that the next life knows all, whatever happens.
        self.note(self.made.union(&made).copied().collect())?;
        let refused = self.apply_all(&plans, &mut planners, now_ms).await?;
        self.note(made)?;
        if fresh && self.mode == ProxyMode::Iptables {
            // Not before the rule that guards loopback.
            match self.config.localhost_node_ports {
                true => localnet::allow(&self.state_dir)?,
                false => localnet::put_back(&self.state_dir)?,
            }
        }
        // Only now: what failed before is planned from what the kernel really has.
        self.planners = Some(planners);
        if udp {
            self.end_stale_flows(cluster).await?;
        }
        let mut problems = self.problems.all();
        problems.extend(refused);
        Ok(problems)
    }

    /// Looks whether the kernel still has everything; if not, the next sync writes it all.
    pub(crate) async fn audit(&mut self) -> Result<(), KernelError> {
        let Some(planners) = self.planners.take() else { return Ok(()) };
        for (planner, family) in planners.iter().zip(Family::ALL) {
            let intact = match planner {
                Planner::Iptables(planner) => planner.is_intact(&kernel_iptables::observe(family).await?),
                Planner::Nftables(planner) => planner.is_intact(&nft::observe(family).await?),
                Planner::Ipvs(planner) => planner.is_intact(&self.ipvs()?.observe(family).await?),
            };
            if !intact {
                tracing::warn!(mode = %self.mode, "somebody has removed rules of this proxy; writing them anew");
                return Ok(());
            }
        }
        self.planners = Some(planners);
        Ok(())
    }

    /// When something is due without a change.
    pub(crate) fn next_release_ms(&self) -> Option<u64> {
        let of_planners = self.planners.iter().flatten().filter_map(Planner::next_release_ms);
        of_planners.chain(self.lenience.due_ms()).min()
    }

    /// Observes the kernel.
    async fn adopt(&self) -> Result<[Planner; 2], KernelError> {
        let [v4, v6] = Family::ALL;
        Ok([self.adopt_family(v4).await?, self.adopt_family(v6).await?])
    }

    async fn adopt_family(&self, family: Family) -> Result<Planner, KernelError> {
        let config = self.config.clone();
        Ok(match self.mode {
            ProxyMode::Ebpf | ProxyMode::Iptables => {
                let saved = kernel_iptables::observe(family).await?;
                Planner::Iptables(iptables::Planner::adopt(config, family, saved))
            }
            ProxyMode::Nftables => {
                Planner::Nftables(nftables::Planner::adopt(config, family, nft::observe(family).await?))
            }
            ProxyMode::Ipvs => {
                let observed = self.ipvs()?.observe(family).await?;
                Planner::Ipvs(ipvs::Planner::adopt(config, family, observed, self.made.clone()))
            }
        })
    }

    /// Applies the plans, each whatever becomes of the other. Returns what the kernel does not take.
    async fn apply_all(
        &self,
        plans: &[Plan; 2],
        planners: &mut [Planner; 2],
        now_ms: u64,
    ) -> Result<Vec<Problem>, KernelError> {
        let (mut problems, mut failed) = (Vec::new(), None);
        for ((plan, planner), family) in plans.iter().zip(planners).zip(Family::ALL) {
            match self.apply(family, plan, planner, now_ms).await {
                Ok(more) => problems.extend(more),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(problems), Err)
    }

    /// Applies a plan and tells its planner what has not come about. Returns what the kernel does not take.
    async fn apply(
        &self,
        family: Family,
        plan: &Plan,
        planner: &mut Planner,
        now_ms: u64,
    ) -> Result<Vec<Problem>, KernelError> {
        let mut problems = Vec::new();
        match (plan, planner) {
            (Plan::Iptables(Some(restore)), _) => kernel_iptables::apply(family, restore).await?,
            (Plan::Nftables(scripts), Planner::Nftables(planner)) => {
                // Kernels before 6.2 may still hold a chain that nothing leads to any more.
                if let Some(error) = nft::apply(scripts).await? {
                    tracing::info!(%error, "emptied chains cannot be deleted yet; trying again");
                    planner.keep_what_is_left(now_ms);
                }
            }
            (Plan::Ipvs(plan), Planner::Ipvs(planner)) => {
                for (op, error) in self.ipvs()?.apply(family, plan).await? {
                    planner.refused(&op);
                    problems.push(Problem::Refused { what: op.to_string(), why: error.to_string() });
                }
            }
            _ => {}
        }
        Ok(problems)
    }

    fn note(&mut self, made: BTreeSet<ipvs::Server>) -> Result<(), KernelError> {
        if made != self.made {
            notes::write(&self.state_dir.join(SERVERS_FILE), &made)?;
            self.made = made;
        }
        Ok(())
    }

    async fn end_stale_flows(&self, cluster: &Cluster) -> Result<(), KernelError> {
        for family in Family::ALL {
            let ways = conntrack::udp_ways(family).await?;
            let stale = cluster.read(|inner| stale(&inner.view, &self.config, family, &ways));
            if !stale.is_empty() {
                tracing::debug!(ways = stale.len(), "ending UDP flows to endpoints that are gone");
                conntrack::end(&stale).await?;
            }
        }
        Ok(())
    }

    /// The settings as the node is now.
    fn config(&self, view: &View, local: &LocalNode) -> classic::Config {
        let rules = &self.services.rules;
        let node = view.node(&self.node);
        // Without a network of the whole cluster, pods are those of this node: others come from outside.
        let pod_networks = match rules.pod_networks.is_empty() {
            true => node.map(|node| node.pod_networks.clone()).unwrap_or_default(),
            false => rules.pod_networks.clone(),
        };
        let primary = || self.services.addresses.clone();
        let node_ports = match (&self.services.node_port_addresses, self.mode) {
            // kube-proxy's default in this mode.
            (NodePortAddresses::All, ProxyMode::Nftables) if !primary().is_empty() => {
                classic::NodePortAddresses::Only(primary())
            }
            (NodePortAddresses::All, _) => classic::NodePortAddresses::All,
            _ => {
                let serving =
                    local.addresses.iter().filter(|(_, serves)| **serves).map(|(address, _)| *address);
                classic::NodePortAddresses::Only(serving.collect())
            }
        };
        let on_loopback = match &node_ports {
            classic::NodePortAddresses::All => true,
            classic::NodePortAddresses::Only(addresses) => addresses.iter().any(IpAddr::is_loopback),
        };
        let node_addresses = match self.services.addresses.is_empty() {
            true => node.map(|node| node.addresses.clone()).unwrap_or_default(),
            false => primary(),
        };
        classic::Config {
            node: self.node.clone(),
            masquerade_all: rules.masquerade_all,
            masquerade_bit: rules.masquerade_bit,
            pod_networks,
            node_addresses,
            node_ports,
            local_addresses: local.addresses.keys().filter(|own| !own.is_loopback()).copied().collect(),
            localhost_node_ports: rules.localhost_node_ports && on_loopback,
            service_networks: service_networks(&self.services, view).0,
            tcp_be_liberal: false,
        }
    }

    fn ipvs(&self) -> Result<&kernel_ipvs::Ipvs, KernelError> {
        self.ipvs.as_ref().ok_or(KernelError::MissingFeature {
            feature: "an open handle on IPVS",
            remedy: "restart the agent".to_owned(),
        })
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Planner {
    fn plan(&mut self, view: &View, scope: Scope<'_>, now_ms: u64) -> Plan {
        match self {
            Self::Iptables(planner) => Plan::Iptables(planner.plan(view, scope)),
            Self::Nftables(planner) => Plan::Nftables(planner.plan(view, scope, now_ms)),
            Self::Ipvs(planner) => Plan::Ipvs(planner.plan(view, scope, now_ms)),
        }
    }

    fn made(&self) -> BTreeSet<ipvs::Server> {
        match self {
            Self::Iptables(_) | Self::Nftables(_) => BTreeSet::new(),
            Self::Ipvs(planner) => planner.made(),
        }
    }

    fn next_release_ms(&self) -> Option<u64> {
        match self {
            Self::Iptables(_) => None,
            Self::Nftables(planner) => planner.next_release_ms(),
            Self::Ipvs(planner) => planner.next_release_ms(),
        }
    }
}

fn concerns_nodes(scope: Scope<'_>) -> bool {
    matches!(scope, Scope::Changed(changes) if changes.nodes)
}

/// Whether a UDP service is among those that are looked at, or one that is gone may have been.
fn touches_udp(view: &View, scope: Scope<'_>) -> bool {
    let Scope::Changed(changes) = scope else { return true };
    changes.services.iter().any(|name| {
        view.service(name)
            .is_none_or(|service| service.ports.iter().any(|port| port.protocol == Protocol::Udp))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// `route_localnet` and the rule that guards loopback are for them alone.
    #[test]
    fn loopback_has_node_ports_only_where_it_is_selected() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (node_port_addresses, loopback, asked, expected) in [
            (NodePortAddresses::All, true, true, true),
            (NodePortAddresses::All, true, false, false),
            (NodePortAddresses::Primary, false, true, false),
            (NodePortAddresses::Within(Vec::new()), true, true, true),
        ] {
            let mut services = ServiceConfig { node_port_addresses, ..ServiceConfig::default() };
            services.rules.localhost_node_ports = asked;
            let rules = Rules {
                mode: ProxyMode::Iptables,
                node: "n".into(),
                services,
                state_dir: PathBuf::new(),
                config: classic::Config::default(),
                lenience: Lenience::default(),
                planners: None,
                ipvs: None,
                problems: classic::Problems::default(),
                made: BTreeSet::new(),
            };
            let addresses = BTreeMap::from([(address("127.0.0.1"), loopback), (address("192.0.2.1"), true)]);
            let local = LocalNode { addresses, ..LocalNode::default() };
            assert_eq!(rules.config(&View::default(), &local).localhost_node_ports, expected);
        }
    }
}
