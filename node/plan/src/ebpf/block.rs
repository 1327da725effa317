//! One block: its backends, its range, its frontends.

use std::{collections::BTreeSet, net::IpAddr};

use fairlead_abi::{
    Addr16, names,
    service::{
        BACKEND_CLUSTER, BACKEND_LOCAL, SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_HAS_ENDPOINTS, ServiceKey,
        ServiceValue, UDP,
    },
};
use fairlead_model::{Algorithm, Prefix};

use super::{
    BlockName, Frontend, Owner, Planner, Problem,
    adopt::Adopted,
    backends::{Entry, flags_of},
    desired::{DesiredBlock, describe},
    draft::Draft,
    maglev,
};
use crate::{Op, select::Target};

/// A range of `SLOTS` and its content.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Placed {
    pub(super) first: u32,
    pub(super) ids: Vec<u32>,
}

impl Placed {
    pub(super) fn length(&self) -> u32 {
        count(self.ids.len())
    }
}

/// A block that somebody owns.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) owner: Owner,
    pub(super) name: BlockName,
    pub(super) frontends: Vec<ServiceKey>,
    /// Sorted by target.
    pub(super) entries: Vec<Entry>,
    /// One range, or none; several when a commit was interrupted.
    pub(super) placed: Vec<Placed>,
    pub(super) tables: Vec<Placed>,
    pub(super) source_ranges: BTreeSet<Prefix>,
}

/// Where new connections look.
#[derive(Clone, Copy, Debug, Default)]
struct Windows {
    first: u32,
    local: u32,
    skip: u32,
    active: u32,
    table: u32,
    table_len: u32,
}

impl Block {
    /// Whether it depends on which of these addresses are nodes'.
    pub(super) fn concerns(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        self.entries.iter().any(|entry| addresses.contains(&entry.target.address))
            || self.frontends.iter().any(|key| addresses.contains(&key.addr.to_ip()))
    }

    fn proto(&self) -> u8 {
        self.name.protocol.number()
    }
}

impl Planner {
    /// Makes the block what it should be, as far as the maps have room; returns its id. None when it has no frontend, or
    /// all of them are somebody else's.
    pub(super) fn put_block(
        &mut self,
        owner: &Owner,
        ids: &[u32],
        want: &DesiredBlock,
        draft: &mut Draft,
        problems: &mut Vec<Problem>,
    ) -> Option<u32> {
        let frontends = self.admit(owner, want, problems);
        if frontends.is_empty() {
            return None;
        }
        let named = |id: &&u32| self.blocks.get(id).is_some_and(|block| block.name == want.name);
        let known = ids.iter().find(named).and_then(|id| Some((*id, self.blocks.remove(id)?)));
        let (id, mut block) = known.unwrap_or_else(|| self.new_block(owner, want, &frontends));

        let mut full = Full { owner, problems };
        let gone = self.change_entries(&mut block, want, draft, &mut full);
        let windows = self.place_block(&mut block, want, draft, &mut full);
        self.change_source_ranges(id, &mut block, want, draft, &mut full);
        let exists = if want.selection.exists { SERVICE_HAS_ENDPOINTS } else { 0 };
        for (key, flags) in &frontends {
            self.commit(*key, windows.value(id, flags | exists, want.affinity_secs), draft);
        }
        for entry in &gone {
            self.retire(entry, block.proto(), draft);
        }
        let frontends: Vec<ServiceKey> = frontends.into_iter().map(|(key, _)| key).collect();
        let before = std::mem::replace(&mut block.frontends, frontends);
        if block.proto() == UDP {
            let left = before.into_iter().filter(|key| !block.frontends.contains(key));
            draft.left.extend(left.map(|key| (key, id)));
        }
        self.blocks.insert(id, block);
        Some(id)
    }

    /// Lets go of a block whose frontends are gone or somebody else's.
    pub(super) fn drop_block(&mut self, id: u32, draft: &mut Draft) {
        let Some(block) = self.blocks.remove(&id) else { return };
        for entry in &block.entries {
            self.retire(entry, block.proto(), draft);
        }
        for placed in block.placed.iter().chain(&block.tables) {
            self.slots.quarantine(placed.first, placed.length(), draft.now_ms);
        }
        self.source_ranges -= block.source_ranges.len();
        let delete = |range| Op::DeleteSourceRange { service_id: id, range };
        draft.after.extend(block.source_ranges.into_iter().map(delete));
    }

