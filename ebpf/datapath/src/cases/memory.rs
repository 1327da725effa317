//! Maps in memory.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    vec::Vec,
};

use fairlead_abi::{
    Addr16, DropReason,
    pod::{InterfaceValue, PodCounters, PodValue},
    route::RouteValue,
    service::{BackendValue, OriginKey, OriginValue, ServiceKey, ServiceValue},
};
use zerocopy::IntoBytes;

use crate::{Sockets, Tables};

/// An address from its text, for tables that a person reads.
///
/// # Panics
///
/// When it is not an address.
pub fn address(text: &str) -> Addr16 {
    text.parse::<core::net::IpAddr>().expect("the table has valid addresses").into()
}

/// What the link programs read and count.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// `PODS`.
    pub pods: Vec<(Addr16, PodValue)>,
    /// `INTERFACES`.
    pub interfaces: Vec<(u32, InterfaceValue)>,
    /// `ROUTES`, by prefix and its length over the 128-bit mapped form.
    pub routes: Vec<(Addr16, u32, RouteValue)>,
    /// `UPLINK_IFINDEX`.
    pub uplink: u32,
    pub(super) counters: RefCell<BTreeMap<u32, PodCounters>>,
    pub(super) drops: RefCell<BTreeSet<(u32, u32)>>,
}

impl MemoryTables {
    /// What was counted, by slot.
    pub fn counters(&self) -> BTreeMap<u32, PodCounters> {
        self.counters.borrow().clone()
    }

    /// What was dropped: slot and reason.
    pub fn drops(&self) -> BTreeSet<(u32, u32)> {
        self.drops.borrow().clone()
    }
}

impl Tables for MemoryTables {
    fn pod(&self, addr: &Addr16) -> Option<PodValue> {
        self.pods.iter().find(|(key, _)| key == addr).map(|(_, value)| *value)
    }

    fn interface(&self, ifindex: u32) -> Option<InterfaceValue> {
        self.interfaces.iter().find(|(key, _)| *key == ifindex).map(|(_, value)| *value)
    }

    fn route(&self, addr: &Addr16) -> Option<RouteValue> {
        let covers = |(prefix, len, _): &&(Addr16, u32, RouteValue)| common_bits(prefix, addr) >= *len;
        self.routes.iter().filter(covers).max_by_key(|(_, len, _)| *len).map(|(_, _, value)| *value)
    }

    fn uplink(&self) -> u32 {
        self.uplink
    }

    fn count_sent(&self, slot: u32, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        let counters = counters.entry(slot).or_default();
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(bytes);
    }

    fn count_received(&self, slot: u32, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        let counters = counters.entry(slot).or_default();
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(bytes);
    }

    fn count_drop(&self, slot: u32, reason: DropReason) {
        self.drops.borrow_mut().insert((slot, reason as u32));
    }
}

/// How many leading bits two addresses share.
fn common_bits(a: &Addr16, b: &Addr16) -> u32 {
    let bytes = a.as_bytes().iter().zip(b.as_bytes());
    let mut bits = 0;
    for (a, b) in bytes {
        let same = (a ^ b).leading_zeros();
        bits += same;
        if same < 8 {
            break;
        }
    }
    bits
}

/// What the socket hooks read and remember, with a chance that the test sets.
#[derive(Debug, Default)]
pub struct MemorySockets {
    /// `SERVICES`.
    pub services: HashMap<ServiceKey, ServiceValue>,
    /// `BACKENDS`.
    pub backends: Vec<BackendValue>,
    /// `ORIGINS`.
    pub origins: RefCell<HashMap<OriginKey, OriginValue>>,
    /// What chance says next.
    pub random: Cell<u32>,
    /// How often an origin was written.
    pub writes: Cell<u32>,
}

impl Sockets for MemorySockets {
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue> {
        self.services.get(key).copied()
    }

    fn backend(&self, slot: u32) -> Option<BackendValue> {
        self.backends.get(slot as usize).copied()
    }

    fn origin(&self, key: &OriginKey) -> Option<OriginValue> {
        self.origins.borrow().get(key).copied()
    }

    fn remember(&self, key: &OriginKey, origin: &OriginValue) {
        self.writes.set(self.writes.get() + 1);
        self.origins.borrow_mut().insert(*key, *origin);
    }

    fn random(&self) -> u32 {
        self.random.get()
    }
}
