//! Which services have an address: a hundred thousand of them in few bytes each, cheap to copy and to change.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use fairlead_model::ObjectName;

/// Number of shards of a family, by the last byte of an address. A change copies one of them.
const SHARDS: usize = 256;

/// Pairs of an address and a service, in order. Copies share all shards but those that changed.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
}

/// The pairs of one address family: with both in one, an IPv4 address would take the room of an IPv6 address.
#[derive(Clone, Debug)]
struct Family<A> {
    shards: Box<[Arc<Pairs<A>>]>,
}

type Pairs<A> = Vec<(A, Arc<ObjectName>)>;

/// An address of one family.
trait Address: Ord + Copy {
    fn last_byte(self) -> u8;
}

impl Address for Ipv4Addr {
    fn last_byte(self) -> u8 {
        self.octets()[3]
    }
}

impl Address for Ipv6Addr {
    fn last_byte(self) -> u8 {
        self.octets()[15]
    }
}

impl Owners {
    pub(crate) fn new() -> Self {
        Self { v4: Family::new(), v6: Family::new() }
    }

    /// The services that have an address, by name.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let (v4, v6) = match address {
            IpAddr::V4(address) => (Some(self.v4.of(address)), None),
            IpAddr::V6(address) => (None, Some(self.v6.of(address))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }

    /// A service has an address.
    pub(crate) fn add(&mut self, address: IpAddr, owner: &Arc<ObjectName>) {
        match address {
            IpAddr::V4(address) => self.v4.add(address, owner),
            IpAddr::V6(address) => self.v6.add(address, owner),
        }
    }

    /// A service has an address no more.
    pub(crate) fn remove(&mut self, address: IpAddr, owner: &ObjectName) {
        match address {
            IpAddr::V4(address) => self.v4.remove(address, owner),
            IpAddr::V6(address) => self.v6.remove(address, owner),
        }
    }
}

impl<A: Address> Family<A> {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Arc::default()).collect() }
    }

    fn of(&self, address: A) -> impl Iterator<Item = &ObjectName> {
        let shard = &self.shards[usize::from(address.last_byte())];
        let start = shard.partition_point(|(other, _)| *other < address);
        shard[start..].iter().take_while(move |(other, _)| *other == address).map(|(_, owner)| &**owner)
    }

    fn add(&mut self, address: A, owner: &Arc<ObjectName>) {
        let shard = self.shard_mut(address);
        if let Err(at) = place(shard, &address, owner) {
            // Not the usual doubling: most of these lists never grow again.
            if shard.len() == shard.capacity() {
                shard.reserve_exact(1 + shard.len() / 8);
            }
            shard.insert(at, (address, Arc::clone(owner)));
        }
    }

    fn remove(&mut self, address: A, owner: &ObjectName) {
        let shard = self.shard_mut(address);
        if let Ok(at) = place(shard, &address, owner) {
            shard.remove(at);
        }
    }

    fn shard_mut(&mut self, address: A) -> &mut Pairs<A> {
        Arc::make_mut(&mut self.shards[usize::from(address.last_byte())])
    }
}

fn place<A: Ord>(pairs: &[(A, Arc<ObjectName>)], address: &A, owner: &ObjectName) -> Result<usize, usize> {
    pairs.binary_search_by(|(other, name)| other.cmp(address).then_with(|| (**name).cmp(owner)))
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
        let shared = copy.v4.shards.iter().zip(&owners.v4.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "only changed shards are copied");
    }
}
