//! Services, backends, addresses and routes: the maps and the kernel's routing table.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie};
use fairlead_abi::{
    Addr16,
    names::{self, MapSpec},
    node::{AddressValue, NodeValue, ServiceNetwork},
    route::RouteValue,
    service::{BackendValue, ServiceKey, ServiceValue, SourceRange},
};
use fairlead_model::Prefix;
use fairlead_plan::{ObservedRoutes, ObservedServices, Op, routes::RouteTable};
use tokio::sync::watch;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    KernelError, LocalState, State, Uplink,
    bpf::{
        batch::{read_all, write_all},
        entrances::Entrances,
        pins::Pins,
        programs::{SharedPrograms, open_pinned},
    },
    flows::Flows,
    net::Netlink,
    upkeep::Upkeep,
};

/// What the sync loop writes.
pub struct Tables {
    services: HashMap<MapData, ServiceKey, ServiceValue>,
    source_ranges: LpmTrie<MapData, [u8; 20], u8>,
    addresses: HashMap<MapData, Addr16, AddressValue>,
    node: Array<MapData, NodeValue>,
    service_networks: Array<MapData, ServiceNetwork>,
    routes: LpmTrie<MapData, [u8; 16], RouteValue>,
    flows: Flows,
    whole: Whole,
    programs: SharedPrograms,
    netlink: Netlink,
    uplink: watch::Receiver<Uplink>,
    entrances: Entrances,
    upkeep: Upkeep,
}

/// Maps that are read and written many entries at a time.
struct Whole {
    services: MapData,
    slots: MapData,
    backends: MapData,
    addresses: MapData,
}

impl Tables {
    pub(crate) fn new(
        programs: SharedPrograms,
        pins: &Pins,
        netlink: Netlink,
        upkeep: Upkeep,
    ) -> Result<Self, KernelError> {
        let whole = |spec: MapSpec| {
            MapData::from_pin(pins.map(spec.name)).map_err(KernelError::map(spec.name, "opening"))
        };
        Ok(Self {
            services: open_pinned(pins, names::SERVICES)?,
            source_ranges: open_pinned(pins, names::SOURCE_RANGES)?,
            addresses: open_pinned(pins, names::ADDRESSES)?,
            node: open_pinned(pins, names::NODE)?,
            service_networks: open_pinned(pins, names::SERVICE_NETWORKS)?,
            routes: open_pinned(pins, names::ROUTES)?,
            flows: Flows::open(pins)?,
            whole: Whole {
                services: whole(names::SERVICES)?,
                slots: whole(names::SLOTS)?,
                backends: whole(names::BACKENDS)?,
                addresses: whole(names::ADDRESSES)?,
            },
            programs,
            netlink,
            uplink: upkeep.uplink(),
            entrances: Entrances::default(),
            upkeep,
        })
    }

    fn observe_route_map(&self) -> Result<RouteTable, KernelError> {
        let mut observed = RouteTable::new();
        for entry in self.routes.iter() {
            let (key, value) = entry.map_err(KernelError::map(names::ROUTES.name, "reading"))?;
            let next_hop = (value.next_hop != Addr16::UNSPECIFIED).then(|| value.next_hop.to_ip());
            observed.insert(prefix_of(key.data(), key.prefix_len()), next_hop);
        }
        Ok(observed)
    }

    /// Applies the first operations together that are of one kind; returns how many.
    fn apply_run(&self, ops: &[Op]) -> Result<usize, KernelError> {
        let length = |of: fn(&Op) -> bool| ops.iter().take_while(|op| of(op)).count();
        let count = match ops.first() {
            Some(Op::WriteBackend { .. }) => {
                let count = length(|op| matches!(op, Op::WriteBackend { .. }));
                let entries = ops[..count].iter().filter_map(|op| match op {
                    Op::WriteBackend { index, value } => Some((*index, *value)),
                    _ => None,
                });
                write(names::BACKENDS, &self.whole.backends, entries)?;
                count
            }
            Some(Op::WriteSlots { .. }) => {
                let count = length(|op| matches!(op, Op::WriteSlots { .. }));
                let entries = ops[..count].iter().filter_map(|op| match op {
                    Op::WriteSlots { first, backends } => Some((*first..).zip(backends.iter().copied())),
                    _ => None,
                });
                write(names::SLOTS, &self.whole.slots, entries.flatten())?;
                count
            }
            Some(Op::PutService { .. }) => {
                let count = length(|op| matches!(op, Op::PutService { .. }));
                let entries = ops[..count].iter().filter_map(|op| match op {
                    Op::PutService { key, value } => Some((*key, *value)),
                    _ => None,
                });
                write(names::SERVICES, &self.whole.services, entries)?;
                count
            }
            _ => 0,
        };
        Ok(count)
    }

