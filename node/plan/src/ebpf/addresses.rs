//! What addresses are: the node's own, other nodes', services'.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use fairlead_abi::{
    names,
    node::{ADDRESS_LOCAL, ADDRESS_NODE, ADDRESS_NODE_PORT, ADDRESS_SERVICE, NodeValue},
};

use super::{KnownPlace, Owner, Planner, Problem, draft::Draft};
use crate::Op;

/// `ADDRESSES` and `NODE` as the kernel holds them, and who wants what there.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    current: BTreeMap<IpAddr, u32>,
    node: NodeValue,
    /// How many owners have a service's address.
    services: HashMap<IpAddr, u32>,
    /// Those that did not fit.
    missing: BTreeSet<IpAddr>,
}

impl Addresses {
    pub(super) fn observed(current: BTreeMap<IpAddr, u32>, node: NodeValue) -> Self {
        Self { current, node, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    /// Counts an owner's addresses, both lists in order; notes those for which something changed.
    pub(super) fn change_owner(
        &mut self,
        before: &[IpAddr],
        after: &[IpAddr],
        changed: &mut BTreeSet<IpAddr>,
    ) {
        let only_in = |these: &[IpAddr], those: &[IpAddr]| -> Vec<IpAddr> {
            these.iter().filter(|address| those.binary_search(address).is_err()).copied().collect()
        };
        for address in &only_in(before, after) {
            if let Some(count) = self.services.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.services.remove(address);
                }
            }
            changed.insert(*address);
        }
        for address in &only_in(after, before) {
            *self.services.entry(*address).or_default() += 1;
            changed.insert(*address);
        }
    }

    /// Whether `ADDRESSES` is this.
    pub(super) fn are(&self, observed: &BTreeMap<IpAddr, u32>) -> bool {
        self.current == *observed
    }

    /// Whether `NODE` is this.
    pub(super) fn is_node(&self, observed: &NodeValue) -> bool {
        self.node == *observed
    }

    fn flags(&self, address: &IpAddr, place: &KnownPlace) -> u32 {
        let (local, node) = (place.local.addresses.get(address), place.node_addresses.contains(address));
        match local {
            Some(true) => ADDRESS_LOCAL | ADDRESS_NODE_PORT,
            Some(false) => ADDRESS_LOCAL,
            None if node => ADDRESS_NODE,
            None if self.services.contains_key(address) => ADDRESS_SERVICE,
            None => 0,
        }
    }
}

impl Planner {
    /// Brings `ADDRESSES` and `NODE` up to date.
    pub(super) fn plan_addresses(&mut self, draft: &mut Draft) {
        let Some(place) = &self.place else { return };
        let addresses = &mut self.addresses;
        let mut dirty = std::mem::take(&mut draft.addresses);
        dirty.append(&mut addresses.missing);
        if draft.all_addresses {
            dirty.extend(addresses.current.keys());
            dirty.extend(addresses.services.keys());
            dirty.extend(place.local.addresses.keys());
            dirty.extend(&place.node_addresses);
            let value = place.local.value();
            if addresses.node != value {
                addresses.node = value;
                draft.address_ops.push(Op::PutNode { value });
            }
        }
        let (gone, there): (Vec<_>, Vec<_>) = dirty
            .into_iter()
            .map(|address| (address, addresses.flags(&address, place)))
            .partition(|(_, flags)| *flags == 0);
        for (address, _) in gone {
            if addresses.current.remove(&address).is_some() {
                draft.address_ops.push(Op::DeleteAddress { address });
            }
        }
        for (address, flags) in there {
            let known = addresses.current.get(&address);
            if known.is_none() && addresses.current.len() >= self.limits.addresses as usize {
                addresses.missing.insert(address);
            } else if known != Some(&flags) {
                addresses.current.insert(address, flags);
                draft.address_ops.push(Op::PutAddress { address, flags });
            }
        }
        if addresses.missing.is_empty() {
            self.problems.remove(&Owner::Node);
        } else {
            let (map, missing) = (names::ADDRESSES.name, addresses.missing.len());
            self.problems.insert(Owner::Node, vec![Problem::Full { owner: Owner::Node, map, missing }]);
        }
    }
}