    /// The endpoint of an entry has stopped, or nobody leads to it any more.
    pub(super) fn retire(&mut self, entry: &Entry, proto: u8, draft: &mut Draft) {
        draft.after.push(entry.write(proto, 0));
        self.backends.retire(entry.index, draft.now_ms);
        if proto == UDP
            && let Some(count) = self.udp.get_mut(&entry.target)
        {
            *count -= 1;
            if *count == 0 {
                self.udp.remove(&entry.target);
                draft.stopped.insert(entry.target);
            }
        }
    }

    /// The frontends that the block may have.
    fn admit(
        &self,
        owner: &Owner,
        want: &DesiredBlock,
        problems: &mut Vec<Problem>,
    ) -> Vec<(ServiceKey, u32)> {
        let mut room = (self.limits.frontends as usize).saturating_sub(self.frontends.len());
        let mut missing = 0;
        let mut admitted = Vec::new();
        for (key, flags) in &want.frontends {
            problems.extend(self.shadows(owner, key));
            match self.frontends.get(key) {
                Some(frontend) if frontend.owned => {
                    let by = self.blocks.get(&frontend.value.service_id).map(|block| &block.owner);
                    if let Some(by) = by.filter(|by| *by != owner) {
                        let (owner, by) = (owner.clone(), by.clone());
                        problems.push(Problem::Taken { owner, frontend: describe(key), by });
                        continue;
                    }
                }
                Some(_) => {}
                None if room == 0 => {
                    missing += 1;
                    continue;
                }
                None => room -= 1,
            }
            admitted.push((*key, *flags));
        }
        if missing > 0 {
            problems.push(Problem::Full { owner: owner.clone(), map: names::SERVICES.name, missing });
        }
        admitted
    }

    /// Where a frontend and those of others stand for one address and port of this node, which then belongs to the more
    /// precise of the two: a pod's host port comes before a service's node port.
    fn shadows(&self, owner: &Owner, key: &ServiceKey) -> Vec<Problem> {
        let taken = |owner: &Owner, frontend: &ServiceKey, by: &Owner| Problem::Taken {
            owner: owner.clone(),
            frontend: describe(frontend),
            by: by.clone(),
        };
        let owner_of = |key: &ServiceKey| {
            let frontend = self.frontends.get(key).filter(|frontend| frontend.owned)?;
            Some(&self.blocks.get(&frontend.value.service_id)?.owner)
        };
        match owner {
            Owner::Pod(_) => {
                let any = if key.addr.is_v4() { Addr16::UNSPECIFIED_V4 } else { Addr16::UNSPECIFIED };
                let node_port = ServiceKey { addr: any, scope: SCOPE_NODE_PORT, ..*key };
                owner_of(&node_port).map(|service| taken(service, key, owner)).into_iter().collect()
            }
            Owner::Service(_) if key.scope == SCOPE_NODE_PORT => {
                let local = self.place.iter().flat_map(|known| &known.local.addresses);
                let own = local.filter(|(own, serves)| **serves && own.is_ipv4() == key.addr.is_v4());
                let exact =
                    own.map(|(own, _)| ServiceKey { addr: (*own).into(), scope: SCOPE_ADDRESS, ..*key });
                let of_pods = exact.filter_map(|exact| {
                    let pod = owner_of(&exact).filter(|by| matches!(by, Owner::Pod(_)))?;
                    Some(taken(owner, &exact, pod))
                });
                of_pods.collect()
            }
            _ => Vec::new(),
        }
    }