    async fn apply_one(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::WriteBackend { .. } | Op::WriteSlots { .. } | Op::PutService { .. } => {
                self.apply_run(std::slice::from_ref(op)).map(drop)
            }
            Op::DeleteService { key } => deleted(names::SERVICES, self.services.remove(key)),
            Op::PutSourceRange { service_id, range } => {
                put(names::SOURCE_RANGES, self.source_ranges.insert(&source_range(*service_id, range), 1, 0))
            }
            Op::DeleteSourceRange { service_id, range } => {
                deleted(names::SOURCE_RANGES, self.source_ranges.remove(&source_range(*service_id, range)))
            }
            Op::EndFlows { frontends } => self.flows.end(frontends),
            Op::PutAddress { address, flags } => {
                let value = AddressValue { flags: *flags };
                put(names::ADDRESSES, self.addresses.insert(Addr16::from(*address), value, 0))
            }
            Op::DeleteAddress { address } => {
                deleted(names::ADDRESSES, self.addresses.remove(&Addr16::from(*address)))
            }
            Op::PutNode { value } => put(names::NODE, self.node.set(0, value, 0)),
            Op::PutRoute { prefix, next_hop } => {
                let next_hop = next_hop.map_or(Addr16::UNSPECIFIED, Addr16::from);
                // 0 is the uplink, whatever its index is.
                let value = RouteValue { next_hop, ifindex: 0 };
                put(names::ROUTES, self.routes.insert(&key_of(prefix), value, 0))
            }
            Op::DeleteRoute { prefix } => deleted(names::ROUTES, self.routes.remove(&key_of(prefix))),
            Op::PutKernelRoute { prefix, next_hop } => {
                let uplink = self.uplink.borrow().index;
                self.netlink.put_route(*prefix, *next_hop, uplink).await
            }
            Op::DeleteKernelRoute { prefix } => self.netlink.delete_route(*prefix).await,
        }
    }
}

impl State for Tables {
    fn observe_services(&mut self) -> Result<ObservedServices, KernelError> {
        let slots: Vec<(u32, u32)> = read(names::SLOTS, &self.whole.slots)?;
        let backends: Vec<(u32, BackendValue)> = read(names::BACKENDS, &self.whole.backends)?;
        let addresses: Vec<(Addr16, AddressValue)> = read(names::ADDRESSES, &self.whole.addresses)?;
        let mut observed = ObservedServices {
            services: read(names::SERVICES, &self.whole.services)?,
            slots: slots.into_iter().map(|(_, backend)| backend).collect(),
            backends: backends.into_iter().filter(|(_, value)| *value != BackendValue::default()).collect(),
            addresses: addresses.into_iter().map(|(address, value)| (address.to_ip(), value.flags)).collect(),
            node: self.node.get(&0, 0).map_err(KernelError::map(names::NODE.name, "reading"))?,
            ..ObservedServices::default()
        };
        for key in self.source_ranges.keys() {
            let key = key.map_err(KernelError::map(names::SOURCE_RANGES.name, "reading"))?;
            if let Ok(range) = SourceRange::read_from_bytes(&key.data()) {
                let length = key.prefix_len().saturating_sub(SERVICE_BITS);
                let mut address = [0; 16];
                address.copy_from_slice(range.addr.as_bytes());
                observed.source_ranges.insert((range.service_id, prefix_of(address, length)));
            }
        }
        Ok(observed)
    }

    async fn observe_routes(&mut self) -> Result<ObservedRoutes, KernelError> {
        Ok(ObservedRoutes { map: self.observe_route_map()?, kernel: self.netlink.own_routes().await? })
    }

    async fn observe_local(&mut self) -> Result<LocalState, KernelError> {
        let uplink = self.uplink.borrow().clone();
        self.netlink.local_state(&uplink).await
    }

    fn serve_on(&mut self, interfaces: &BTreeMap<String, u32>) -> Result<Vec<String>, KernelError> {
        let uplink = self.uplink.borrow().name.clone();
        self.entrances.set(&mut self.programs.lock(), &uplink, interfaces)
    }

