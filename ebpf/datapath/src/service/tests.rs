use std::{vec, vec::Vec};

use fairlead_abi::{
    node::{ADDRESS_LOCAL, ADDRESS_NODE_PORT},
    service::{BACKEND_SERVING, TCP, UDP},
};

use super::*;
use crate::cases::{Memory, address};

const ID: u32 = 7;

/// A client whose every quality the test chooses.
#[derive(Clone)]
struct Someone {
    inside: bool,
    host: bool,
    sent_here: bool,
    address: &'static str,
    hash: Option<u32>,
}

impl Client for Someone {
    fn is_inside(&self) -> bool {
        self.inside
    }
    fn is_host(&self) -> bool {
        self.host
    }
    fn is_sent_here(&self) -> bool {
        self.sent_here
    }
    fn address(&self) -> Addr16 {
        address(self.address)
    }
    fn identity(&self) -> Addr16 {
        address(self.address)
    }
    fn hash(&self, _with_port: bool) -> Option<u32> {
        self.hash
    }
}

const POD: Someone =
    Someone { inside: true, host: false, sent_here: false, address: "10.244.1.5", hash: None };
const OUTSIDE: Someone =
    Someone { inside: false, host: false, sent_here: false, address: "198.51.100.7", hash: Some(0) };

/// Backends 1..=4 behind slots 10..14; the first is chosen by the policy Local alone, the second by both.
fn memory() -> Memory {
    let flags = [BACKEND_LOCAL, BACKEND_LOCAL | BACKEND_CLUSTER, BACKEND_CLUSTER, BACKEND_CLUSTER];
    let backend = |(index, flags): (usize, &u8)| BackendValue {
        addr: Addr16::from_v4_be(u32::from_ne_bytes([10, 244, 1, index as u8 + 1])),
        port: Be16::new(8080),
        proto: TCP,
        flags: flags | BACKEND_SERVING,
        generation: 100 + index as u32,
    };
    let mut memory = Memory { slots: vec![0; 10], ..Memory::default() };
    memory.slots.extend([1, 2, 3, 4]);
    memory.backends = vec![BackendValue::default()];
    memory.backends.extend(flags.iter().enumerate().map(backend));
    memory
}

fn service() -> ServiceValue {
    ServiceValue {
        first: 10,
        local: 2,
        skip: 1,
        active: 3,
        flags: SERVICE_HAS_ENDPOINTS,
        service_id: ID,
        ..ServiceValue::default()
    }
}

