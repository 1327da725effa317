//! Services as maps for the socket programs.
//!
//! A frontend is one value in `SERVICES` that points at a contiguous range of `BACKENDS`. To change it, the new
//! backends go into a range nobody reads, then the one value is replaced, then the old range rests for
//! [`slots::GRACE_MS`] before it is reused. A plan in which nothing changed is empty, so a restart writes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_abi::{
    Addr16, Be16, names,
    service::{BackendValue, SERVICE_LOCAL_ONLY, ServiceKey, ServiceValue},
};
use fairlead_model::{ObjectName, View};

use self::{
    desired::{Desired, desired},
    slots::Slots,
};
use crate::{
    Op,
    select::{Place, Target},
};

mod desired;
pub mod slots;

/// What the kernel holds of services.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedServices {
    /// All of `SERVICES`.
    pub services: Vec<(ServiceKey, ServiceValue)>,
    /// All slots of `BACKENDS` that are not zero.
    pub backends: HashMap<u32, BackendValue>,
}

/// Which services to look at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All; frontends that no service claims are deleted.
    All,
    /// These only.
    Services(&'a BTreeSet<ObjectName>),
}

/// What to do, and what could not be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// In this order.
    pub ops: Vec<Op>,
    /// Frontends that were left as they are; they are tried again with every plan.
    pub problems: Vec<Problem>,
}

/// Why a frontend could not be planned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Two services have the same address, port and protocol.
    Taken {
        /// The one that was left out.
        service: ObjectName,
        /// The one that has the frontend.
        owner: ObjectName,
    },
    /// `SERVICES` is full.
    TooManyFrontends {
        /// The service that was left out.
        service: ObjectName,
    },
    /// `BACKENDS` has no contiguous range of that length.
    TooManyBackends {
        /// The service that was left as it was.
        service: ObjectName,
        /// How many slots it needs.
        needed: usize,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken { service, owner } => {
                write!(f, "service {service} is not programmed: {owner} has the same address and port")
            }
            Self::TooManyFrontends { service } => write!(
                f,
                "service {service} is not programmed: the node holds {} frontends already",
                names::SERVICES.capacity
            ),
            Self::TooManyBackends { service, needed } => {
                write!(f, "service {service} keeps its old endpoints: no room for {needed} backends")
            }
        }
    }
}

/// How full the maps are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Frontends.
    pub frontends: usize,
    /// Backend slots in use.
    pub backends: u32,
}

/// What the kernel holds and who it belongs to; makes plans from it.
#[derive(Clone, Debug)]
pub struct Planner {
    node: String,
    frontends: HashMap<ServiceKey, Frontend>,
    owned: BTreeMap<ObjectName, Vec<ServiceKey>>,
    service_ids: BTreeMap<ObjectName, u32>,
    /// The values of `service_ids`.
    ids_in_use: BTreeSet<u32>,
    /// Services with a problem.
    waiting: BTreeSet<ObjectName>,
    slots: Slots,
    last_service_id: u32,
    last_generation: u32,
}

#[derive(Clone, Debug)]
struct Frontend {
    owner: Option<ObjectName>,
    value: ServiceValue,
    /// Content of the range; empty also when it was unusable.
    targets: Vec<Target>,
}

impl Planner {
    /// Starts from what the kernel holds: service ids and ranges are kept as long as they are right.
    pub fn adopt(node: impl Into<String>, observed: &ObservedServices, now_ms: u64) -> Self {
        let mut slots = Slots::new(names::BACKENDS.capacity);
        let mut frontends = HashMap::new();
        let mut live = BTreeSet::new();
        for (key, value) in &observed.services {
            let count = value.active.saturating_add(value.terminating);
            let range = value.first..value.first.saturating_add(count);
            let targets: Option<Vec<_>> =
                range.clone().map(|slot| target_of(observed.backends.get(&slot)?, key)).collect();
            let mut frontend = Frontend { owner: None, value: *value, targets: Vec::new() };
            let ours = slots.adopt(value.first, count);
            match targets {
                Some(targets) if ours => {
                    frontend.targets = targets;
                    live.extend(range);
                }
                // Whatever wrote that: the next plan gives the frontend a new range, this one rests.
                _ => {
                    (frontend.value.active, frontend.value.terminating) = (0, 0);
                    slots.quarantine(value.first, if ours { count } else { 0 }, Vec::new(), now_ms);
                }
            }
            frontends.insert(*key, frontend);
        }
        let in_use: BTreeSet<Target> = frontends.values().flat_map(|f| f.targets.iter().copied()).collect();
        let left_over = observed.backends.iter().filter(|(slot, value)| {
            let target = Target { address: value.addr.to_ip(), port: value.port.get() };
            !live.contains(*slot) && value.generation != 0 && !in_use.contains(&target)
        });
        for (slot, _) in left_over {
            if slots.adopt(*slot, 1) {
                slots.quarantine(*slot, 1, vec![*slot], now_ms);
            }
        }
        Self {
            node: node.into(),
            last_service_id: frontends.values().map(|f| f.value.service_id).max().unwrap_or(0),
            last_generation: observed.backends.values().map(|b| b.generation).max().unwrap_or(0),
            frontends,
            owned: BTreeMap::new(),
            service_ids: BTreeMap::new(),
            ids_in_use: BTreeSet::new(),
            waiting: BTreeSet::new(),
            slots,
        }
    }

