//! The packet table, through `BPF_PROG_TEST_RUN`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::{
    maps::{LpmTrie, PerCpuArray, PerCpuHashMap, PerCpuValues, lpm_trie::Key},
    programs::{SchedClassifier, TestRun, TestRunOptions},
    util::nr_cpus,
};
use fairlead_abi::{
    conntrack::{ConntrackKey, ConntrackValue, FragmentKey, FragmentValue},
    names::{self, MapSpec, globals::FORWARD_ENCAPSULATED, link},
    node::{AddressValue, AnswersValue, NodeValue, ServiceNetwork},
    pod::{DropKey, NearPod, PodCounters},
    route::RouteValue,
    service::{AffinityKey, AffinityValue, BackendValue, SourceRange},
};
use fairlead_datapath::{
    Verdict,
    cases::{Case, Hook, Memory, sorted, table},
};
use zerocopy::IntoBytes;

use crate::support::{Loaded, UPLINK};

/// `TC_ACT_OK`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT` of `linux/pkt_cls.h`.
const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

#[test]
fn the_loaded_programs_agree_with_the_datapath_on_the_host() {
    let mut loaded = Loaded::new();
    let cases: Vec<Case> = table().into_iter().filter(|case| !case.host_only).collect();
    assert!(cases.len() > 40, "the table is there");
    // Pods are found where they are at once, and where another one is in their place.
    for (case, near) in cases.iter().flat_map(|case| [(case, true), (case, false)]) {
        assert_eq!(case.tables.uplink, UPLINK, "the globals are set once, for the whole table");
        assert_eq!(case.tables.forwarding, FORWARD_ENCAPSULATED, "as above");
        let (on_host, after) = case.run_and_keep();
        loaded.clear_counters();
        loaded.fill(&case.tables);
        loaded.fill_near(&case.tables, near);
        let in_kernel = loaded.run(case);
        let context = format!("{:?}, near {near}: {}", case.hook, case.name);
        let expected = match on_host.verdict {
            Verdict::Pass | Verdict::PassMasqueraded | Verdict::Refuse(_) => OK,
            Verdict::Drop(_) => SHOT,
            _ => REDIRECT,
        };
        assert_eq!(in_kernel.action, expected, "{context}: verdict {:?}", on_host.verdict);
        assert_eq!(in_kernel.packet, on_host.packet, "{context}: packet");
        assert_eq!(in_kernel.counters, on_host.counters, "{context}: counters");
        assert_eq!(in_kernel.drops, on_host.drops, "{context}: drops");
        assert_eq!(in_kernel.connections, on_host.connections, "{context}: connections");
        assert_eq!(in_kernel.sessions, sessions(after.affinity.borrow().iter()), "{context}: sessions");
    }
    println!("{} packets agree", cases.len());
}

struct InKernel {
    action: u32,
    packet: Vec<u8>,
    counters: BTreeMap<u32, PodCounters>,
    drops: BTreeSet<(u32, u32)>,
    connections: Vec<(ConntrackKey, ConntrackValue)>,
    sessions: Sessions,
}

/// The backend and its generation that a client stays with, without the time: the host's is another one.
type Sessions = HashMap<AffinityKey, (u32, u32)>;

fn sessions<'a>(entries: impl Iterator<Item = (&'a AffinityKey, &'a AffinityValue)>) -> Sessions {
    entries.map(|(key, value)| (*key, (value.backend, value.generation))).collect()
}

impl Loaded {
    fn run(&mut self, case: &Case) -> InKernel {
        let name = match case.hook {
            Hook::FromPod => link::FROM_POD,
            Hook::ToPod => link::TO_POD,
            Hook::FromUplink => link::FROM_UPLINK,
            Hook::ToUplink | Hook::ThroughToUplink => link::TO_UPLINK,
            Hook::FromOverlay(_) => unreachable!("a test run has no tunnel that a packet came by"),
        };
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).expect(name).try_into().expect("a classifier");
        // An ICMP error is longer than a short packet that it is about.
        let mut packet = vec![0; case.packet.len() + 64];
        let options = TestRunOptions {
            data_in: Some(&case.packet),
            data_out: Some(&mut packet),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        packet.truncate(result.data_size_out as usize);
        let slots = (0..16).map(|slot| (slot, self.counters(slot)));
        InKernel {
            action: result.return_value,
            packet,
            counters: slots.filter(|(_, counters)| *counters != PodCounters::default()).collect(),
            drops: self.drops().into_iter().map(|(slot, reason, _)| (slot, reason)).collect(),
            sessions: {
                let map = self.hash::<AffinityKey, AffinityValue>(names::AFFINITY);
                let entries: Vec<_> = map.iter().map(|entry| entry.expect("as above")).collect();
                sessions(entries.iter().map(|(key, value)| (key, value)))
            },
            connections: sorted(self.hash(names::CONNTRACK).iter().map(|entry| entry.expect("as above"))),
        }
    }

