//! The maps and globals of `fairlead_abi::names`, and the datapath's traits over them.

use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::SkStorage,
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::{btf_map, map},
    maps::{
        Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
};
use fairlead_abi::{
    Addr16, DropReason,
    conntrack::{ConntrackKey, ConntrackValue, FragmentKey, FragmentValue},
    names,
    node::{ANSWERS_PER_SEC, AddressValue, AnswersValue, NodeValue, ServiceNetwork},
    pod::{DropKey, InterfaceValue, NearPod, PodCounters, PodValue},
    route::RouteValue,
    service::{AffinityKey, AffinityValue, BackendValue, ServiceKey, ServiceValue, SlotValue, SourceRange},
    socket::{OriginKey, OriginValue, SocketValue},
};
use fairlead_datapath::{
    Connections, Services, Sockets, Tables,
    conntrack::{Added, Work},
    is_unspecified, same,
};

/// Memory grows with the entries.
const ON_DEMAND: u32 = BPF_F_NO_PREALLOC;

#[map]
static SERVICES: HashMap<ServiceKey, ServiceValue> = HashMap::pinned(names::SERVICES.capacity, ON_DEMAND);
#[map]
static SLOTS: Array<SlotValue> = Array::pinned(names::SLOTS.capacity, 0);
#[map]
static BACKENDS: Array<BackendValue> = Array::pinned(names::BACKENDS.capacity, 0);
#[map]
static AFFINITY: HashMap<AffinityKey, AffinityValue> = HashMap::pinned(names::AFFINITY.capacity, ON_DEMAND);
#[map]
static SOURCE_RANGES: LpmTrie<SourceRange, u8> = LpmTrie::pinned(names::SOURCE_RANGES.capacity, ON_DEMAND);
#[map]
static ADDRESSES: HashMap<Addr16, AddressValue> = HashMap::pinned(names::ADDRESSES.capacity, ON_DEMAND);
#[map]
static NODE: Array<NodeValue> = Array::pinned(names::NODE.capacity, 0);
#[map]
static SERVICE_NETWORKS: Array<ServiceNetwork> = Array::pinned(names::SERVICE_NETWORKS.capacity, 0);
#[btf_map]
pub(crate) static SOCKETS: SkStorage<SocketValue> = SkStorage::new();
#[map]
static ORIGINS: LruHashMap<OriginKey, OriginValue> = LruHashMap::pinned(names::ORIGINS.capacity, 0);
#[map]
static CONNTRACK: HashMap<ConntrackKey, ConntrackValue> =
    HashMap::pinned(names::CONNTRACK.capacity, ON_DEMAND);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::pinned(names::FRAGMENTS.capacity, 0);
#[map]
static TRACKED: Array<u32> = Array::pinned(names::TRACKED.capacity, 0);
#[map]
static ANSWERS: PerCpuArray<AnswersValue> = PerCpuArray::pinned(names::ANSWERS.capacity, 0);
/// Memory of the link programs, one packet at a time and CPU.
#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
#[map]
static PODS: HashMap<Addr16, PodValue> = HashMap::pinned(names::PODS.capacity, ON_DEMAND);
#[map]
static NEAR_PODS: Array<NearPod> = Array::pinned(names::NEAR_PODS.capacity, 0);
#[map]
static POD_NETNS: HashMap<u64, InterfaceValue> = HashMap::pinned(names::POD_NETNS.capacity, ON_DEMAND);
#[map]
static INTERFACES: HashMap<u32, InterfaceValue> = HashMap::pinned(names::INTERFACES.capacity, ON_DEMAND);
#[map]
static ROUTES: LpmTrie<[u8; 16], RouteValue> = LpmTrie::pinned(names::ROUTES.capacity, ON_DEMAND);
#[map]
static POD_COUNTERS: PerCpuArray<PodCounters> = PerCpuArray::pinned(names::POD_COUNTERS.capacity, 0);
#[map]
static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::pinned(names::DROPS.capacity, ON_DEMAND);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(names::EVENTS.capacity, 0);
#[map]
static CARRIED: PerCpuArray<u64> = PerCpuArray::pinned(names::CARRIED.capacity, 0);
#[map]
static ADDED: PerCpuArray<u64> = PerCpuArray::pinned(names::ADDED.capacity, 0);
#[map]
static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::pinned(names::EVENTS_LOST.capacity, 0);

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident $function:ident $ty:ty = $default:literal;)*) => { $(
        #[unsafe(no_mangle)]
        static $name: Global<$ty> = Global::new($default);

        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $function() -> $ty {
            $name.load()
        }
    )* };
}

/// The only global that may change while the programs run: a card that is made again has another index.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static UPLINK_IFINDEX: Global<u32> = Global::new(0);

