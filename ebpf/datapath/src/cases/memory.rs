//! Maps in memory.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    vec::Vec,
};

use fairlead_abi::{
    Addr16, DropReason,
    conntrack::{ConntrackKey, ConntrackValue, FragmentKey, FragmentValue},
    names::globals::FORWARD_ENCAPSULATED,
    node::{NodeValue, ServiceNetwork},
    pod::{InterfaceValue, PodCounters, PodValue},
    route::RouteValue,
    service::{AffinityKey, AffinityValue, BackendValue, ServiceKey, ServiceValue},
    socket::{OriginKey, OriginValue},
};
use zerocopy::IntoBytes;

use crate::{Connections, Services, Sockets, Tables, conntrack::Added, is_unspecified};

/// An address from its text, for tables that a person reads.
///
/// # Panics
///
/// When it is not an address.
pub fn address(text: &str) -> Addr16 {
    text.parse::<core::net::IpAddr>().expect("the table has valid addresses").into()
}

/// All maps and globals, a chance and a clock that the test sets, and what is remembered and counted.
#[derive(Clone, Debug)]
pub struct Memory {
    /// `SERVICES`.
    pub services: HashMap<ServiceKey, ServiceValue>,
    /// `SLOTS`.
    pub slots: Vec<u32>,
    /// `BACKENDS`.
    pub backends: Vec<BackendValue>,
    /// `ADDRESSES`.
    pub addresses: HashMap<Addr16, u32>,
    /// `SERVICE_NETWORKS`.
    pub service_networks: Vec<ServiceNetwork>,
    /// `SOURCE_RANGES`: service, prefix and its length over the 128-bit mapped form.
    pub source_ranges: Vec<(u32, Addr16, u32)>,
    /// `NODE`.
    pub node: NodeValue,
    /// `PODS`.
    pub pods: Vec<(Addr16, PodValue)>,
    /// `INTERFACES`.
    pub interfaces: Vec<(u32, InterfaceValue)>,
    /// `ROUTES`, by prefix and its length over the 128-bit mapped form.
    pub routes: Vec<(Addr16, u32, RouteValue)>,
    /// `CARRIES`.
    pub carries: bool,
    /// `UPLINK_IFINDEX`.
    pub uplink: u32,
    /// `FORWARDING`.
    pub forwarding: u32,
    /// `NODE_PORT_FIRST` and `NODE_PORT_LAST`.
    pub node_ports: (u16, u16),
    /// First port to masquerade with and how many there are.
    pub masquerade_ports: (u16, u16),
    /// How many entries `CONNTRACK` holds at most.
    pub connections_max: usize,
    /// `AFFINITY`.
    pub affinity: RefCell<HashMap<AffinityKey, AffinityValue>>,
    /// `ORIGINS`.
    pub origins: RefCell<HashMap<OriginKey, OriginValue>>,
    /// `CONNTRACK`.
    pub connections: RefCell<HashMap<ConntrackKey, ConntrackValue>>,
    /// `FRAGMENTS`.
    pub fragments: RefCell<HashMap<FragmentKey, FragmentValue>>,
    /// `TRACKED`.
    pub tracked: RefCell<BTreeSet<u32>>,
    /// What chance says.
    pub random: Cell<u32>,
    /// What the clock says.
    pub now_ns: Cell<u64>,
    /// How often an origin was written.
    pub writes: Cell<u32>,
    /// What was counted, by slot.
    pub counters: RefCell<BTreeMap<u32, PodCounters>>,
    /// What was dropped: slot and reason.
    pub drops: RefCell<BTreeSet<(u32, u32)>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            services: HashMap::new(),
            slots: Vec::new(),
            backends: Vec::new(),
            addresses: HashMap::new(),
            service_networks: Vec::new(),
            source_ranges: Vec::new(),
            node: NodeValue::default(),
            pods: Vec::new(),
            interfaces: Vec::new(),
            routes: Vec::new(),
            carries: true,
            uplink: 0,
            forwarding: FORWARD_ENCAPSULATED,
            node_ports: (30_000, 32_767),
            masquerade_ports: (61_001, 4_535),
            connections_max: usize::MAX,
            affinity: RefCell::default(),
            origins: RefCell::default(),
            connections: RefCell::default(),
            fragments: RefCell::default(),
            tracked: RefCell::default(),
            random: Cell::new(0),
            now_ns: Cell::new(1_000_000_000_000),
            writes: Cell::new(0),
            counters: RefCell::default(),
            drops: RefCell::default(),
        }
    }
}

