//! Other numbers for the same frontends and backends, where new maps take over from old ones.

use std::{collections::HashMap, path::PathBuf};

use fairlead_abi::{
    Addr16, Be16,
    conntrack::{ConntrackKey, ConntrackValue},
    names,
    service::{AffinityKey, AffinityValue, BackendValue, ServiceKey, ServiceValue, SlotValue, TCP},
};

use super::{carry::entries, pins::Pins};
use crate::KernelError;

/// Where something is chosen: a service's number, the backend's and its generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Choice {
    service_id: u32,
    backend: u32,
    generation: u32,
}

/// An endpoint, however it is numbered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Endpoint(Addr16, Be16, u8);

impl Endpoint {
    fn of(backend: &BackendValue) -> Self {
        Self(backend.addr, backend.port, backend.proto)
    }
}

/// Frontends, their slots and the backends as one set of maps has them.
struct Tables {
    services: HashMap<ServiceKey, ServiceValue>,
    slots: Vec<SlotValue>,
    backends: Vec<BackendValue>,
}

impl Tables {
    fn read(path: impl Fn(&str) -> PathBuf) -> Result<Self, KernelError> {
        let services = entries::<ServiceKey, ServiceValue>(path(names::SERVICES.name), names::SERVICES)?;
        let slots = entries::<u32, SlotValue>(path(names::SLOTS.name), names::SLOTS)?;
        let backends = entries::<u32, BackendValue>(path(names::BACKENDS.name), names::BACKENDS)?;
        Ok(Self {
            services: services.into_iter().collect(),
            slots: slots.into_iter().map(|(_, value)| value).collect(),
            backends: backends.into_iter().map(|(_, value)| value).collect(),
        })
    }

    /// Number and generation of every backend that a frontend may choose.
    fn backends_of(&self, service: &ServiceValue) -> impl Iterator<Item = (Endpoint, u32, u32)> {
        let first = service.first as usize;
        let length = service.local.max(service.skip + service.active) as usize;
        let slots = self.slots.get(first..first + length).unwrap_or_default();
        slots.iter().filter_map(|index| {
            let backend = self.backends.get(*index as usize)?;
            Some((Endpoint::of(backend), *index, backend.generation))
        })
    }
}

/// Old numbers and the new ones.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    services: HashMap<u32, u32>,
    backends: HashMap<Choice, Choice>,
}

impl Numbers {
    /// Compares the old maps with the new ones, which are filled.
    pub(super) fn between(pins: &Pins) -> Result<Self, KernelError> {
        let old = Tables::read(|name| pins.old_map(name))?;
        let new = Tables::read(|name| pins.map(name))?;
        Ok(Self::of(&old, &new))
    }

    fn of(old: &Tables, new: &Tables) -> Self {
        let mut numbers = Self::default();
        for (key, was) in &old.services {
            let Some(is) = new.services.get(key) else { continue };
            numbers.services.insert(was.service_id, is.service_id);
            let there: HashMap<Endpoint, (u32, u32)> = new
                .backends_of(is)
                .map(|(endpoint, index, generation)| (endpoint, (index, generation)))
                .collect();
            for (endpoint, backend, generation) in old.backends_of(was) {
                if let Some((index, now)) = there.get(&endpoint) {
                    numbers.backends.insert(
                        Choice { service_id: was.service_id, backend, generation },
                        Choice { service_id: is.service_id, backend: *index, generation: *now },
                    );
                }
            }
        }
        numbers
    }
}

/// An entry that names a service and one of its backends.
pub(super) trait Renumber: Sized {
    /// The same with new numbers; none when it cannot go on without them.
    fn renumber(self, numbers: &Numbers) -> Option<Self>;
}

impl Renumber for (ConntrackKey, ConntrackValue) {
    /// A stream goes on to where it goes, whoever else is chosen by now; a datagram whose backend is gone chooses anew.
    fn renumber(self, numbers: &Numbers) -> Option<Self> {
        let (key, value) = self;
        if value.service_id == 0 {
            return Some(self);
        }
        let ConntrackValue { service_id, backend, generation, .. } = value;
        let choice = numbers.backends.get(&Choice { service_id, backend, generation }).copied();
        let choice = choice.or_else(|| {
            let service_id = numbers.services.get(&service_id).copied().unwrap_or(0);
            (key.proto == TCP).then_some(Choice { service_id, backend: 0, generation: 0 })
        })?;
        let Choice { service_id, backend, generation } = choice;
        Some((key, ConntrackValue { service_id, backend, generation, ..value }))
    }
}

