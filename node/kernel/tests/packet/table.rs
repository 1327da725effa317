//! The packet table, through `BPF_PROG_TEST_RUN`.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    maps::{LpmTrie, PerCpuArray, PerCpuHashMap, PerCpuValues, lpm_trie::Key},
    programs::{SchedClassifier, TestRun, TestRunOptions},
    util::nr_cpus,
};
use fairlead_abi::{
    Addr16,
    names::{self, link},
    pod::{DropKey, InterfaceValue, PodCounters, PodValue},
    route::RouteValue,
};
use fairlead_datapath::{
    Verdict,
    cases::{Case, Hook, MemoryTables, table},
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
    for case in &cases {
        assert_eq!(case.tables.uplink, UPLINK, "the globals are set once, for the whole table");
        let on_host = case.run();
        loaded.clear_counters();
        loaded.fill(&case.tables);
        let in_kernel = loaded.run(case);
        let context = format!("{:?}: {}", case.hook, case.name);
        let expected = match on_host.verdict {
            Verdict::Pass | Verdict::Refuse(_) => OK,
            Verdict::Drop(_) => SHOT,
            Verdict::RedirectPeer { .. } | Verdict::RedirectNeigh { .. } => REDIRECT,
        };
        assert_eq!(in_kernel.action, expected, "{context}: verdict {:?}", on_host.verdict);
        assert_eq!(in_kernel.packet, on_host.packet, "{context}: packet");
        assert_eq!(in_kernel.counters, on_host.counters, "{context}: counters");
        assert_eq!(in_kernel.drops, on_host.drops, "{context}: drops");
    }
    println!("{} packets agree", cases.len());
}

struct InKernel {
    action: u32,
    packet: Vec<u8>,
    counters: BTreeMap<u32, PodCounters>,
    drops: BTreeSet<(u32, u32)>,
}

impl Loaded {
    fn run(&mut self, case: &Case) -> InKernel {
        let name = match case.hook {
            Hook::FromPod => link::FROM_POD,
            Hook::ToPod => link::TO_POD,
            Hook::FromUplink => link::FROM_UPLINK,
        };
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).expect(name).try_into().expect("a classifier");
        let mut packet = vec![0; case.packet.len()];
        let options = TestRunOptions {
            data_in: Some(&case.packet),
            data_out: Some(&mut packet),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let slots = (0..16).map(|slot| (slot, self.counters(slot)));
        InKernel {
            action: result.return_value,
            packet,
            counters: slots.filter(|(_, counters)| *counters != PodCounters::default()).collect(),
            drops: self.drops().into_iter().map(|(slot, reason, _)| (slot, reason)).collect(),
        }
    }

    /// Replaces what the link programs read.
    fn fill(&mut self, tables: &MemoryTables) {
        let mut pods = self.hash::<Addr16, PodValue>(names::PODS);
        let present: Vec<_> =
            pods.keys().map(|key| key.expect("nothing changes the map meanwhile")).collect();
        present.iter().for_each(|key| pods.remove(key).expect("it was there"));
        for (key, value) in &tables.pods {
            pods.insert(key, value, 0).expect("there is room");
        }
        let mut interfaces = self.hash::<u32, InterfaceValue>(names::INTERFACES);
        let present: Vec<_> = interfaces.keys().map(|key| key.expect("as above")).collect();
        present.iter().for_each(|key| interfaces.remove(key).expect("it was there"));
        for (key, value) in &tables.interfaces {
            interfaces.insert(key, value, 0).expect("there is room");
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

    fn clear_counters(&mut self) {
        let cpus = nr_cpus().expect("sysfs is mounted");
        let map = self.ebpf.map_mut(names::POD_COUNTERS.name).expect("the object has it");
        let mut counters = PerCpuArray::<_, PodCounters>::try_from(map).expect("a per-CPU array");
        for slot in 0..16 {
            let zero = PerCpuValues::try_from(vec![PodCounters::default(); cpus]).expect("one per CPU");
            counters.set(slot, zero, 0).expect("the slot is within the array");
        }
        let map = self.ebpf.map_mut(names::DROPS.name).expect("the object has it");
        let mut drops = PerCpuHashMap::<_, DropKey, u64>::try_from(map).expect("a per-CPU hash");
        let present: Vec<_> =
            drops.keys().map(|key| key.expect("nothing changes the map meanwhile")).collect();
        present.iter().for_each(|key| drops.remove(key).expect("it was there"));
    }
}
