use std::{collections::BTreeSet, vec::Vec};

use fairlead_abi::{
    names::globals::FORWARD_ENCAPSULATED,
    service::{SERVICE_HAS_ENDPOINTS, UDP},
};
use proptest::prelude::*;

use super::*;
use crate::cases::{Memory, address};

/// Where kube-proxy replaces a client's address, and where this node does: client, frontend and its external policy, then
/// whether it is replaced when the node forwards as kube-proxy does. A client on the node has the node's address already,
/// whatever is done to it.
#[test]
fn a_client_is_masqueraded_where_kube_proxy_does_so_and_only_when_told_to() {
    const POD: Place = Place { inside: true, here: true, ..OUTSIDE };
    const HOST: Place = Place { host: true, ..POD };
    const CLUSTER_ADDRESS: u32 = SERVICE_HAS_ENDPOINTS;
    const EXTERNAL: u32 = SERVICE_HAS_ENDPOINTS | SERVICE_EXTERNAL;
    const EXTERNAL_LOCAL: u32 = EXTERNAL | SERVICE_EXTERNAL_LOCAL;
    let rows = [
        ("pod to cluster address", POD, CLUSTER_ADDRESS, false),
        ("pod to node port or load balancer, Cluster", POD, EXTERNAL, true),
        ("pod to node port or load balancer, Local", POD, EXTERNAL_LOCAL, false),
        ("node to cluster address", HOST, CLUSTER_ADDRESS, false),
        ("node to node port or load balancer, Cluster", HOST, EXTERNAL, false),
        ("node to node port or load balancer, Local", HOST, EXTERNAL_LOCAL, false),
        ("outside to cluster address", OUTSIDE, CLUSTER_ADDRESS, true),
        ("outside to node port or load balancer, Cluster", OUTSIDE, EXTERNAL, true),
        ("outside to node port or load balancer, Local", OUTSIDE, EXTERNAL_LOCAL, false),
    ];
    for (name, place, flags, expected) in rows {
        assert_eq!(masquerades(flags, place, FORWARD_MASQUERADED), expected, "{name}");
        assert!(!masquerades(flags, place, FORWARD_ENCAPSULATED), "{name}: the client's address stays");
    }
}

fn work(client_port: u16, frontend: &str) -> Work {
    let mut work = Work::EMPTY;
    (work.network.src, work.network.dst) = (address("198.51.100.7"), address(frontend));
    work.transport.proto = UDP;
    (work.transport.src_port, work.transport.dst_port) = (Be16::new(client_port), Be16::new(80));
    work.key = crate::nat::key(&work.network, &work.transport);
    work
}

fn memory() -> Memory {
    let backend = fairlead_abi::service::BackendValue {
        addr: address("10.244.1.6"),
        port: Be16::new(8080),
        proto: UDP,
        flags: BACKEND_HERE | BACKEND_SERVING,
        generation: 3,
    };
    Memory { slots: std::vec![0], backends: std::vec![backend], ..Memory::default() }
}

const SERVICE: ServiceValue = ServiceValue {
    first: 0,
    active: 1,
    local: 1,
    skip: 0,
    table: 0,
    table_len: 0,
    flags: SERVICE_EXTERNAL | SERVICE_HAS_ENDPOINTS,
    affinity_secs: 0,
    service_id: 7,
    generation: 1,
};
const OUTSIDE: Place = Place { inside: false, host: false, here: false, sent_here: false };

#[test]
fn two_services_with_one_backend_may_have_one_client_port_at_once() {
    let memory = memory();
    let mut first = work(4_000, "203.0.113.8");
    begin(&memory, &SERVICE, OUTSIDE, &mut first).unwrap();
    let mut second = work(4_000, "203.0.113.9");
    begin(&memory, &SERVICE, OUTSIDE, &mut second).unwrap();
    assert_eq!(first.value.src_port.get(), 4_000);
    assert!(second.value.src_port.get() >= 61_001, "{:?}", second.value);
    for begun in [first, second] {
        let mut reply = ConntrackValue::default();
        assert!(memory.connection(&reverse(&begun.value, UDP), &mut reply));
        assert_eq!(
            (reply.src, reply.dst_port),
            (begun.key.dst, begun.key.src_port),
            "each reply finds its way"
        );
    }
}

#[test]
fn a_full_table_takes_nothing_new_and_keeps_what_it_has() {
    let memory = Memory { connections_max: 3, ..memory() };
    let mut first = work(4_000, "203.0.113.8");
    begin(&memory, &SERVICE, OUTSIDE, &mut first).unwrap();
    let mut second = work(4_001, "203.0.113.8");
    let refusal = begin(&memory, &SERVICE, OUTSIDE, &mut second).unwrap_err();
    assert_eq!(refusal.reason, DropReason::ConntrackFull);
    assert_eq!(memory.connections.borrow().len(), 2, "half a connection is none");
    assert!(known(&memory, &mut first), "the first goes on");
}

#[test]
fn a_datagram_leaves_a_backend_that_no_longer_serves_and_a_segment_does_not() {
    let mut memory = memory();
    let mut begun = work(4_000, "203.0.113.8");
    begin(&memory, &SERVICE, OUTSIDE, &mut begun).unwrap();
    assert!(known(&memory, &mut begun));
    memory.backends[0].flags = 0;
    assert!(!known(&memory, &mut begun));
    let mut segment = begun;
    segment.key.proto = TCP;
    segment.transport.proto = TCP;
    memory.connections.borrow_mut().insert(segment.key, begun.value);
    assert!(known(&memory, &mut segment), "a TCP connection lives as long as its ends do");
}

proptest! {
    #[test]
    fn every_reply_becomes_the_reverse_of_what_the_client_sent(
        clients in proptest::collection::vec((1_u16.., 0_usize..3), 1..60),
        forwarding in 0_u32..3,
        random in any::<u32>(),
    ) {
        let node = NodeValue { v4: address("172.29.0.11"), mtu: 1500, ..NodeValue::default() };
        let memory = Memory { forwarding, node, ..memory() };
        memory.random.set(random);
        let mut begun = Vec::new();
        for (port, frontend) in clients {
            let mut work = work(port, ["203.0.113.8", "203.0.113.9", "203.0.113.10"][frontend]);
            if known(&memory, &mut work) {
                continue;
            }
            if begin(&memory, &SERVICE, OUTSIDE, &mut work).is_ok() {
                begun.push(work);
            }
        }
        let mut replies = BTreeSet::new();
        for work in &begun {
            let key = reverse(&work.value, UDP);
            prop_assert!(replies.insert(std::format!("{key:?}")), "no two connections have the same replies");
            let mut reply = ConntrackValue::default();
            prop_assert!(memory.connection(&key, &mut reply));
            prop_assert_eq!(reverse(&reply, UDP), work.key);
        }
    }
}
