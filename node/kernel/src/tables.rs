//! Services, backends and routes: the maps and the kernel's routing table.

use std::{net::IpAddr, os::fd::AsFd};

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie};
use fairlead_abi::{
    Addr16, names,
    route::RouteValue,
    service::{BackendValue, ServiceKey, ServiceValue},
};
use fairlead_model::Prefix;
use fairlead_plan::{ObservedRoutes, ObservedServices, Op, routes::RouteTable};
use zerocopy::IntoBytes;

use crate::{
    KernelError, State,
    bpf::{batch::read_array, pins::Pins, programs::Programs},
    net::Netlink,
};

/// What the sync loop writes.
pub struct Tables {
    services: HashMap<MapData, ServiceKey, ServiceValue>,
    backends: Array<MapData, BackendValue>,
    /// The same map, for reading it at once.
    backends_data: MapData,
    routes: LpmTrie<MapData, [u8; 16], RouteValue>,
    netlink: Netlink,
    uplink: u32,
}

impl Tables {
    pub(crate) fn new(
        programs: &mut Programs,
        pins: &Pins,
        netlink: Netlink,
        uplink: u32,
    ) -> Result<Self, KernelError> {
        let backends_data = MapData::from_pin(pins.map(names::BACKENDS.name))
            .map_err(KernelError::map(names::BACKENDS.name, "opening"))?;
        Ok(Self {
            backends_data,
            services: programs.map(names::SERVICES)?,
            backends: programs.map(names::BACKENDS)?,
            routes: programs.map(names::ROUTES)?,
            netlink,
            uplink,
        })
    }

    fn observe_route_map(&self) -> Result<RouteTable, KernelError> {
        let mut observed = RouteTable::new();
        for entry in self.routes.iter() {
            let (key, value) = entry.map_err(KernelError::map(names::ROUTES.name, "reading"))?;
            let next_hop = (value.next_hop != Addr16::UNSPECIFIED).then(|| value.next_hop.to_ip());
            observed.insert(prefix_of(&key), next_hop);
        }
        Ok(observed)
    }

    async fn apply_one(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::WriteBackend { slot, value } => {
                self.backends.set(*slot, value, 0).map_err(KernelError::map(names::BACKENDS.name, "writing"))
            }
            Op::PutService { key, value } => {
                let put = self.services.insert(key, value, 0);
                put.map_err(KernelError::map(names::SERVICES.name, "writing"))
            }
            Op::DeleteService { key } => ignore_absent(self.services.remove(key))
                .map_err(KernelError::map(names::SERVICES.name, "deleting from")),
            Op::PutRoute { prefix, next_hop } => {
                let next_hop = next_hop.map_or(Addr16::UNSPECIFIED, Addr16::from);
                // 0 is the uplink, whatever its index is when it comes back after a change of hardware.
                let value = RouteValue { next_hop, ifindex: 0 };
                let put = self.routes.insert(&key_of(prefix), value, 0);
                put.map_err(KernelError::map(names::ROUTES.name, "writing"))
            }
            Op::DeleteRoute { prefix } => ignore_absent(self.routes.remove(&key_of(prefix)))
                .map_err(KernelError::map(names::ROUTES.name, "deleting from")),
            Op::PutKernelRoute { prefix, next_hop } => {
                self.netlink.put_route(*prefix, *next_hop, self.uplink).await
            }
            Op::DeleteKernelRoute { prefix } => self.netlink.delete_route(*prefix).await,
        }
    }
}

impl State for Tables {
    fn observe_services(&mut self) -> Result<ObservedServices, KernelError> {
        let services: Result<Vec<_>, _> = self.services.iter().collect();
        let services = services.map_err(KernelError::map(names::SERVICES.name, "reading"))?;
        let backends = read_array(self.backends_data.fd().as_fd(), names::BACKENDS.capacity)
            .map_err(KernelError::file("reading eBPF map", names::BACKENDS.name))?;
        let used = (0..).zip(backends).filter(|(_, value)| *value != BackendValue::default());
        Ok(ObservedServices { services, backends: used.collect() })
    }

    async fn observe_routes(&mut self) -> Result<ObservedRoutes, KernelError> {
        Ok(ObservedRoutes { map: self.observe_route_map()?, kernel: self.netlink.own_routes().await? })
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        for op in ops {
            self.apply_one(op).await?;
        }
        Ok(())
    }
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

fn key_of(prefix: &Prefix) -> lpm_trie::Key<[u8; 16]> {
    let mut data = [0; 16];
    data.copy_from_slice(Addr16::from(prefix.address).as_bytes());
    let mapped = if prefix.address.is_ipv4() { MAPPED_BITS } else { 0 };
    lpm_trie::Key::new(mapped + u32::from(prefix.length), data)
}

fn prefix_of(key: &lpm_trie::Key<[u8; 16]>) -> Prefix {
    let address = IpAddr::from(key.data()).to_canonical();
    let length =
        if address.is_ipv4() { key.prefix_len().saturating_sub(MAPPED_BITS) } else { key.prefix_len() };
    Prefix { address, length: u8::try_from(length).unwrap_or(u8::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_either_family_survives_the_map() {
        for (address, length) in [("10.244.1.0", 24), ("fd00:244:0:1::", 64), ("0.0.0.0", 0)] {
            let prefix = Prefix { address: address.parse().expect("address"), length };
            assert_eq!(prefix_of(&key_of(&prefix)), prefix);
        }
    }
}