    /// A block for frontends: the one that was observed to have one of them, else a new one.
    fn new_block(
        &mut self,
        owner: &Owner,
        want: &DesiredBlock,
        frontends: &[(ServiceKey, u32)],
    ) -> (u32, Block) {
        let proto = want.name.protocol.number();
        let observed = frontends.iter().filter_map(|(key, _)| self.frontends.get(key));
        let observed = observed.filter(|frontend| !frontend.owned).map(|frontend| frontend.value.service_id);
        let of_kind = |id: &u32| self.adopted.get(id).is_some_and(|adopted| adopted.proto == proto);
        let found = observed.filter(of_kind).min();
        let (id, adopted) = match found.and_then(|id| Some((id, self.adopted.remove(&id)?))) {
            Some(adopted) => adopted,
            None => (self.next_id(), Adopted::default()),
        };
        let Adopted { entries, placed, tables, source_ranges, .. } = adopted;
        let (owner, name) = (owner.clone(), want.name.clone());
        (id, Block { owner, name, frontends: Vec::new(), entries, placed, tables, source_ranges })
    }

    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.blocks.contains_key(&self.last_id) && !self.adopted.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Gives every endpoint that serves an entry; returns the entries whose endpoints do not. What an endpoint may be used
    /// for from now on is written before the commit, what it may not be used for any more after it.
    fn change_entries(
        &mut self,
        block: &mut Block,
        want: &DesiredBlock,
        draft: &mut Draft,
        full: &mut Full<'_>,
    ) -> Vec<Entry> {
        let proto = block.proto();
        // Both lists are sorted.
        let mut old = std::mem::take(&mut block.entries).into_iter().peekable();
        let (mut gone, mut missing) = (Vec::new(), 0);
        block.entries.reserve_exact(want.selection.serving.len());
        for serving in &want.selection.serving {
            let (target, flags) = (serving.target, flags_of(serving));
            gone.extend(std::iter::from_fn(|| old.next_if(|entry| entry.target < target)));
            let known = old.next_if(|entry| entry.target == target);
            let entry = match known.or_else(|| self.strays.take(target, proto, flags)) {
                Some(mut entry) => {
                    let more = entry.flags | flags;
                    if more != entry.flags {
                        draft.backends.push(entry.write(proto, more));
                    }
                    if more != flags {
                        draft.after.push(entry.write(proto, flags));
                    }
                    entry.flags = flags;
                    entry
                }
                None => match self.backends.allocate(target, flags) {
                    Some(entry) => {
                        if proto == UDP {
                            *self.udp.entry(target).or_default() += 1;
                        }
                        draft.backends.push(entry.write(proto, flags));
                        entry
                    }
                    None => {
                        missing += 1;
                        continue;
                    }
                },
            };
            block.entries.push(entry);
        }
        full.note(names::BACKENDS.name, missing);
        gone.extend(old);
        gone
    }

    /// Puts the ids of the block's backends into slots.
    fn place_block(
        &mut self,
        block: &mut Block,
        want: &DesiredBlock,
        draft: &mut Draft,
        full: &mut Full<'_>,
    ) -> Windows {
        let ids = |wanted: u8| {
            let of = move |entry: &&Entry| entry.flags & (BACKEND_LOCAL | BACKEND_CLUSTER) == wanted;
            block.entries.iter().filter(of).map(|entry| entry.index)
        };
        let mut all = Vec::with_capacity(block.entries.len());
        all.extend(ids(BACKEND_LOCAL));
        let skip = all.len();
        all.extend(ids(BACKEND_LOCAL | BACKEND_CLUSTER));
        let local = all.len();
        all.extend(ids(BACKEND_CLUSTER));
        let wanted = all.len();
        let placed = self.place(&mut block.placed, all, true, draft);
        // With too little room the end is cut off.
        let there = placed.ids.len();
        full.note(names::SLOTS.name, wanted - there);

        let mut table = Vec::new();
        if want.algorithm == Algorithm::Maglev {
            let choices: Vec<&Entry> =
                block.entries.iter().filter(|entry| entry.flags & BACKEND_CLUSTER != 0).collect();
            let targets: Vec<Target> = choices.iter().map(|entry| entry.target).collect();
            table = maglev::table(&targets).into_iter().map(|position| choices[position].index).collect();
        }
        let wanted = table.len();
        let table = self.place(&mut block.tables, table, false, draft);
        full.note(names::SLOTS.name, wanted - table.ids.len());
        Windows {
            first: placed.first,
            local: count(local.min(there)),
            skip: count(skip.min(there)),
            active: count(there - skip.min(there)),
            table: table.first,
            table_len: table.length(),
        }
    }