    fn set_service_networks(&mut self, networks: &[Prefix]) -> Result<(), KernelError> {
        let mut wanted = [ServiceNetwork::default(); names::SERVICE_NETWORKS.capacity as usize];
        for prefix in networks.iter().rev() {
            let network = ServiceNetwork::new(prefix.address.into(), mapped_length(prefix));
            wanted[ServiceNetwork::index(&network.network) as usize] = network;
        }
        let mut put = |(index, network)| self.service_networks.set(index, network, 0);
        (0..)
            .zip(wanted)
            .try_for_each(&mut put)
            .map_err(KernelError::map(names::SERVICE_NETWORKS.name, "writing"))
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        let mut rest = ops;
        while let Some(op) = rest.first() {
            let mut applied = self.apply_run(rest)?;
            if applied == 0 {
                self.apply_one(op).await?;
                applied = 1;
            }
            rest = &rest[applied..];
        }
        Ok(())
    }

    async fn repair(&mut self) -> Result<Vec<String>, KernelError> {
        self.upkeep.repair(&self.netlink, &self.programs).await
    }

    fn complete(&mut self) -> Result<(), KernelError> {
        self.programs.lock().switch()?;
        let services: Vec<(ServiceKey, ServiceValue)> = read(names::SERVICES, &self.whole.services)?;
        // Where rules carry services, there are none here, and what the programs began before ends by itself.
        if services.is_empty() { Ok(()) } else { self.flows.end_strays(&services) }
    }
}

fn read<K, V>(spec: MapSpec, map: &MapData) -> Result<Vec<(K, V)>, KernelError>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    read_all(fd(map)).map_err(KernelError::file("reading eBPF map", spec.name))
}

fn write<K, V>(spec: MapSpec, map: &MapData, entries: impl Iterator<Item = (K, V)>) -> Result<(), KernelError>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    let (keys, values): (Vec<K>, Vec<V>) = entries.unzip();
    write_all(fd(map), &keys, &values).map_err(KernelError::file("writing eBPF map", spec.name))
}

fn fd(map: &MapData) -> BorrowedFd<'_> {
    map.fd().as_fd()
}

fn put(spec: MapSpec, result: Result<(), aya::maps::MapError>) -> Result<(), KernelError> {
    result.map_err(KernelError::map(spec.name, "writing"))
}

fn deleted(spec: MapSpec, result: Result<(), aya::maps::MapError>) -> Result<(), KernelError> {
    ignore_absent(result).map_err(KernelError::map(spec.name, "deleting from"))
}

/// Deleting what is not there is done.
pub(crate) fn ignore_absent(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

/// Length of the prefix that maps IPv4 into IPv6.
const MAPPED_BITS: u32 = 96;
/// Bits of a source range's key before the address: the service's id.
const SERVICE_BITS: u32 = 32;

fn key_of(prefix: &Prefix) -> lpm_trie::Key<[u8; 16]> {
    let mut data = [0; 16];
    data.copy_from_slice(Addr16::from(prefix.address).as_bytes());
    lpm_trie::Key::new(mapped_length(prefix), data)
}

fn source_range(service_id: u32, range: &Prefix) -> lpm_trie::Key<[u8; 20]> {
    let mut data = [0; 20];
    data.copy_from_slice(SourceRange { service_id, addr: range.address.into() }.as_bytes());
    lpm_trie::Key::new(SERVICE_BITS + mapped_length(range), data)
}

fn mapped_length(prefix: &Prefix) -> u32 {
    let mapped = if prefix.address.is_ipv4() { MAPPED_BITS } else { 0 };
    mapped + u32::from(prefix.length)
}

fn prefix_of(address: [u8; 16], length: u32) -> Prefix {
    let address = IpAddr::from(address).to_canonical();
    let length = if address.is_ipv4() { length.saturating_sub(MAPPED_BITS) } else { length };
    Prefix { address, length: u8::try_from(length).unwrap_or(u8::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_either_family_survives_the_map() {
        for (address, length) in [("10.244.1.0", 24), ("fd00:244:0:1::", 64), ("0.0.0.0", 0)] {
            let prefix = Prefix { address: address.parse().expect("address"), length };
            let key = key_of(&prefix);
            assert_eq!(prefix_of(key.data(), key.prefix_len()), prefix);
        }
    }
}
