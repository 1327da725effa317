//! The maps and globals of `fairlead_abi::names`, and the datapath's traits over them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_get_prandom_u32,
    macros::map,
    maps::{
        Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
};
use fairlead_abi::{
    Addr16, DropReason,
    event::ConnectionValue,
    names,
    pod::{DropKey, InterfaceValue, PodCounters, PodValue},
    route::RouteValue,
    service::{BackendValue, OriginKey, OriginValue, ServiceKey, ServiceValue},
};
use fairlead_datapath::{Sockets, Tables};

/// Memory grows with the entries; only user space writes these, so an allocation per write costs nothing here.
const ON_DEMAND: u32 = BPF_F_NO_PREALLOC;

#[map]
static SERVICES: HashMap<ServiceKey, ServiceValue> = HashMap::pinned(names::SERVICES.capacity, ON_DEMAND);
#[map]
static BACKENDS: Array<BackendValue> = Array::pinned(names::BACKENDS.capacity, 0);
#[map]
static ORIGINS: LruHashMap<OriginKey, OriginValue> = LruHashMap::pinned(names::ORIGINS.capacity, 0);
#[map]
static PODS: HashMap<Addr16, PodValue> = HashMap::pinned(names::PODS.capacity, ON_DEMAND);
#[map]
static POD_NETNS: HashMap<u64, InterfaceValue> = HashMap::pinned(names::POD_NETNS.capacity, ON_DEMAND);
#[map]
static INTERFACES: HashMap<u32, InterfaceValue> = HashMap::pinned(names::INTERFACES.capacity, ON_DEMAND);
#[map]
static ROUTES: LpmTrie<[u8; 16], RouteValue> = LpmTrie::pinned(names::ROUTES.capacity, 0);
#[map]
static POD_COUNTERS: PerCpuArray<PodCounters> = PerCpuArray::pinned(names::POD_COUNTERS.capacity, 0);
#[map]
static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::pinned(names::DROPS.capacity, 0);
#[map]
pub(crate) static CONNECTIONS: LruHashMap<u64, ConnectionValue> =
    LruHashMap::pinned(names::CONNECTIONS.capacity, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(names::EVENTS.capacity, 0);
#[map]
static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::pinned(names::EVENTS_LOST.capacity, 0);

#[unsafe(no_mangle)]
static UPLINK_IFINDEX: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FLOW_EVENTS: Global<u32> = Global::new(1);
#[unsafe(no_mangle)]
static SET_RETVAL: Global<u32> = Global::new(1);
#[unsafe(no_mangle)]
static SOCK_OPS_NETNS: Global<u32> = Global::new(1);

/// Whether connection records are written.
#[inline(always)]
pub(crate) fn flow_events() -> bool {
    FLOW_EVENTS.load() != 0
}

/// Whether the address hooks may say with which error a call fails. The verifier drops what a constant switches off,
/// so that a helper which the kernel does not have is never looked at.
#[inline(always)]
pub(crate) fn set_retval() -> bool {
    SET_RETVAL.load() != 0
}

/// Whether `sock_ops` can tell the network namespace.
#[inline(always)]
pub(crate) fn sock_ops_netns() -> bool {
    SOCK_OPS_NETNS.load() != 0
}

/// The maps as the datapath sees them.
pub(crate) struct Maps;

impl Maps {
    /// The pod that a network namespace is.
    #[inline(always)]
    pub(crate) fn pod_of_netns(&self, cookie: u64) -> Option<InterfaceValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { POD_NETNS.get(&cookie) }.copied()
    }

    /// Adds to the counters of the pod in `slot`.
    #[inline(always)]
    pub(crate) fn count(&self, slot: u32, add: impl FnOnce(&mut PodCounters)) {
        if let Some(counters) = POD_COUNTERS.get_ptr_mut(slot) {
            // SAFETY: the pointer is to this CPU's value, which lives as long as the map; nothing else on this CPU
            // holds a reference to it.
            add(unsafe { &mut *counters });
        }
    }

    /// Forgets what an ended connection was aimed at, so that it does not crowd out one that lives.
    #[inline(always)]
    pub(crate) fn forget(&self, key: &OriginKey) {
        let _absent = ORIGINS.remove(key);
    }

    /// Counts a record that found the ring full.
    #[inline(always)]
    pub(crate) fn count_lost_event(&self) {
        if let Some(lost) = EVENTS_LOST.get_ptr_mut(0) {
            // SAFETY: as in `count`.
            unsafe { *lost += 1 };
        }
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn pod(&self, addr: &Addr16) -> Option<PodValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { PODS.get(addr) }.copied()
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<InterfaceValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { INTERFACES.get(&ifindex) }.copied()
    }

    #[inline(always)]
    fn route(&self, addr: &Addr16) -> Option<RouteValue> {
        // SAFETY: both are 16 plain bytes.
        let bytes: [u8; 16] = unsafe { core::mem::transmute(addr.0) };
        ROUTES.get(Key::new(128, bytes)).copied()
    }

    #[inline(always)]
    fn uplink(&self) -> u32 {
        UPLINK_IFINDEX.load()
    }

    #[inline(always)]
    fn count_sent(&self, slot: u32, bytes: u32) {
        self.count(slot, |counters| {
            counters.tx_packets += 1;
            counters.tx_bytes += u64::from(bytes);
        });
    }

    #[inline(always)]
    fn count_received(&self, slot: u32, bytes: u32) {
        self.count(slot, |counters| {
            counters.rx_packets += 1;
            counters.rx_bytes += u64::from(bytes);
        });
    }

    #[inline(always)]
    fn count_drop(&self, slot: u32, reason: DropReason) {
        let key = DropKey { slot, reason: reason as u32 };
        if let Some(count) = DROPS.get_ptr_mut(&key) {
            // SAFETY: as in `count`.
            unsafe { *count += 1 };
        } else {
            // A full map loses the count of a new reason and nothing else.
            let _full = DROPS.insert(&key, &1, 0);
        }
    }
}

impl Sockets for Maps {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue> {
        let (service, whole) = copy_service(SERVICES.get_ptr(key)?);
        // The entry was replaced and its memory given to another one meanwhile; the new entry is there already.
        if whole { Some(service) } else { Some(copy_service(SERVICES.get_ptr(key)?).0) }
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<BackendValue> {
        BACKENDS.get(slot).copied()
    }

    #[inline(always)]
    fn origin(&self, key: &OriginKey) -> Option<OriginValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { ORIGINS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &OriginKey, origin: &OriginValue) {
        // It fails only when every entry is being evicted at once; the connection works without it.
        let _full = ORIGINS.insert(key, origin, 0);
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }
}

/// Copies a service, and says whether its memory held the same one from beginning to end: a hook may be preempted
/// between two loads, and the kernel may reuse a replaced entry at once.
#[inline(always)]
fn copy_service(at: *const ServiceValue) -> (ServiceValue, bool) {
    // SAFETY: the pointer is to a map value, which stays mapped for the time of the program; volatile keeps the
    // loads in this order.
    unsafe {
        let identity = || {
            let id = (&raw const (*at).service_id).read_volatile();
            (id, (&raw const (*at).generation).read_volatile())
        };
        let before = identity();
        let service = at.read_volatile();
        (service, identity() == before)
    }
}