/// The uplink's interface index.
#[inline(always)]
pub(crate) fn uplink_ifindex() -> u32 {
    UPLINK_IFINDEX.load()
}

globals! {
    /// The overlay's interface index.
    OVERLAY_IFINDEX overlay_ifindex u32 = 0;
    /// The overlay's UDP port.
    OVERLAY_PORT overlay_port u32 = 4789;
    /// Whether connection records are written.
    FLOW_EVENTS flow_events u32 = 1;
    /// Whether these programs carry pods' packets.
    CARRIES carries u32 = 1;
    /// Whether the address hooks may say with which error a call fails. The verifier drops what a constant switches off, so
    /// that a helper which the kernel does not have is never looked at.
    SET_RETVAL set_retval u32 = 1;
    /// Whether `sock_ops` can tell the network namespace.
    SOCK_OPS_NETNS sock_ops_netns u32 = 1;
    /// A `FORWARD_*`.
    FORWARDING forwarding u32 = 0;
    /// The mark that asks the host's stack to masquerade.
    MASQUERADE_MARK masquerade_mark u32 = 0x4000;
    /// Cookie of the host's network namespace.
    HOST_NETNS host_netns u64 = 0;
    /// Whether the socket hooks translate for the host's namespace only.
    SOCKETS_OF_HOST_ONLY sockets_of_host_only u32 = 0;
    /// First port of the node port range.
    NODE_PORT_FIRST node_port_first u32 = 30000;
    /// Last port of the node port range.
    NODE_PORT_LAST node_port_last u32 = 32767;
    /// First port of the range to masquerade with.
    MASQUERADE_FIRST masquerade_first u32 = 61000;
    /// Last port of the range to masquerade with.
    MASQUERADE_LAST masquerade_last u32 = 65535;
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

    /// Counts a record that found the ring full.
    #[inline(always)]
    pub(crate) fn count_lost_event(&self) {
        add_one(&EVENTS_LOST, 0);
    }

    /// Counts a packet that the driver's program has sent on.
    #[inline(always)]
    pub(crate) fn count_carried(&self) {
        add_one(&CARRIED, 0);
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn pod(&self, addr: &Addr16) -> Option<PodValue> {
        if let Some(pod) = near_pod(addr) {
            return Some(*pod);
        }
        // The kernel wants the key in memory; until here it is in registers.
        let key = *addr;
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { PODS.get(&key) }.copied()
    }

    #[inline(always)]
    fn carries(&self) -> bool {
        carries() != 0
    }

    #[inline(always)]
    fn near_pod(&self, addr: &Addr16) -> Option<&PodValue> {
        near_pod(addr)
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
        uplink_ifindex()
    }

    #[inline(always)]
    fn is_tracked(&self, slot: u32) -> bool {
        TRACKED.get(slot).copied().unwrap_or(0) != 0
    }

    #[inline(always)]
    fn track(&self, slot: u32) {
        if let Some(tracked) = TRACKED.get_ptr_mut(slot) {
            // SAFETY: the pointer is to the array's value; every CPU writes the same word.
            unsafe { tracked.write_volatile(1) };
        }
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        let Some(bucket) = ANSWERS.get_ptr_mut(0) else { return false };
        // SAFETY: the pointer is to this CPU's value; nothing else on this CPU holds a reference to it.
        let bucket = unsafe { &mut *bucket };
        let now = self.now_ns();
        let passed = now.wrapping_sub(bucket.filled_ns);
        if passed >= 1_000_000_000 / ANSWERS_PER_SEC {
            // Nanoseconds to tokens without a division: 2^20 ns are a little more than a millisecond.
            let tokens = bucket.tokens + (passed >> 20) + 1;
            bucket.tokens = if tokens > ANSWERS_PER_SEC { ANSWERS_PER_SEC } else { tokens };
            bucket.filled_ns = now;
        }
        if bucket.tokens == 0 {
            return false;
        }
        bucket.tokens -= 1;
        true
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

impl Services for Maps {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue> {
        let (service, whole) = copy_service(SERVICES.get_ptr(key)?);
        // The entry was replaced and its memory given to another one meanwhile; the new entry is there already.
        if whole { Some(service) } else { Some(copy_service(SERVICES.get_ptr(key)?).0) }
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Option<u32> {
        SLOTS.get(slot).copied()
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<BackendValue> {
        BACKENDS.get(index).copied()
    }

    #[inline(always)]
    fn address(&self, addr: &Addr16) -> u32 {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { ADDRESSES.get(addr) }.map_or(0, |value| value.flags)
    }

    #[inline(always)]
    fn is_service_network(&self, addr: &Addr16) -> bool {
        SERVICE_NETWORKS.get(ServiceNetwork::index(addr)).is_some_and(|network| network.covers(addr))
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn keep_affinity(&self, key: &AffinityKey, value: &AffinityValue) {
        // A full map means that the client may get another backend next time; the agent tells how full it is.
        let _full = AFFINITY.insert(key, value, BPF_ANY as u64);
    }

    #[inline(always)]
    fn is_allowed(&self, service_id: u32, source: &Addr16) -> bool {
        SOURCE_RANGES.get(Key::new(32 + 128, SourceRange { service_id, addr: *source })).is_some()
    }

    #[inline(always)]
    fn is_node_port(&self, port: u16) -> bool {
        let port = port as u32;
        node_port_first() <= port && port <= node_port_last()
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_ns() }
    }
}

impl Sockets for Maps {
    #[inline(always)]
    fn origin(&self, key: &OriginKey) -> Option<OriginValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { ORIGINS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &OriginKey, origin: &OriginValue) {
        // It fails only when every entry is being evicted at once; the datagram goes without it.
        keep(&ORIGINS, ADDED_ORIGINS, key, origin);
    }
}

/// `EEXIST` of `asm-generic/errno-base.h`.
const EEXIST: i32 = 17;

impl Connections for Maps {
    #[inline(always)]
    fn connection(&self, key: &ConntrackKey, value: &mut ConntrackValue) -> bool {
        // SAFETY: the value is plain bytes, copied at once.
        let Some(found) = (unsafe { CONNTRACK.get(key) }) else { return false };
        *value = *found;
        true
    }

    #[inline(always)]
    fn add_connection(&self, key: &ConntrackKey, value: &ConntrackValue, replace: bool) -> Added {
        let flags = if replace { BPF_ANY } else { BPF_NOEXIST };
        match CONNTRACK.insert(key, value, flags as u64) {
            Ok(()) => Added::Done,
            Err(error) if error == -EEXIST => Added::Exists,
            Err(_) => Added::Full,
        }
    }

    #[inline(always)]
    fn remove_connection(&self, key: &ConntrackKey) {
        let _absent = CONNTRACK.remove(key);
    }

    #[inline(always)]
    fn mark_connection(&self, key: &ConntrackKey, flags: u16, seen_ns: u64) {
        if let Some(value) = CONNTRACK.get_ptr_mut(key) {
            // SAFETY: the pointer is to a map value, which stays mapped for the time of the program. Other CPUs write
            // these words, too: a flag that is lost that way comes with the next packet.
            unsafe {
                if flags != 0 {
                    (*value).flags |= flags;
                }
                if seen_ns != 0 {
                    (*value).seen_ns = seen_ns;
                }
            }
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        // SAFETY: the value is plain bytes, copied at once.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn keep_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        // It fails only when every entry is being evicted at once; the fragments that follow are then dropped and counted.
        keep(&FRAGMENTS, ADDED_FRAGMENTS, key, value);
    }

    #[inline(always)]
    fn forwarding(&self) -> u32 {
        forwarding()
    }

    #[inline(always)]
    fn node(&self) -> NodeValue {
        NODE.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn masquerade_ports(&self) -> (u16, u16) {
        let first = masquerade_first();
        (first as u16, masquerade_last().wrapping_sub(first).wrapping_add(1) as u16)
    }

    #[inline(always)]
    fn node_of(&self, addr: &Addr16) -> Option<Addr16> {
        let route = self.route(addr)?;
        if is_unspecified(&route.next_hop) { None } else { Some(route.next_hop) }
    }
}

/// The pod with the address, if no other one has its place among the near ones.
#[inline(always)]
fn near_pod(addr: &Addr16) -> Option<&'static PodValue> {
    let near = NEAR_PODS.get(NearPod::index(addr))?;
    if same(&near.addr, addr) { Some(&near.pod) } else { None }
}

/// Indexes in `ADDED`, as in [`names::LRU`].
const ADDED_ORIGINS: u32 = 0;
const ADDED_FRAGMENTS: u32 = 1;

/// Writes an entry, and counts it if there was none of that key.
#[inline(always)]
fn keep<K, V>(map: &LruHashMap<K, V>, index: u32, key: &K, value: &V) {
    if map.insert(key, value, BPF_NOEXIST as u64).is_ok() {
        add_one(&ADDED, index);
    } else {
        let _full = map.insert(key, value, BPF_ANY as u64);
    }
}

#[inline(always)]
fn add_one(counter: &PerCpuArray<u64>, index: u32) {
    if let Some(count) = counter.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's value; nothing else on this CPU holds a reference to it.
        unsafe { *count += 1 };
    }
}

/// This CPU's memory for a packet.
#[inline(always)]
pub(crate) fn work<'a>() -> Option<&'a mut Work> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: link programs run to their end on a CPU before another one begins there, and each takes it once. What is
    // read of it was written by the same run; before that it is zeros, or what a former run has left.
    Some(unsafe { &mut *work })
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
