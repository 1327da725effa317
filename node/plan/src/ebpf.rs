//! Services as maps for the eBPF programs.
//!
//! A port of a service in one family is a *block*: a stable entry in `BACKENDS` for each endpoint that serves, a range of
//! `SLOTS` that names those that new connections may choose, and the frontends that lead to the range. A change writes
//! entries and a range that nobody reads, then replaces the frontends' values one by one, then lets go of what they led to:
//! entries of endpoints that stopped are marked at once, and everything rests for [`slots::GRACE_MS`] before it is used
//! again. A host port of a pod is a block with one backend.
//!
//! The planner knows what the kernel holds, so the work for a change is proportional to the change. After a restart it
//! starts from what it observes, and a plan in which nothing changed is empty. A map that is full refuses what is new and
//! leaves the rest alone. Of two owners of one frontend the one that had it first keeps it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use fairlead_abi::{
    node::NodeValue,
    service::{BackendValue, ServiceKey, ServiceValue},
};
use fairlead_model::{ObjectName, Prefix, Protocol, View};

use self::{
    adopt::{Adopted, Strays},
    backends::Backends,
    block::Block,
    desired::{Desired, Here, desired},
    draft::Draft,
    retry::Retry,
    slots::Slots,
};
pub use self::{
    desired::{BlockName, contains, problems_of},
    local::{Limits, LocalNode, NODE_PORTS},
    problem::{Owner, Problem},
};
use crate::{
    Op,
    select::{Place, Target, node_addresses},
};

mod addresses;
mod adopt;
mod audit;
mod backends;
mod block;
mod desired;
mod draft;
mod local;
mod maglev;
mod problem;
mod retry;
pub mod slots;

/// What the kernel holds of services.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedServices {
    /// All of `SERVICES`.
    pub services: Vec<(ServiceKey, ServiceValue)>,
    /// The beginning of `SLOTS`, as far as it was ever written.
    pub slots: Vec<u32>,
    /// All entries of `BACKENDS` that are not zero.
    pub backends: HashMap<u32, BackendValue>,
    /// All of `SOURCE_RANGES`, by service id.
    pub source_ranges: BTreeSet<(u32, Prefix)>,
    /// All of `ADDRESSES`: bits of `ADDRESS_*`.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// `NODE`.
    pub node: NodeValue,
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everything; what nobody claims is deleted.
    All,
    /// These only, and what a change of nodes concerns.
    Changed(&'a Changes),
}

/// What changed in the view.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Services, or slices of theirs.
    pub services: BTreeSet<ObjectName>,
    /// Pods.
    pub pods: BTreeSet<ObjectName>,
    /// Some node.
    pub nodes: bool,
}

/// What to do, and what could not be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// In this order.
    pub ops: Vec<Op>,
    /// Everything that is not as it was asked for, also by earlier plans.
    pub problems: Vec<Problem>,
    /// Endpoints that no block leads to any more and that sockets may still be connected to: their sockets should be
    /// ended once the operations are applied, so that their owners look for another. UDP only, for TCP has its own end.
    pub stopped: Vec<(Protocol, Target)>,
}

/// How full the maps are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Frontends.
    pub frontends: usize,
    /// Backends in use.
    pub backends: u32,
    /// Slots in use.
    pub slots: u32,
    /// Source ranges.
    pub source_ranges: usize,
    /// Addresses.
    pub addresses: usize,
    /// Services and pods that a full map keeps from being served completely.
    pub refused: usize,
}

/// What the kernel holds and who it belongs to; makes plans from it.
#[derive(Clone, Debug)]
pub struct Planner {
    node: String,
    limits: Limits,
    frontends: HashMap<ServiceKey, Frontend>,
    blocks: HashMap<u32, Block>,
    owned: BTreeMap<Owner, Owned>,
    /// Observed blocks that nobody has claimed yet.
    adopted: HashMap<u32, Adopted>,
    /// Observed backends that no range names.
    strays: Strays,
    slots: Slots,
    backends: Backends,
    last_id: u32,
    source_ranges: usize,
    addresses: addresses::Addresses,
    /// How many live backends have a UDP target.
    udp: HashMap<Target, u32>,
    problems: BTreeMap<Owner, Vec<Problem>>,
    retry: Retry,
    place: Option<KnownPlace>,
}