    /// A range with this content: the one that has it, else a new one. Without room for that, the old range is written
    /// over if `shrink` allows it: a reader finds an old or a new backend in every slot.
    fn place(
        &mut self,
        placed: &mut Vec<Placed>,
        mut ids: Vec<u32>,
        shrink: bool,
        draft: &mut Draft,
    ) -> Placed {
        let mut old = std::mem::take(placed);
        let same = old.iter().position(|placed| placed.ids == ids);
        let chosen = match same {
            _ if ids.is_empty() => Placed::default(),
            Some(same) => old.swap_remove(same),
            None => match self.slots.allocate(count(ids.len())) {
                Some(first) => {
                    draft.slots.push(Op::WriteSlots { first, backends: ids.clone() });
                    Placed { first, ids }
                }
                None if shrink && !old.is_empty() => {
                    let mut over = old.swap_remove(0);
                    ids.truncate(over.ids.len());
                    let rest = over.ids.split_off(ids.len());
                    if over.ids != ids {
                        draft.slots.push(Op::WriteSlots { first: over.first, backends: ids.clone() });
                    }
                    self.slots.quarantine(over.first + count(ids.len()), count(rest.len()), draft.now_ms);
                    Placed { first: over.first, ids }
                }
                None => Placed::default(),
            },
        };
        for placed in &old {
            self.slots.quarantine(placed.first, placed.length(), draft.now_ms);
        }
        if !chosen.ids.is_empty() {
            placed.reserve_exact(1);
            placed.push(chosen.clone());
        }
        chosen
    }

    fn change_source_ranges(
        &mut self,
        id: u32,
        block: &mut Block,
        want: &DesiredBlock,
        draft: &mut Draft,
        full: &mut Full<'_>,
    ) {
        let gone: Vec<Prefix> = block.source_ranges.difference(&want.source_ranges).copied().collect();
        let new: Vec<Prefix> = want.source_ranges.difference(&block.source_ranges).copied().collect();
        let room = (self.limits.source_ranges as usize).saturating_sub(self.source_ranges);
        // Who is in a range that does not fit is kept out.
        for range in new.iter().take(room) {
            block.source_ranges.insert(*range);
            draft.ranges.push(Op::PutSourceRange { service_id: id, range: *range });
        }
        for range in &gone {
            block.source_ranges.remove(range);
            draft.after.push(Op::DeleteSourceRange { service_id: id, range: *range });
        }
        self.source_ranges = self.source_ranges + new.len().min(room) - gone.len();
        full.note(names::SOURCE_RANGES.name, new.len().saturating_sub(room));
    }

    /// Makes a frontend lead there, unless it does already.
    fn commit(&mut self, key: ServiceKey, mut value: ServiceValue, draft: &mut Draft) {
        if let Some(old) = self.frontends.get_mut(&key) {
            value.generation = old.value.generation;
            old.owned = true;
            if old.value == value {
                return;
            }
        }
        value.generation = value.generation.wrapping_add(1);
        draft.commit.push(Op::PutService { key, value });
        self.frontends.insert(key, Frontend { value, owned: true });
    }
}

impl Windows {
    fn value(self, service_id: u32, flags: u32, affinity_secs: u32) -> ServiceValue {
        let Self { first, local, skip, active, table, table_len } = self;
        ServiceValue {
            first,
            active,
            local,
            skip,
            table,
            table_len,
            flags,
            affinity_secs,
            service_id,
            generation: 0,
        }
    }
}

/// Where it is noted that a map has no room for an owner.
struct Full<'a> {
    owner: &'a Owner,
    problems: &'a mut Vec<Problem>,
}

impl Full<'_> {
    fn note(&mut self, map: &'static str, missing: usize) {
        if missing > 0 {
            self.problems.push(Problem::Full { owner: self.owner.clone(), map, missing });
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