impl Memory {
    /// What was counted, by slot.
    pub fn counters(&self) -> BTreeMap<u32, PodCounters> {
        self.counters.borrow().clone()
    }

    /// What was dropped: slot and reason.
    pub fn drops(&self) -> BTreeSet<(u32, u32)> {
        self.drops.borrow().clone()
    }
}

impl Services for Memory {
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue> {
        self.services.get(key).copied()
    }

    fn slot(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize).copied()
    }

    fn backend(&self, index: u32) -> Option<BackendValue> {
        self.backends.get(index as usize).copied()
    }

    fn address(&self, addr: &Addr16) -> u32 {
        self.addresses.get(addr).copied().unwrap_or(0)
    }

    fn is_service_network(&self, addr: &Addr16) -> bool {
        self.service_networks.iter().any(|network| network.covers(addr))
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep_affinity(&self, key: &AffinityKey, value: &AffinityValue) {
        self.affinity.borrow_mut().insert(*key, *value);
    }

    fn is_allowed(&self, service_id: u32, source: &Addr16) -> bool {
        let covers =
            |(id, prefix, len): &(u32, Addr16, u32)| *id == service_id && common_bits(prefix, source) >= *len;
        self.source_ranges.iter().any(covers)
    }

    fn is_node_port(&self, port: u16) -> bool {
        (self.node_ports.0..=self.node_ports.1).contains(&port)
    }

    fn random(&self) -> u32 {
        self.random.get()
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }
}

impl Sockets for Memory {
    fn origin(&self, key: &OriginKey) -> Option<OriginValue> {
        self.origins.borrow().get(key).copied()
    }

    fn remember(&self, key: &OriginKey, origin: &OriginValue) {
        self.writes.set(self.writes.get() + 1);
        self.origins.borrow_mut().insert(*key, *origin);
    }
}

impl Connections for Memory {
    fn connection(&self, key: &ConntrackKey, value: &mut ConntrackValue) -> bool {
        match self.connections.borrow().get(key) {
            Some(found) => {
                *value = *found;
                true
            }
            None => false,
        }
    }

    fn add_connection(&self, key: &ConntrackKey, value: &ConntrackValue, replace: bool) -> Added {
        let mut connections = self.connections.borrow_mut();
        let present = connections.contains_key(key);
        if present && !replace {
            return Added::Exists;
        }
        if !present && connections.len() >= self.connections_max {
            return Added::Full;
        }
        connections.insert(*key, *value);
        Added::Done
    }

    fn remove_connection(&self, key: &ConntrackKey) {
        self.connections.borrow_mut().remove(key);
    }

    fn mark_connection(&self, key: &ConntrackKey, flags: u16, seen_ns: u64) {
        if let Some(value) = self.connections.borrow_mut().get_mut(key) {
            value.flags |= flags;
            if seen_ns != 0 {
                value.seen_ns = seen_ns;
            }
        }
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        self.fragments.borrow().get(key).copied()
    }

    fn keep_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        self.fragments.borrow_mut().insert(*key, *value);
    }

    fn forwarding(&self) -> u32 {
        self.forwarding
    }

    fn node(&self) -> NodeValue {
        self.node
    }

    fn masquerade_ports(&self) -> (u16, u16) {
        self.masquerade_ports
    }

    fn node_of(&self, addr: &Addr16) -> Option<Addr16> {
        self.route(addr).map(|route| route.next_hop).filter(|hop| !is_unspecified(hop))
    }
}

impl Tables for Memory {
    fn pod(&self, addr: &Addr16) -> Option<PodValue> {
        self.pods.iter().find(|(key, _)| key == addr).map(|(_, value)| *value)
    }

    fn carries(&self) -> bool {
        self.carries
    }

    fn near_pod(&self, addr: &Addr16) -> Option<&PodValue> {
        self.pods.iter().find(|(key, _)| key == addr).map(|(_, value)| value)
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

    fn is_tracked(&self, slot: u32) -> bool {
        self.tracked.borrow().contains(&slot)
    }

    fn track(&self, slot: u32) {
        self.tracked.borrow_mut().insert(slot);
    }

    fn may_answer(&self) -> bool {
        true
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
