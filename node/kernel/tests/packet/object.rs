//! The object is what `fairlead_abi` says.

use std::collections::BTreeSet;

use aya::maps::{Map, MapData, MapType};
use fairlead_abi::{
    Addr16,
    conntrack::{ConntrackKey, ConntrackValue, FragmentKey, FragmentValue},
    names,
    node::{AddressValue, AnswersValue, NodeValue, ServiceNetwork},
    pod::{DropKey, InterfaceValue, NearPod, PodCounters, PodValue},
    route::RouteValue,
    service::{AffinityKey, AffinityValue, BackendValue, ServiceKey, ServiceValue, SlotValue},
    socket::{OriginKey, OriginValue, SocketValue},
};

use crate::support::Loaded;

/// Most instructions that the verifier may look at per program: room for features, and a tripwire.
const BUDGET: u32 = 200_000;

#[test]
fn the_maps_have_the_names_types_sizes_and_capacities_of_the_contract() {
    const fn of<K, V>() -> (u32, u32) {
        (size_of::<K>() as u32, size_of::<V>() as u32)
    }
    let expected = [
        (names::SERVICES, MapType::Hash, of::<ServiceKey, ServiceValue>()),
        (names::SLOTS, MapType::Array, of::<u32, SlotValue>()),
        (names::BACKENDS, MapType::Array, of::<u32, BackendValue>()),
        (names::AFFINITY, MapType::Hash, of::<AffinityKey, AffinityValue>()),
        (names::SOURCE_RANGES, MapType::LpmTrie, of::<[u32; 6], u8>()),
        (names::ADDRESSES, MapType::Hash, of::<Addr16, AddressValue>()),
        (names::NODE, MapType::Array, of::<u32, NodeValue>()),
        (names::SERVICE_NETWORKS, MapType::Array, of::<u32, ServiceNetwork>()),
        (names::SOCKETS, MapType::SkStorage, of::<u32, SocketValue>()),
        (names::ORIGINS, MapType::LruHash, of::<OriginKey, OriginValue>()),
        (names::CONNTRACK, MapType::Hash, of::<ConntrackKey, ConntrackValue>()),
        (names::FRAGMENTS, MapType::LruHash, of::<FragmentKey, FragmentValue>()),
        (names::TRACKED, MapType::Array, of::<u32, u32>()),
        (names::ANSWERS, MapType::PerCpuArray, of::<u32, AnswersValue>()),
        (names::PODS, MapType::Hash, of::<Addr16, PodValue>()),
        (names::NEAR_PODS, MapType::Array, of::<u32, NearPod>()),
        (names::POD_NETNS, MapType::Hash, of::<u64, InterfaceValue>()),
        (names::INTERFACES, MapType::Hash, of::<u32, InterfaceValue>()),
        (names::ROUTES, MapType::LpmTrie, of::<[u32; 5], RouteValue>()),
        (names::POD_COUNTERS, MapType::PerCpuArray, of::<u32, PodCounters>()),
        (names::DROPS, MapType::PerCpuHash, of::<DropKey, u64>()),
        (names::EVENTS, MapType::RingBuf, (0, 0)),
        (names::EVENTS_LOST, MapType::PerCpuArray, of::<u32, u64>()),
        (names::CARRIED, MapType::PerCpuArray, of::<u32, u64>()),
        (names::ADDED, MapType::PerCpuArray, of::<u32, u64>()),
    ];
    let loaded = Loaded::new();
    for (spec, kind, (key, value)) in expected {
        let map = loaded.ebpf.map(spec.name).unwrap_or_else(|| panic!("the object has no map {}", spec.name));
        let info = data(map).info().expect("the kernel describes a map of ours");
        let found = (info.map_type().ok(), info.key_size(), info.value_size(), info.max_entries());
        assert_eq!(found, (Some(kind), key, value, spec.capacity), "{}", spec.name);
    }
    let specified: BTreeSet<&str> = names::MAPS.iter().map(|map| map.name).collect();
    let tested: BTreeSet<&str> = expected.iter().map(|row| row.0.name).collect();
    assert_eq!(tested, specified, "this table names every map of the contract");
    let others = |name: &&str| !name.starts_with('.') && !name.starts_with("AYA_") && *name != "WORK";
    let present: BTreeSet<&str> = loaded.ebpf.maps().map(|(name, _)| name).filter(others).collect();
    assert_eq!(present, specified);
}

fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data) => data,
        other => panic!("a map of a type that the contract does not have: {other:?}"),
    }
}

#[test]
fn every_program_of_the_contract_passes_the_verifier_within_its_budget() {
    let loaded = Loaded::new();
    let mut programs: Vec<_> = loaded
        .ebpf
        .programs()
        .map(|(name, program)| {
            let info = program.info().expect("the kernel describes a program of ours");
            let verified = info.verified_instruction_count().unwrap_or_default();
            (name, info.size_translated().unwrap_or_default() / 8, verified)
        })
        .collect();
    programs.sort_unstable();
    println!("{:<14} {:>12} {:>10}", "program", "instructions", "verified");
    for (name, instructions, verified) in &programs {
        println!("{name:<14} {instructions:>12} {verified:>10}");
        assert!(*verified < BUDGET, "{name}: the verifier looked at {verified} instructions");
    }
    let present: BTreeSet<&str> = programs.iter().map(|row| row.0).collect();
    let programs = names::cgroup::ALL.iter().chain(names::link::ALL).chain([&names::driver::FROM_WIRE]);
    let specified: BTreeSet<&str> = programs.copied().collect();
    assert_eq!(present, specified);
}