impl Renumber for (AffinityKey, AffinityValue) {
    fn renumber(self, numbers: &Numbers) -> Option<Self> {
        let (key, value) = self;
        let was = Choice { service_id: key.service_id, backend: value.backend, generation: value.generation };
        let Choice { service_id, backend, generation } = *numbers.backends.get(&was)?;
        Some((AffinityKey { service_id, ..key }, AffinityValue { backend, generation, ..value }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fairlead_abi::service::UDP;

    use super::*;

    fn address(last: u8) -> Addr16 {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// Services by the last byte of their address and their number, each with the backends in a range of slots.
    fn tables(services: &[(u8, u32, u32, u32)], slots: &[u32], backends: &[(u8, u32)]) -> Tables {
        let frontend = |&(last, service_id, first, active): &(u8, u32, u32, u32)| {
            let key = ServiceKey { addr: address(last), proto: TCP, ..ServiceKey::default() };
            (key, ServiceValue { service_id, first, active, ..ServiceValue::default() })
        };
        let backend = |&(last, generation): &(u8, u32)| BackendValue {
            addr: address(last),
            proto: TCP,
            generation,
            ..BackendValue::default()
        };
        Tables {
            services: services.iter().map(frontend).collect(),
            slots: slots.to_vec(),
            backends: backends.iter().map(backend).collect(),
        }
    }

    /// Service 1 of the old tables is 7 now; its backend 100 stays, 101 goes, 102 comes. Service 2 is gone.
    fn numbers() -> Numbers {
        let old = tables(&[(1, 1, 0, 2), (2, 2, 2, 1)], &[0, 1, 0], &[(100, 3), (101, 4)]);
        let new = tables(&[(1, 7, 1, 2), (3, 8, 0, 1)], &[0, 1, 2], &[(100, 1), (102, 5), (100, 9)]);
        Numbers::of(&old, &new)
    }

    fn connection(proto: u8, choice: (u32, u32, u32)) -> (ConntrackKey, ConntrackValue) {
        let (service_id, backend, generation) = choice;
        let value =
            ConntrackValue { dst: address(100), service_id, backend, generation, ..Default::default() };
        (ConntrackKey { proto, ..Default::default() }, value)
    }

    #[test]
    fn connections_get_the_numbers_of_the_same_service_and_backend() {
        let none = None;
        let table = [
            ("known", TCP, (1, 0, 3), Some((7, 2, 9))),
            ("known", UDP, (1, 0, 3), Some((7, 2, 9))),
            ("backend gone", TCP, (1, 1, 4), Some((7, 0, 0))),
            ("backend gone", UDP, (1, 1, 4), none),
            ("a former backend of that number", TCP, (1, 0, 2), Some((7, 0, 0))),
            ("a former backend of that number", UDP, (1, 0, 2), none),
            ("service gone", TCP, (2, 0, 3), Some((0, 0, 0))),
            ("service gone", UDP, (2, 0, 3), none),
            ("no service", UDP, (0, 0, 0), Some((0, 0, 0))),
        ];
        let numbers = numbers();
        for (what, proto, was, is) in table {
            let renumbered = connection(proto, was).renumber(&numbers);
            assert_eq!(renumbered, is.map(|is| connection(proto, is)), "{what}, protocol {proto}");
        }
    }

    #[test]
    fn clients_with_affinity_keep_a_backend_that_is_still_there() {
        let client = |(service_id, backend, generation)| {
            let key = AffinityKey { client: address(9), service_id };
            (key, AffinityValue { used_ns: 5, backend, generation })
        };
        let table = [((1, 0, 3), Some((7, 2, 9))), ((1, 1, 4), None), ((1, 0, 2), None), ((2, 0, 3), None)];
        let numbers = numbers();
        for (was, is) in table {
            assert_eq!(client(was).renumber(&numbers), is.map(client), "{was:?}");
        }
    }
}