    /// What it takes to make the kernel hold what the view asks for. Assumes that the operations will be applied; when
    /// one fails, [`Self::adopt`] what is there and plan for [`Scope::All`] again.
    pub fn plan(&mut self, view: &View, scope: Scope<'_>, now_ms: u64) -> Plan {
        let mut plan = Plan::default();
        if !view.is_complete() {
            return plan;
        }
        plan.ops = self.release(now_ms);
        let zone = view.node(&self.node).map(|node| node.zone.clone()).unwrap_or_default();
        let node = self.node.clone();
        let place = Place { node: &node, zone: &zone };
        let touched = self.touched(view, scope);
        let wanted: BTreeMap<&ObjectName, Vec<Desired>> =
            touched.iter().map(|name| (name, desired(view, name, place))).collect();

        let mut given_up = self.give_up(&wanted);
        if matches!(scope, Scope::All) {
            let orphans = self.frontends.iter().filter(|(_, frontend)| frontend.owner.is_none());
            given_up.extend(orphans.map(|(key, _)| *key));
        }
        for (name, frontends) in wanted {
            for want in frontends {
                if let Err(problem) = self.put(name, &want, now_ms, &mut plan.ops) {
                    self.waiting.insert(name.clone());
                    plan.problems.push(problem);
                }
            }
        }
        given_up.retain(|key| self.frontends.get(key).is_some_and(|frontend| frontend.owner.is_none()));
        given_up.sort_unstable_by_key(|key| (key.addr.to_ip(), key.port.get(), key.proto));
        given_up.dedup();
        for key in given_up {
            self.delete(key, now_ms, &mut plan.ops);
        }
        plan
    }

    /// Voids the slots whose grace period is over.
    pub fn release(&mut self, now_ms: u64) -> Vec<Op> {
        let void = self.slots.release(now_ms);
        void.into_iter().map(|slot| Op::WriteBackend { slot, value: BackendValue::default() }).collect()
    }

    /// When [`Self::release`] has something to do next.
    pub fn next_release_ms(&self) -> Option<u64> {
        self.slots.next_release_ms()
    }

    /// How full the maps are.
    pub fn usage(&self) -> Usage {
        Usage { frontends: self.frontends.len(), backends: self.slots.used() }
    }

    fn touched(&mut self, view: &View, scope: Scope<'_>) -> BTreeSet<ObjectName> {
        let mut touched = std::mem::take(&mut self.waiting);
        match scope {
            Scope::All => {
                touched.extend(view.services().map(|service| service.name.clone()));
                touched.extend(self.owned.keys().cloned());
            }
            Scope::Services(names) => touched.extend(names.iter().cloned()),
        }
        touched
    }

    /// Takes from the services the frontends that they do not want any more; returns those.
    fn give_up(&mut self, wanted: &BTreeMap<&ObjectName, Vec<Desired>>) -> Vec<ServiceKey> {
        let mut given_up = Vec::new();
        for (name, frontends) in wanted {
            let keys = self.owned.remove(*name).unwrap_or_default();
            for key in keys {
                if !frontends.iter().any(|want| want.key == key) {
                    if let Some(frontend) = self.frontends.get_mut(&key) {
                        frontend.owner = None;
                    }
                    given_up.push(key);
                }
            }
            if frontends.is_empty()
                && let Some(id) = self.service_ids.remove(*name)
            {
                self.ids_in_use.remove(&id);
            }
        }
        given_up
    }