/// Every backend that some chance leads to.
fn reachable(memory: &Memory, service: &ServiceValue, client: &Someone) -> Vec<u32> {
    let mut found: Vec<u32> = (0..64)
        .filter_map(|step| {
            memory.random.set(u32::MAX / 64 * step + 1);
            select(memory, service, client).ok().map(|choice| choice.index)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn each_policy_chooses_from_its_own_window() {
    let with = |flags| ServiceValue { flags: SERVICE_HAS_ENDPOINTS | flags, ..service() };
    let rows = [
        ("inside, Cluster", with(0), POD, vec![2, 3, 4]),
        ("inside, internal Local", with(SERVICE_INTERNAL_LOCAL), POD, vec![1, 2]),
        ("inside, external Local does not concern it", with(SERVICE_EXTERNAL_LOCAL), POD, vec![2, 3, 4]),
        ("outside, Cluster", with(0), OUTSIDE, vec![2, 3, 4]),
        ("outside, external Local", with(SERVICE_EXTERNAL_LOCAL), OUTSIDE, vec![1, 2]),
        ("outside, internal Local", with(SERVICE_INTERNAL_LOCAL), OUTSIDE, vec![1, 2]),
        ("sent here by another node", with(0), Someone { sent_here: true, ..OUTSIDE }, vec![1, 2]),
    ];
    for (name, service, client, expected) in rows {
        assert_eq!(reachable(&memory(), &service, &client), expected, "{name}");
    }
}

#[test]
fn chance_reaches_every_backend_equally() {
    let memory = memory();
    let steps = 3_000;
    let mut counts = [0; 5];
    for step in 0..steps {
        memory.random.set(u32::MAX / steps * step + 1);
        counts[select(&memory, &service(), &POD).unwrap().index as usize] += 1;
    }
    assert!(counts[2..].iter().all(|count: &i32| count.abs_diff(1_000) <= 1), "{counts:?}");
}

#[test]
fn who_cannot_be_served_learns_why() {
    let none = ServiceValue { active: 0, local: 0, flags: 0, ..service() };
    let elsewhere =
        ServiceValue { local: 0, flags: SERVICE_HAS_ENDPOINTS | SERVICE_INTERNAL_LOCAL, ..service() };
    let hollow = ServiceValue { first: 0, skip: 0, active: 1, ..service() };
    let rows = [
        (none, DropReason::NoEndpoints, true),
        (elsewhere, DropReason::NoLocalEndpoints, false),
        (hollow, DropReason::Inconsistent, true),
    ];
    for (service, reason, told) in rows {
        let refusal = select(&memory(), &service, &POD).unwrap_err();
        assert_eq!((refusal.reason, refusal.service_id), (reason, ID));
        assert_eq!(refusal.is_told(), told, "{reason:?}");
    }
}

#[test]
fn source_ranges_concern_everybody_but_an_allowed_host() {
    let mut memory = memory();
    memory.source_ranges = vec![(ID, address("198.51.100.0"), 96 + 24), (ID + 1, address("0.0.0.0"), 96)];
    let ranges = SERVICE_HAS_ENDPOINTS | SERVICE_SOURCE_RANGES;
    let host = Someone { host: true, ..POD };
    let rows = [
        (ranges, OUTSIDE, true),
        (ranges, Someone { address: "203.0.113.1", ..OUTSIDE }, false),
        (ranges, POD, false),
        (ranges, host.clone(), false),
        (ranges | SERVICE_HOST_ALLOWED, host, true),
        (SERVICE_HAS_ENDPOINTS, POD, true),
    ];
    for (flags, client, served) in rows {
        let found = select(&memory, &ServiceValue { flags, ..service() }, &client);
        assert_eq!(found.is_ok(), served, "{:?}: {found:?}", client.address);
        if let Err(refusal) = found {
            assert_eq!((refusal.reason, refusal.is_told()), (DropReason::SourceNotAllowed, false));
        }
    }
}

#[test]
fn an_address_for_those_inside_is_denied_to_clients_outside_alone() {
    let inside_only = ServiceValue { flags: SERVICE_HAS_ENDPOINTS | SERVICE_INSIDE_ONLY, ..service() };
    let sent_here = Someone { sent_here: true, ..OUTSIDE };
    let host = Someone { host: true, ..POD };
    for (client, served) in [(POD, true), (host, true), (OUTSIDE, false), (sent_here, false)] {
        let found = select(&memory(), &inside_only, &client);
        assert_eq!(found.is_ok(), served, "{:?}: {found:?}", client.address);
        if let Err(refusal) = found {
            assert_eq!((refusal.reason, refusal.is_told()), (DropReason::OutsideNotAllowed, false));
        }
    }
    let nowhere = ServiceValue { active: 0, local: 0, ..inside_only };
    let refusal = select(&memory(), &nowhere, &OUTSIDE).unwrap_err();
    assert_eq!(
        refusal.reason,
        DropReason::OutsideNotAllowed,
        "who may not ask learns nothing of the endpoints"
    );
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_client_with_affinity_stays_until_the_time_since_its_last_connection_is_over() {
    let memory = memory();
    let service = ServiceValue { affinity_secs: 10, ..service() };
    let choose = |at: u64, random: u32| {
        memory.now_ns.set(100 * SECOND + at * SECOND);
        memory.random.set(random);
        select(&memory, &service, &POD).unwrap().index
    };
    assert_eq!(choose(0, 0), 2);
    assert_eq!(choose(9, u32::MAX), 2, "within the time");
    assert_eq!(choose(18, u32::MAX), 2, "the connection before has begun the time anew");
    assert_eq!(choose(28, u32::MAX), 4, "the end of the time is not part of it");
    let other = Someone { address: "10.244.1.9", ..POD };
    memory.random.set(0);
    assert_eq!(select(&memory, &service, &other).unwrap().index, 2, "others are not bound by it");
}

#[test]
fn affinity_ends_with_its_backend_and_with_the_policy_that_allowed_it() {
    let mut memory = memory();
    let service = ServiceValue { affinity_secs: 10, ..service() };
    memory.random.set(0);
    assert_eq!(select(&memory, &service, &POD).unwrap().index, 2);
    memory.random.set(u32::MAX);
    memory.backends[2].flags = BACKEND_SERVING;
    assert_eq!(select(&memory, &service, &POD).unwrap().index, 4, "it only ends what has begun");
    memory.backends[4].generation += 1;
    memory.random.set(0);
    assert_eq!(select(&memory, &service, &POD).unwrap().index, 2, "its place was given to another endpoint");
    let local = ServiceValue { flags: service.flags | SERVICE_INTERNAL_LOCAL, ..service };
    memory.backends[2].flags = BACKEND_SERVING | BACKEND_CLUSTER;
    assert_eq!(select(&memory, &local, &POD).unwrap().index, 1, "the policy Local does not choose it");
}

#[test]
fn a_maglev_table_decides_by_the_connection_and_not_by_chance() {
    let mut memory = memory();
    memory.slots.extend([4, 3, 2, 4]);
    let service = ServiceValue { table: 14, table_len: 4, ..service() };
    let choose = |hash| select(&memory, &service, &Someone { hash, ..OUTSIDE }).unwrap().index;
    for random in [0, u32::MAX] {
        memory.random.set(random);
        let hashes = [0, u32::MAX / 4 + 1, u32::MAX / 2 + 1, u32::MAX];
        assert_eq!(hashes.map(|hash| choose(Some(hash))), [4, 3, 2, 4]);
    }
    memory.random.set(0);
    assert_eq!(choose(None), 2, "a socket has no port yet: chance");
}

#[test]
fn a_frontend_is_an_exact_address_or_a_node_port_of_an_address_that_serves_them() {
    let mut memory = memory();
    let exact =
        ServiceKey { addr: address("10.96.0.10"), port: Be16::new(80), proto: TCP, scope: SCOPE_ADDRESS };
    let port = ServiceKey {
        addr: Addr16::UNSPECIFIED_V4,
        port: Be16::new(30_080),
        proto: TCP,
        scope: SCOPE_NODE_PORT,
    };
    let low = ServiceKey { port: Be16::new(80), ..port };
    for key in [exact, port, low] {
        memory.services.insert(key, service());
    }
    for (text, flags) in [
        ("10.96.0.10", ADDRESS_SERVICE),
        ("172.29.0.11", ADDRESS_LOCAL | ADDRESS_NODE_PORT),
        ("172.30.0.11", ADDRESS_LOCAL),
        ("fd00::b", ADDRESS_LOCAL | ADDRESS_NODE_PORT),
    ] {
        memory.addresses.insert(address(text), flags);
    }
    let rows = [
        ("10.96.0.10", 80, TCP, Frontend::Service(service())),
        ("10.96.0.10", 80, UDP, Frontend::NoPort),
        ("10.96.0.10", 81, TCP, Frontend::NoPort),
        ("10.96.0.11", 80, TCP, Frontend::None),
        ("172.29.0.11", 30_080, TCP, Frontend::Service(service())),
        ("172.29.0.11", 30_080, UDP, Frontend::None),
        ("172.29.0.11", 80, TCP, Frontend::None),
        ("172.30.0.11", 30_080, TCP, Frontend::None),
        ("fd00::b", 30_080, TCP, Frontend::None),
    ];
    for (addr, port, proto, expected) in rows {
        let found = frontend(&memory, &address(addr), Be16::new(port), proto, ADDRESS_NODE_PORT);
        assert_eq!(found, expected, "{addr} {port}");
    }
}