/// What plans depend on besides the view's services.
#[derive(Clone, PartialEq, Eq, Debug)]
struct KnownPlace {
    zone: String,
    node_addresses: BTreeSet<IpAddr>,
    local: LocalNode,
}

#[derive(Clone, Debug)]
struct Frontend {
    /// Its `service_id` is the block's.
    value: ServiceValue,
    /// A block has it; else it was observed and nobody has claimed it, or it is about to go.
    owned: bool,
}

#[derive(Clone, Debug, Default)]
struct Owned {
    blocks: Vec<u32>,
    /// In order.
    addresses: Vec<IpAddr>,
}

impl Planner {
    /// What it takes to make the kernel hold what the view asks for. Assumes that the operations will be applied; when
    /// one fails, [`Self::adopt`] what is there and plan again. Changes of the node itself need not be announced.
    pub fn plan(&mut self, view: &View, local: &LocalNode, scope: Scope<'_>, now_ms: u64) -> Plan {
        if !view.is_complete() {
            return Plan::default();
        }
        let mut draft = Draft::new(now_ms);
        draft.released = self.release(now_ms);
        let (touched, all) = self.touched(view, local, scope, &mut draft);
        let known = self.place.take().unwrap_or_else(|| KnownPlace::new(view, local, &self.node));
        let place = Place { node: &self.node, zone: &known.zone, node_addresses: &known.node_addresses };
        let here = Here { place, local, limits: &self.limits };
        let of = |owner: Owner| {
            let desired = desired(view, &owner, here);
            (owner, desired)
        };
        let mut wanted: Vec<(Owner, Desired)> = touched.into_iter().map(of).collect();
        self.place = Some(known);
        // After a restart, of two that want one frontend the one that seems to have had it comes first.
        wanted.sort_by_key(|(_, desired)| desired.blocks.iter().any(|block| self.seems_foreign(block)));

        let mut given_up = Vec::new();
        for (owner, desired) in &wanted {
            given_up.extend(self.give_up(owner, desired));
        }
        if all {
            let orphans = self.frontends.iter().filter(|(_, frontend)| !frontend.owned);
            given_up.extend(orphans.map(|(key, _)| *key));
        }
        for (owner, desired) in wanted {
            self.put_owner(owner, desired, &mut draft);
        }
        self.delete_frontends(given_up, &mut draft);
        if all {
            self.forget_unclaimed(&mut draft);
        }
        self.plan_addresses(&mut draft);
        let udp = &self.udp;
        draft.stopped.retain(|target| !udp.contains_key(target));
        // Both owners of a port know that they are in each other's way.
        let problems: BTreeSet<&Problem> = self.problems.values().flatten().collect();
        let plan = draft.finish(problems.into_iter().cloned());
        self.retry.after(!plan.ops.is_empty(), &self.problems, now_ms);
        plan
    }

    /// When a plan has something to do without a change.
    pub fn next_release_ms(&self) -> Option<u64> {
        let releases = [self.slots.next_release_ms(), self.backends.next_release_ms(), self.retry.next_ms()];
        releases.into_iter().flatten().min()
    }

    /// How full the maps are.
    pub fn usage(&self) -> Usage {
        let refused = self.problems.values().filter(|problems| problems.iter().any(Problem::is_limit));
        Usage {
            frontends: self.frontends.len(),
            backends: self.backends.used(),
            slots: self.slots.used(),
            source_ranges: self.source_ranges,
            addresses: self.addresses.len(),
            refused: refused.count(),
        }
    }

    /// Whose a service id is.
    pub fn block(&self, service_id: u32) -> Option<(&Owner, &BlockName)> {
        self.blocks.get(&service_id).map(|block| (&block.owner, &block.name))
    }

    fn release(&mut self, now_ms: u64) -> Vec<Op> {
        self.slots.release(now_ms);
        self.backends.release(now_ms)
    }