    /// Replaces what the link programs read.
    fn fill(&mut self, tables: &Memory) {
        self.replace(names::PODS, tables.pods.iter().copied());
        self.replace(names::INTERFACES, tables.interfaces.iter().copied());
        self.replace(names::SERVICES, tables.services.iter().map(|(key, value)| (*key, *value)));
        let addresses = tables.addresses.iter().map(|(addr, flags)| (*addr, AddressValue { flags: *flags }));
        self.replace(names::ADDRESSES, addresses);
        let connections: Vec<_> = tables.connections.borrow().iter().map(|(k, v)| (*k, *v)).collect();
        self.replace(names::CONNTRACK, connections.into_iter());
        let affinity: Vec<_> = tables.affinity.borrow().iter().map(|(k, v)| (*k, *v)).collect();
        self.replace::<AffinityKey, AffinityValue>(names::AFFINITY, affinity.into_iter());
        let fragments: Vec<_> = tables.fragments.borrow().iter().map(|(k, v)| (*k, *v)).collect();
        self.replace::<FragmentKey, FragmentValue>(names::FRAGMENTS, fragments.into_iter());
        self.array::<NodeValue>(names::NODE).set(0, tables.node, 0).expect("it has one entry");
        for index in 0..names::SERVICE_NETWORKS.capacity {
            let of_family = |network: &&ServiceNetwork| ServiceNetwork::index(&network.network) == index;
            let network = tables.service_networks.iter().find(of_family).copied().unwrap_or_default();
            self.array(names::SERVICE_NETWORKS).set(index, network, 0).expect("there is room");
        }
        for (index, backend) in (0..).zip(&tables.backends) {
            self.array::<BackendValue>(names::BACKENDS).set(index, backend, 0).expect("there is room");
        }
        for (slot, backend) in (0..).zip(&tables.slots) {
            self.array::<u32>(names::SLOTS).set(slot, backend, 0).expect("there is room");
        }
        for slot in 0..16 {
            let tracked = u32::from(tables.tracked.borrow().contains(&slot));
            self.array::<u32>(names::TRACKED).set(slot, tracked, 0).expect("there is room");
        }
        let ranges = self.ebpf.map_mut(names::SOURCE_RANGES.name).expect("the object has it");
        let mut ranges = LpmTrie::<_, SourceRange, u8>::try_from(ranges).expect("a trie");
        let present: Vec<_> = ranges.keys().map(|key| key.expect("as above")).collect();
        present.iter().for_each(|key| ranges.remove(key).expect("it was there"));
        for (service_id, addr, len) in &tables.source_ranges {
            let range = SourceRange { service_id: *service_id, addr: *addr };
            ranges.insert(&Key::new(32 + len, range), 1, 0).expect("there is room");
        }
        let routes = self.ebpf.map_mut(names::ROUTES.name).expect("the object has it");
        let mut routes = LpmTrie::<_, [u8; 16], RouteValue>::try_from(routes).expect("a trie");
        let present: Vec<_> = routes.keys().map(|key| key.expect("as above")).collect();
        present.iter().for_each(|key| routes.remove(key).expect("it was there"));
        for (prefix, len, value) in &tables.routes {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(prefix.as_bytes());
            routes.insert(&Key::new(*len, bytes), value, 0).expect("there is room");
        }
    }

    /// Puts the pods where they are found at once, or another one into the place of each.
    fn fill_near(&mut self, tables: &Memory, near: bool) {
        let mut map = self.array::<NearPod>(names::NEAR_PODS);
        for index in 0..map.len() {
            map.set(index, NearPod::default(), 0).expect("there is room");
        }
        for (addr, pod) in &tables.pods {
            let mut entry = NearPod { addr: *addr, pod: *pod };
            if !near {
                entry.addr.0[0] = !entry.addr.0[0];
                entry.pod.ifindex += 1;
            }
            map.set(NearPod::index(addr), entry, 0).expect("there is room");
        }
    }

    /// Replaces the content of a hash.
    fn replace<K: aya::Pod, V: aya::Pod>(&mut self, map: MapSpec, entries: impl Iterator<Item = (K, V)>) {
        let mut map = self.hash::<K, V>(map);
        let present: Vec<_> = map.keys().map(|key| key.expect("nothing changes the map meanwhile")).collect();
        present.iter().for_each(|key| map.remove(key).expect("it was there"));
        for (key, value) in entries {
            map.insert(key, value, 0).expect("there is room");
        }
    }

    fn clear_counters(&mut self) {
        let cpus = nr_cpus().expect("sysfs is mounted");
        let map = self.ebpf.map_mut(names::POD_COUNTERS.name).expect("the object has it");
        let mut counters = PerCpuArray::<_, PodCounters>::try_from(map).expect("a per-CPU array");
        for slot in 0..16 {
            let zero = PerCpuValues::try_from(vec![PodCounters::default(); cpus]).expect("one per CPU");
            counters.set(slot, zero, 0).expect("the slot is within the array");
        }
        // Every row may answer with an error.
        let map = self.ebpf.map_mut(names::ANSWERS.name).expect("the object has it");
        let mut answers = PerCpuArray::<_, AnswersValue>::try_from(map).expect("a per-CPU array");
        let some = AnswersValue { tokens: 10, ..AnswersValue::default() };
        let some = PerCpuValues::try_from(vec![some; cpus]).expect("one per CPU");
        answers.set(0, some, 0).expect("it has one entry");
        let map = self.ebpf.map_mut(names::DROPS.name).expect("the object has it");
        let mut drops = PerCpuHashMap::<_, DropKey, u64>::try_from(map).expect("a per-CPU hash");
        let present: Vec<_> =
            drops.keys().map(|key| key.expect("nothing changes the map meanwhile")).collect();
        present.iter().for_each(|key| drops.remove(key).expect("it was there"));
    }
}
