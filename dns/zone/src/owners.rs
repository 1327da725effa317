//! Which services have an address: a hundred thousand of them in few bytes each, cheap to copy and to change.

use std::{net::IpAddr, sync::Arc};

use fairlead_model::ObjectName;

/// Number of shards, by the last byte of an address. A change copies one of them.
const SHARDS: usize = 256;

/// Pairs of an address and a service, in order. Copies share all shards but those that changed.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    shards: Box<[Shard]>,
}

type Shard = Arc<Vec<(IpAddr, Arc<ObjectName>)>>;

impl Owners {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Arc::default()).collect() }
    }

    /// The services that have an address, by name.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let shard = &self.shards[shard_of(address)];
        let start = shard.partition_point(|(other, _)| *other < address);
        shard[start..].iter().take_while(move |(other, _)| *other == address).map(|(_, owner)| &**owner)
    }

    /// A service has an address.
    pub(crate) fn add(&mut self, address: IpAddr, owner: &Arc<ObjectName>) {
        let shard = self.shard_mut(address);
        if let Err(at) = place(shard, address, owner) {
            // Not the usual doubling: most of these lists never grow again.
            if shard.len() == shard.capacity() {
                shard.reserve_exact(1 + shard.len() / 8);
            }
            shard.insert(at, (address, Arc::clone(owner)));
        }
    }

    /// A service has an address no more.
    pub(crate) fn remove(&mut self, address: IpAddr, owner: &ObjectName) {
        let shard = self.shard_mut(address);
        if let Ok(at) = place(shard, address, owner) {
            shard.remove(at);
        }
    }

    fn shard_mut(&mut self, address: IpAddr) -> &mut Vec<(IpAddr, Arc<ObjectName>)> {
        Arc::make_mut(&mut self.shards[shard_of(address)])
    }
}

fn place(shard: &[(IpAddr, Arc<ObjectName>)], address: IpAddr, owner: &ObjectName) -> Result<usize, usize> {
    shard.binary_search_by(|(other, name)| other.cmp(&address).then_with(|| (**name).cmp(owner)))
}

fn shard_of(address: IpAddr) -> usize {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    usize::from(last) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_services_in_order_and_a_copy_does_not_see_later_changes() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let [a, b] = ["a", "b"].map(|name| Arc::new(ObjectName::new("demo", name)));
        let mut owners = Owners::new();
        for (last, owner) in [(1, &b), (1, &a), (1, &a), (2, &a)] {
            owners.add(address(last), owner);
        }
        let copy = owners.clone();
        owners.remove(address(1), &a);
        owners.remove(address(3), &a);
        let names = |owners: &Owners, last| -> Vec<String> {
            owners.of(address(last)).map(|name| name.name.to_string()).collect()
        };
        assert_eq!((names(&copy, 1), names(&owners, 1)), (vec!["a".into(), "b".into()], vec!["b".into()]));
        assert_eq!((names(&owners, 2), names(&owners, 3)), (vec!["a".into()], Vec::new()));
        let shared = copy.shards.iter().zip(&owners.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "only changed shards are copied");
    }
}
