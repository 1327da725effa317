//! Whether the kernel still holds what was planned: others can write to pinned maps, too.

use std::collections::HashMap;

use fairlead_abi::{
    names,
    service::{BackendValue, ServiceKey, ServiceValue},
};

use super::{ObservedServices, Planner, block::Block};

impl Planner {
    /// The name of a map that does not hold what the plans so far have put there; none when all do. Entries that nothing
    /// leads to are not looked at.
    pub fn map_that_differs(&self, observed: &ObservedServices) -> Option<&'static str> {
        let holds = [
            (names::SERVICES.name, self.holds_frontends(&observed.services)),
            (names::SLOTS.name, self.blocks.values().all(|block| block.is_placed_in(&observed.slots))),
            (names::BACKENDS.name, self.blocks.values().all(|block| block.is_entered_in(&observed.backends))),
            (names::SOURCE_RANGES.name, self.holds_source_ranges(observed)),
            (names::ADDRESSES.name, self.addresses.are(&observed.addresses)),
            (names::NODE.name, self.addresses.is_node(&observed.node)),
        ];
        holds.into_iter().find_map(|(name, holds)| (!holds).then_some(name))
    }

    fn holds_frontends(&self, observed: &[(ServiceKey, ServiceValue)]) -> bool {
        let known = |(key, value): &(ServiceKey, ServiceValue)| {
            self.frontends.get(key).is_some_and(|frontend| frontend.value == *value)
        };
        observed.len() == self.frontends.len() && observed.iter().all(known)
    }

    fn holds_source_ranges(&self, observed: &ObservedServices) -> bool {
        let mut ranges =
            self.blocks.iter().flat_map(|(id, block)| block.source_ranges.iter().map(|r| (*id, *r)));
        observed.source_ranges.len() == self.source_ranges
            && ranges.all(|range| observed.source_ranges.contains(&range))
    }
}

impl Block {
    fn is_placed_in(&self, slots: &[u32]) -> bool {
        self.placed.iter().chain(&self.tables).all(|placed| {
            let first = placed.first as usize;
            slots.get(first..first + placed.ids.len()) == Some(&placed.ids)
        })
    }

    fn is_entered_in(&self, backends: &HashMap<u32, BackendValue>) -> bool {
        let proto = self.name.protocol.number();
        let same = |index: &u32, value: BackendValue| backends.get(index) == Some(&value);
        self.entries.iter().all(|entry| same(&entry.index, entry.value(proto, entry.flags)))
    }
}
