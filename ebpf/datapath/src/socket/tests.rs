use std::vec;

use fairlead_abi::{
    node::{ADDRESS_LOCAL, ADDRESS_SERVICE},
    service::{
        BACKEND_CLUSTER, BackendValue, SCOPE_ADDRESS, SERVICE_EXTERNAL, SERVICE_HAS_ENDPOINTS, ServiceValue,
        TCP, UDP,
    },
};

use super::*;
use crate::cases::{Memory, address};

const COOKIE: u64 = 42;
const ID: u32 = 7;
const VIP: &str = "10.96.0.10";

/// A pod's process, before its socket has a port.
struct Process;

impl Client for Process {
    fn is_inside(&self) -> bool {
        true
    }
    fn is_host(&self) -> bool {
        false
    }
    fn is_sent_here(&self) -> bool {
        false
    }
    fn address(&self) -> Addr16 {
        address("10.244.1.5")
    }
    fn identity(&self) -> Addr16 {
        Addr16::from_cookie(9)
    }
    fn hash(&self, _with_port: bool) -> Option<u32> {
        None
    }
}

/// A service on port 53 of [`VIP`] with two backends.
fn memory() -> Memory {
    let mut memory = Memory { slots: vec![1, 2], ..Memory::default() };
    let backend = |last: u8| BackendValue {
        addr: Addr16::from_v4_be(u32::from_ne_bytes([10, 244, 1, last])),
        port: Be16::new(5353),
        proto: UDP,
        flags: BACKEND_CLUSTER | BACKEND_SERVING,
        generation: 100 + u32::from(last),
    };
    memory.backends = vec![BackendValue::default(), backend(1), backend(2)];
    let value =
        ServiceValue { active: 2, flags: SERVICE_HAS_ENDPOINTS, service_id: ID, ..ServiceValue::default() };
    for proto in [TCP, UDP] {
        let key = ServiceKey { addr: address(VIP), port: Be16::new(53), proto, scope: SCOPE_ADDRESS };
        memory.services.insert(key, value);
    }
    memory.addresses.insert(address(VIP), ADDRESS_SERVICE);
    memory
}

fn send_once(memory: &Memory) -> Translation {
    send(memory, &Process, COOKIE, (&address(VIP), Be16::new(53), UDP))
}

