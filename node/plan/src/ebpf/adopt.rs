//! Starting from what the kernel holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fairlead_abi::{
    Addr16,
    service::{ServiceKey, ServiceValue, UDP},
};
use fairlead_model::Prefix;

use super::{
    Frontend, Limits, ObservedServices, Planner,
    addresses::Addresses,
    backends::{Backends, Entry},
    block::Placed,
    desired::DesiredBlock,
    draft::Draft,
    retry::Retry,
    slots::Slots,
};
use crate::{Op, select::Target};

/// A block that was observed, without a name yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Adopted {
    pub(super) proto: u8,
    pub(super) entries: Vec<Entry>,
    pub(super) placed: Vec<Placed>,
    pub(super) tables: Vec<Placed>,
    pub(super) source_ranges: BTreeSet<Prefix>,
}

/// Backends that serve, though only what has begun: no range says whose they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Strays(HashMap<(Target, u8), Vec<Entry>>);

impl Strays {
    /// One for an endpoint, if possible with these flags.
    pub(super) fn take(&mut self, target: Target, proto: u8, flags: u8) -> Option<Entry> {
        let entries = self.0.get_mut(&(target, proto))?;
        let best = entries.iter().position(|entry| entry.flags == flags).unwrap_or(0);
        let entry = (!entries.is_empty()).then(|| entries.swap_remove(best));
        if entries.is_empty() {
            self.0.remove(&(target, proto));
        }
        entry
    }
}

impl Planner {
    /// Starts from what the kernel holds: ids, entries, generations and ranges are kept as long as they are right.
    pub fn adopt(node: impl Into<String>, limits: Limits, observed: &ObservedServices, now_ms: u64) -> Self {
        let mut planner = Self {
            node: node.into(),
            slots: Slots::new(limits.slots),
            backends: Backends::new(limits.backends),
            limits,
            frontends: HashMap::new(),
            blocks: HashMap::new(),
            owned: BTreeMap::new(),
            adopted: HashMap::new(),
            strays: Strays::default(),
            last_id: 0,
            source_ranges: observed.source_ranges.len(),
            addresses: Addresses::observed(observed.addresses.clone(), observed.node),
            udp: HashMap::new(),
            retry: Retry::default(),
            problems: BTreeMap::new(),
            place: None,
        };
        let mut live = planner.adopt_backends(observed, now_ms);
        let mut ids: BTreeMap<u32, Vec<(ServiceKey, ServiceValue)>> = BTreeMap::new();
        for (key, value) in &observed.services {
            ids.entry(value.service_id).or_default().push((*key, *value));
            planner.frontends.insert(*key, Frontend { value: *value, owned: false });
        }
        planner.last_id = ids.keys().next_back().copied().unwrap_or(0);
        for (id, frontends) in ids.into_iter().filter(|(id, _)| *id != 0) {
            let adopted = planner.adopt_block(&frontends, &observed.slots, &mut live);
            planner.adopted.insert(id, adopted);
        }
        for (id, range) in &observed.source_ranges {
            planner.adopted.entry(*id).or_default().source_ranges.insert(*range);
        }
        for (proto, entry) in live.into_values() {
            planner.strays.0.entry((entry.target, proto)).or_default().push(entry);
        }
        planner
    }

    /// All entries that somebody has, by index. Those that were on their way out rest once more.
    fn adopt_backends(&mut self, observed: &ObservedServices, now_ms: u64) -> BTreeMap<u32, (u8, Entry)> {
        let mut live = BTreeMap::new();
        for (index, value) in &observed.backends {
            self.backends.learn(*index, value.generation);
            match Entry::observed(*index, value) {
                Some(entry) if self.backends.adopt(*index) => {
                    if value.proto == UDP {
                        *self.udp.entry(entry.target).or_default() += 1;
                    }
                    live.insert(*index, (value.proto, entry));
                }
                None if value.addr != Addr16::UNSPECIFIED && self.backends.adopt(*index) => {
                    self.backends.retire(*index, now_ms);
                }
                _ => {}
            }
        }
        live
    }

    /// The block of these frontends. While a commit was interrupted they may lead to several ranges.
    fn adopt_block(
        &mut self,
        frontends: &[(ServiceKey, ServiceValue)],
        slots: &[u32],
        live: &mut BTreeMap<u32, (u8, Entry)>,
    ) -> Adopted {
        let proto = frontends.first().map_or(0, |(key, _)| key.proto);
        let mut adopted = Adopted { proto, ..Adopted::default() };
        let (mut ranges, mut tables) = (BTreeMap::<u32, u32>::new(), BTreeMap::<u32, u32>::new());
        for (_, value) in frontends {
            let length = value.local.max(value.skip.saturating_add(value.active));
            let known = ranges.entry(value.first).or_default();
            *known = length.max(*known);
            let known = tables.entry(value.table).or_default();
            *known = value.table_len.max(*known);
        }
        for (into, found) in [(&mut adopted.placed, ranges), (&mut adopted.tables, tables)] {
            for (first, length) in found.into_iter().filter(|(_, length)| *length > 0) {
                if self.slots.adopt(first, length) {
                    let content = slots.get(first as usize..(first + length) as usize);
                    // What was never written equals no list of backends and is replaced.
                    let ids = content.map_or_else(|| vec![u32::MAX; length as usize], <[u32]>::to_vec);
                    into.push(Placed { first, ids });
                }
            }
        }
        for id in adopted.placed.iter().flat_map(|placed| &placed.ids) {
            if live.get(id).is_some_and(|(of, _)| *of == proto) {
                adopted.entries.extend(live.remove(id).map(|(_, entry)| entry));
            }
        }
        adopted.entries.sort_unstable_by_key(|entry| entry.target);
        adopted
    }

    /// Whether one of the block's frontends was observed to lead to backends of which the block has none.
    pub(super) fn seems_foreign(&self, want: &DesiredBlock) -> bool {
        if self.adopted.is_empty() {
            return false;
        }
        let serving = &want.selection.serving;
        let ours = |entry: &Entry| serving.binary_search_by_key(&entry.target, |s| s.target).is_ok();
        let observed = want.frontends.iter().filter_map(|(key, _)| self.frontends.get(key));
        let mut observed = observed.filter_map(|frontend| self.adopted.get(&frontend.value.service_id));
        observed.any(|adopted| !adopted.entries.is_empty() && !adopted.entries.iter().any(ours))
    }

    /// Lets go of everything observed that nobody has claimed.
    pub(super) fn forget_unclaimed(&mut self, draft: &mut Draft) {
        let mut adopted: Vec<(u32, Adopted)> = std::mem::take(&mut self.adopted).into_iter().collect();
        adopted.sort_unstable_by_key(|(id, _)| *id);
        for (id, block) in adopted {
            for entry in &block.entries {
                self.retire(entry, block.proto, draft);
            }
            for placed in block.placed.iter().chain(&block.tables) {
                self.slots.quarantine(placed.first, placed.length(), draft.now_ms);
            }
            self.source_ranges -= block.source_ranges.len();
            let delete = |range| Op::DeleteSourceRange { service_id: id, range };
            draft.after.extend(block.source_ranges.into_iter().map(delete));
        }
        let strays = std::mem::take(&mut self.strays).0.into_iter();
        let mut strays: Vec<(u8, Entry)> =
            strays.flat_map(|((_, proto), entries)| entries.into_iter().map(move |e| (proto, e))).collect();
        strays.sort_unstable_by_key(|(_, entry)| entry.index);
        for (proto, entry) in &strays {
            self.retire(entry, *proto, draft);
        }
    }
}