    fn put(
        &mut self,
        name: &ObjectName,
        want: &Desired,
        now_ms: u64,
        ops: &mut Vec<Op>,
    ) -> Result<(), Problem> {
        let old = self.frontends.get(&want.key).cloned();
        match old.as_ref().and_then(|old| old.owner.as_ref()) {
            Some(owner) if owner != name => {
                return Err(Problem::Taken { service: name.clone(), owner: owner.clone() });
            }
            _ => {}
        }
        if old.is_none() && self.frontends.len() >= names::SERVICES.capacity as usize {
            return Err(Problem::TooManyFrontends { service: name.clone() });
        }
        self.owned.entry(name.clone()).or_default().push(want.key);
        if let Some(frontend) = self.frontends.get_mut(&want.key) {
            frontend.owner = Some(name.clone());
        }
        let service_id = self.service_id(name, old.as_ref());
        let targets: Vec<Target> = want.selection.targets().collect();
        let kept = old.as_ref().and_then(|old| old.first_of(&targets));
        let first = match kept {
            Some(first) => first,
            None => self.write_range(name, want, &targets, ops)?,
        };
        let mut value = ServiceValue {
            first,
            active: count(want.selection.active()),
            local: count(want.selection.local.len()),
            terminating: count(want.selection.terminating.len()),
            flags: if want.selection.local_only { SERVICE_LOCAL_ONLY } else { 0 },
            affinity_secs: want.affinity_secs,
            service_id,
            generation: old.as_ref().map_or(0, |old| old.value.generation),
        };
        if old.as_ref().is_some_and(|old| old.value == value) {
            return Ok(());
        }
        value.generation = value.generation.wrapping_add(1);
        ops.push(Op::PutService { key: want.key, value });
        if let Some(old) = &old {
            self.retire(old, first, &targets, now_ms);
        }
        self.frontends.insert(want.key, Frontend { owner: Some(name.clone()), value, targets });
        Ok(())
    }

    fn write_range(
        &mut self,
        name: &ObjectName,
        want: &Desired,
        targets: &[Target],
        ops: &mut Vec<Op>,
    ) -> Result<u32, Problem> {
        if targets.is_empty() {
            return Ok(0);
        }
        let needed = targets.len();
        let first = self
            .slots
            .allocate(count(needed))
            .ok_or_else(|| Problem::TooManyBackends { service: name.clone(), needed })?;
        for (slot, target) in (first..).zip(targets) {
            self.last_generation = next_non_zero(self.last_generation);
            let value = BackendValue {
                addr: Addr16::from(target.address),
                port: Be16::new(target.port),
                proto: want.key.proto,
                flags: 0,
                generation: self.last_generation,
            };
            ops.push(Op::WriteBackend { slot, value });
        }
        Ok(first)
    }

    fn delete(&mut self, key: ServiceKey, now_ms: u64, ops: &mut Vec<Op>) {
        if let Some(old) = self.frontends.remove(&key) {
            ops.push(Op::DeleteService { key });
            self.retire(&old, 0, &[], now_ms);
        }
    }

    /// Quarantines the parts of an old range that the new one, which starts at `first`, does not cover.
    fn retire(&mut self, old: &Frontend, first: u32, targets: &[Target], now_ms: u64) {
        let old_range = old.value.first..old.value.first + count(old.targets.len());
        let kept = first..first + count(targets.len());
        let overlaps = kept.start < old_range.end && old_range.start < kept.end;
        let parts = if overlaps {
            [old_range.start..kept.start.max(old_range.start), kept.end.min(old_range.end)..old_range.end]
        } else {
            [old_range.clone(), 0..0]
        };
        for part in parts {
            let gone = |slot: &u32| {
                let target = &old.targets[(slot - old.value.first) as usize];
                !targets.contains(target)
            };
            let void = part.clone().filter(gone).collect();
            self.slots.quarantine(part.start, count(part.len()), void, now_ms);
        }
    }

    /// The id of a service: the one it has, else the one of the frontend it readopts, else a new one.
    fn service_id(&mut self, name: &ObjectName, old: Option<&Frontend>) -> u32 {
        if let Some(id) = self.service_ids.get(name) {
            return *id;
        }
        let readopted = old.map(|old| old.value.service_id);
        let readopted = readopted.filter(|id| *id != 0 && !self.ids_in_use.contains(id));
        let id = readopted.unwrap_or_else(|| {
            loop {
                self.last_service_id = next_non_zero(self.last_service_id);
                if !self.ids_in_use.contains(&self.last_service_id) {
                    break self.last_service_id;
                }
            }
        });
        self.ids_in_use.insert(id);
        self.service_ids.insert(name.clone(), id);
        id
    }
}

impl Frontend {
    /// The first slot of the part of this range that holds exactly these targets, in this order.
    fn first_of(&self, targets: &[Target]) -> Option<u32> {
        if targets.is_empty() {
            return None;
        }
        let offset = self.targets.windows(targets.len()).position(|window| window == targets)?;
        Some(self.value.first + count(offset))
    }
}

/// The content of a slot, if it can belong to the frontend.
fn target_of(backend: &BackendValue, key: &ServiceKey) -> Option<Target> {
    let usable = backend.generation != 0 && backend.proto == key.proto;
    usable.then(|| Target { address: backend.addr.to_ip(), port: backend.port.get() })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn next_non_zero(number: u32) -> u32 {
    number.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