fn backend_of(translation: Translation) -> u32 {
    match translation {
        Translation::To { choice, service_id: ID } => choice.index,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_to_a_service_is_aimed_at_a_backend_and_remembers_the_service() {
    let memory = memory();
    let Translation::To { choice, service_id } =
        connect(&memory, &Process, &address(VIP), Be16::new(53), TCP)
    else {
        panic!("it is a service")
    };
    let socket = connected(&address(VIP), Be16::new(53), &choice, service_id);
    let shown = peer(&socket, &choice.backend.addr, choice.backend.port);
    assert_eq!(shown, Some((address(VIP), Be16::new(53))));
    assert_eq!(peer(&socket, &address("10.244.1.9"), choice.backend.port), None, "connected anew, elsewhere");
    assert_eq!(peer(&SocketValue::default(), &Addr16::UNSPECIFIED, Be16(0)), None, "never translated");
}

#[test]
fn other_addresses_are_left_alone_and_unknown_ports_of_a_service_refused() {
    let memory = memory();
    assert_eq!(connect(&memory, &Process, &address("10.96.0.11"), Be16::new(53), TCP), Translation::None);
    let refused = Translation::Refused(Refusal { reason: DropReason::NoPort, service_id: 0 });
    assert_eq!(connect(&memory, &Process, &address(VIP), Be16::new(54), TCP), refused);
    assert_eq!(send(&memory, &Process, COOKIE, (&address(VIP), Be16::new(54), UDP)), refused);
}

#[test]
fn the_datagrams_of_a_socket_stay_with_their_backend_while_it_serves() {
    let mut memory = memory();
    assert_eq!(backend_of(send_once(&memory)), 1);
    memory.random.set(u32::MAX);
    assert_eq!(backend_of(send_once(&memory)), 1);
    assert_eq!(memory.writes.get(), 2, "the second datagram writes nothing");
    memory.backends[1].flags = BACKEND_SERVING;
    assert_eq!(backend_of(send_once(&memory)), 1, "it ends what has begun");
    memory.backends[1].flags = 0;
    assert_eq!(backend_of(send_once(&memory)), 2);
    memory.random.set(0);
    memory.backends[2].generation += 1;
    memory.backends[1].flags = BACKEND_SERVING | BACKEND_CLUSTER;
    assert_eq!(backend_of(send_once(&memory)), 1, "the place was given to another endpoint");
}

#[test]
fn an_answer_shows_the_service_unless_the_backend_was_replaced() {
    let mut memory = memory();
    let index = backend_of(send_once(&memory));
    let backend = memory.backends[index as usize];
    let key = OriginKey {
        cookie: COOKIE,
        addr: backend.addr,
        port: backend.port,
        kind: ORIGIN_OF_BACKEND,
        _pad: [0; 5],
    };
    let origin = sender(&memory, &key).expect("the socket asked the service");
    assert_eq!((origin.addr, origin.port, origin.service_id), (address(VIP), Be16::new(53), ID));
    assert_eq!(sender(&memory, &OriginKey { cookie: COOKIE + 1, ..key }), None, "another socket");
    memory.backends[index as usize].generation += 1;
    assert_eq!(sender(&memory, &key), None);
}

#[test]
fn a_backend_answers_for_whom_the_socket_asked_last() {
    let memory = memory();
    let backend = memory.backends[backend_of(send_once(&memory)) as usize];
    let key = OriginKey {
        cookie: COOKIE,
        addr: backend.addr,
        port: backend.port,
        kind: ORIGIN_OF_BACKEND,
        _pad: [0; 5],
    };
    let sender_of = |key| sender(&memory, key).map(|origin| (origin.addr, origin.port));
    let service = Some((address(VIP), Be16::new(53)));
    assert_eq!(sender_of(&key), service);
    let ask_itself = |cookie| {
        let answer = send(&memory, &Process, cookie, (&backend.addr, backend.port, UDP));
        assert_eq!(answer, Translation::None);
    };
    ask_itself(COOKIE + 1);
    assert_eq!(sender_of(&key), service, "another socket asked");
    ask_itself(COOKIE);
    assert_eq!(sender_of(&key), Some((backend.addr, backend.port)));
    let writes = memory.writes.get();
    ask_itself(COOKIE);
    assert_eq!(memory.writes.get(), writes, "it is known");
    send_once(&memory);
    assert_eq!(sender_of(&key), service);
}

#[test]
fn a_process_may_not_listen_where_a_node_port_is() {
    let mut memory = memory();
    memory.addresses.insert(address("172.29.0.11"), ADDRESS_LOCAL | ADDRESS_NODE_PORT);
    memory.addresses.insert(address("172.30.0.11"), ADDRESS_LOCAL);
    let key = ServiceKey {
        addr: Addr16::UNSPECIFIED_V4,
        port: Be16::new(30_080),
        proto: TCP,
        scope: SCOPE_NODE_PORT,
    };
    let value = ServiceValue { flags: SERVICE_EXTERNAL, service_id: ID, ..ServiceValue::default() };
    memory.services.insert(key, value);
    let rows = [
        ("0.0.0.0", 30_080, TCP, false),
        ("172.29.0.11", 30_080, TCP, false),
        ("172.30.0.11", 30_080, TCP, true),
        ("0.0.0.0", 30_080, UDP, true),
        ("0.0.0.0", 30_081, TCP, true),
        ("0.0.0.0", 8_080, TCP, true),
        ("::", 30_080, TCP, false),
        ("fd00:29::b", 30_080, TCP, true),
    ];
    for (addr, port, proto, allowed) in rows {
        assert_eq!(
            may_bind(&memory, &address(addr), Be16::new(port), proto),
            allowed,
            "{addr} {port} {proto}"
        );
    }
}