    /// Owners to plan for, and whether those are all.
    fn touched(
        &mut self,
        view: &View,
        local: &LocalNode,
        scope: Scope<'_>,
        draft: &mut Draft,
    ) -> (BTreeSet<Owner>, bool) {
        let mut touched = self.retry.next(&self.problems);
        let (all, nodes) = match (scope, &self.place) {
            (Scope::All, _) | (_, None) => (true, true),
            (Scope::Changed(changes), Some(known)) => {
                touched.extend(changes.services.iter().cloned().map(Owner::Service));
                touched.extend(changes.pods.iter().cloned().map(Owner::Pod));
                (known.local != *local || known.zone != zone(view, &self.node), changes.nodes)
            }
        };
        if all || nodes {
            let before = self.place.take().map(|known| known.node_addresses).unwrap_or_default();
            let known = KnownPlace::new(view, local, &self.node);
            let changed: BTreeSet<IpAddr> =
                known.node_addresses.symmetric_difference(&before).copied().collect();
            if !changed.is_empty() && !all {
                let concerned = |block: &&Block| block.concerns(&changed);
                touched.extend(self.blocks.values().filter(concerned).map(|block| block.owner.clone()));
            }
            draft.addresses.extend(changed);
            self.place = Some(known);
        }
        if all {
            touched.extend(view.services().map(|service| Owner::Service(service.name.clone())));
            let here = view.pods().filter(|pod| pod.node == self.node && !pod.host_ports.is_empty());
            touched.extend(here.map(|pod| Owner::Pod(pod.name.clone())));
            touched.extend(self.owned.keys().cloned());
            draft.all_addresses = true;
        }
        (touched, all)
    }

    /// Takes from an owner the frontends that it does not want any more; returns those.
    fn give_up(&mut self, owner: &Owner, desired: &Desired) -> Vec<ServiceKey> {
        let Some(owned) = self.owned.get(owner) else { return Vec::new() };
        let wanted: HashSet<ServiceKey> =
            desired.blocks.iter().flat_map(|block| block.frontends.iter().map(|(key, _)| *key)).collect();
        let keys =
            owned.blocks.iter().filter_map(|id| self.blocks.get(id)).flat_map(|block| &block.frontends);
        let given_up: Vec<ServiceKey> = keys.filter(|key| !wanted.contains(*key)).copied().collect();
        for key in &given_up {
            if let Some(frontend) = self.frontends.get_mut(key) {
                frontend.owned = false;
            }
        }
        given_up
    }

    /// Deletes the frontends that were given up, but for those that somebody else has taken over.
    fn delete_frontends(&mut self, mut given_up: Vec<ServiceKey>, draft: &mut Draft) {
        // In an order, so that equal plans are equal.
        given_up.sort_unstable_by_key(|key| (key.addr.to_ip(), key.port.get(), key.proto, key.scope));
        given_up.dedup();
        for key in given_up {
            if self.frontends.get(&key).is_some_and(|frontend| !frontend.owned) {
                self.frontends.remove(&key);
                draft.delete.push(Op::DeleteService { key });
            }
        }
    }

    fn put_owner(&mut self, owner: Owner, desired: Desired, draft: &mut Draft) {
        let mut problems = desired.problems;
        let before = self.owned.remove(&owner).unwrap_or_default();
        let addresses = desired.addresses.into_iter().collect();
        let mut kept = Owned { blocks: Vec::with_capacity(desired.blocks.len()), addresses };
        for want in &desired.blocks {
            kept.blocks.extend(self.put_block(&owner, &before.blocks, want, draft, &mut problems));
        }
        for id in before.blocks.iter().filter(|id| !kept.blocks.contains(id)) {
            self.drop_block(*id, draft);
        }
        self.addresses.change_owner(&before.addresses, &kept.addresses, &mut draft.addresses);
        if !kept.blocks.is_empty() || !kept.addresses.is_empty() {
            self.owned.insert(owner.clone(), kept);
        }
        if problems.is_empty() {
            self.problems.remove(&owner);
        } else {
            self.problems.insert(owner, problems);
        }
    }
}

impl KnownPlace {
    fn new(view: &View, local: &LocalNode, node: &str) -> Self {
        Self { zone: zone(view, node), node_addresses: node_addresses(view), local: local.clone() }
    }
}

fn zone(view: &View, node: &str) -> String {
    view.node(node).map(|node| node.zone.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
