use std::{cell::Cell, vec};

use fairlead_abi::{
    node::{ADDRESS_LOCAL, ADDRESS_SERVICE},
    service::{
        BACKEND_CLUSTER, BackendValue, SCOPE_ADDRESS, SERVICE_EXTERNAL, SERVICE_HAS_ENDPOINTS, ServiceValue,
        TCP, UDP,
    },
};

use super::*;
use crate::cases::{Memory, address};

const ID: u32 = 7;
const OTHER_ID: u32 = 8;
const VIP: &str = "10.96.0.10";
const OTHER_VIP: &str = "10.96.0.12";

/// A socket of a pod's process, before it has a port.
#[derive(Default)]
struct Process {
    cookie: u64,
    kept: Cell<Option<SocketValue>>,
}

impl Socket for Process {
    fn cookie(&self) -> u64 {
        self.cookie
    }
    fn kept(&self) -> Option<SocketValue> {
        self.kept.get()
    }
    fn keep(&self, value: &SocketValue) {
        let others = value.others | self.kept.get().unwrap_or_default().others;
        self.kept.set(Some(SocketValue { others, ..*value }));
    }
}

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

/// Two services on port 53 of [`VIP`] and [`OTHER_VIP`], with the same two backends.
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
    for (vip, service_id) in [(VIP, ID), (OTHER_VIP, OTHER_ID)] {
        let value =
            ServiceValue { active: 2, flags: SERVICE_HAS_ENDPOINTS, service_id, ..ServiceValue::default() };
        for proto in [TCP, UDP] {
            let key = ServiceKey { addr: address(vip), port: Be16::new(53), proto, scope: SCOPE_ADDRESS };
            memory.services.insert(key, value);
        }
        memory.addresses.insert(address(vip), ADDRESS_SERVICE);
    }
    memory
}

/// Sends a datagram to a service; the index of the backend that it goes to.
fn ask(memory: &Memory, socket: &Process, vip: &str) -> u32 {
    match send(memory, socket, (&address(vip), Be16::new(53), UDP)) {
        Translation::To { choice, .. } => choice.index,
        other => panic!("{other:?}"),
    }
}

fn ask_itself(memory: &Memory, socket: &Process, backend: &BackendValue) {
    let translation = send(memory, socket, (&backend.addr, backend.port, UDP));
    assert_eq!(translation, Translation::None);
}

fn sender_of(memory: &Memory, socket: &Process, backend: &BackendValue) -> Option<(Addr16, Be16)> {
    sender(memory, socket, &backend.addr, backend.port)
}

fn peer_of(socket: &Process, backend: &BackendValue) -> Option<(Addr16, Be16)> {
    peer(socket, &backend.addr, backend.port)
}

fn service(vip: &str) -> Option<(Addr16, Be16)> {
    Some((address(vip), Be16::new(53)))
}

/// Connects a socket as the hook does; the backend, if it is to a service.
fn connect_to(memory: &Memory, socket: &Process, addr: &Addr16, port: Be16) -> Option<BackendValue> {
    match connect(memory, socket, addr, port, UDP) {
        Translation::To { choice, service_id } => {
            connected(socket, addr, port, &choice, service_id);
            Some(choice.backend)
        }
        Translation::None => {
            connected_past_services(memory, socket, addr, port);
            None
        }
        Translation::Refused(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn a_connection_to_a_service_is_aimed_at_a_backend_and_remembers_the_service() {
    let (memory, socket) = (memory(), Process::default());
    assert_eq!(peer(&socket, &Addr16::UNSPECIFIED, Be16(0)), None, "never translated");
    let backend = connect_to(&memory, &socket, &address(VIP), Be16::new(53)).expect("it is a service");
    assert_eq!(peer_of(&socket, &backend), service(VIP));
    assert_eq!(sender_of(&memory, &socket, &backend), service(VIP));
    assert_eq!(peer(&socket, &address("10.244.1.9"), backend.port), None, "connected anew, elsewhere");
}

#[test]
fn a_socket_that_is_connected_past_services_has_no_service_any_more() {
    let (memory, socket) = (memory(), Process::default());
    let backend = connect_to(&memory, &socket, &address(VIP), Be16::new(53)).expect("it is a service");
    assert_eq!(connect_to(&memory, &socket, &backend.addr, backend.port), None);
    assert_eq!((peer_of(&socket, &backend), sender_of(&memory, &socket, &backend)), (None, None));
    let fresh = Process::default();
    connect_to(&memory, &fresh, &backend.addr, backend.port);
    assert_eq!(fresh.kept.get(), None, "who never had to do with services keeps nothing");
}

#[test]
fn what_is_no_frontend_stays_and_an_unknown_port_of_a_service_fails() {
    let (memory, socket) = (memory(), Process::default());
    assert_eq!(connect(&memory, &socket, &address("10.96.0.11"), Be16::new(53), TCP), Translation::None);
    let refused = Translation::Refused(Refusal { reason: DropReason::NoPort, service_id: 0 });
    assert_eq!(connect(&memory, &socket, &address(VIP), Be16::new(54), TCP), refused);
    assert_eq!(send(&memory, &socket, (&address(VIP), Be16::new(54), UDP)), refused);
    assert_eq!(socket.kept.get(), None);
}

/// Of the first service in the socket itself, of another in the map.
#[test]
fn the_datagrams_of_a_socket_stay_with_their_backend_while_it_serves() {
    for (before, writes) in [(None, 0), (Some(OTHER_VIP), 2)] {
        let (mut memory, socket) = (memory(), Process::default());
        if let Some(other) = before {
            ask(&memory, &socket, other);
        }
        assert_eq!(ask(&memory, &socket, VIP), 1);
        memory.random.set(u32::MAX);
        assert_eq!(ask(&memory, &socket, VIP), 1);
        assert_eq!(memory.writes.get(), writes, "the second datagram writes nothing");
        memory.backends[1].flags = BACKEND_SERVING;
        assert_eq!(ask(&memory, &socket, VIP), 1, "it ends what has begun");
        memory.backends[1].flags = 0;
        assert_eq!(ask(&memory, &socket, VIP), 2);
        memory.random.set(0);
        memory.backends[2].generation += 1;
        memory.backends[1].flags = BACKEND_SERVING | BACKEND_CLUSTER;
        assert_eq!(ask(&memory, &socket, VIP), 1, "the place was given to another endpoint");
    }
}

#[test]
fn an_answer_shows_the_service_unless_the_backend_was_replaced() {
    for before in [None, Some(OTHER_VIP)] {
        let (mut memory, socket) = (memory(), Process::default());
        if let Some(other) = before {
            ask(&memory, &socket, other);
            memory.random.set(u32::MAX);
        }
        let index = ask(&memory, &socket, VIP) as usize;
        let backend = memory.backends[index];
        assert_eq!(sender_of(&memory, &socket, &backend), service(VIP));
        assert_eq!(sender_of(&memory, &Process::default(), &backend), None, "another socket");
        memory.backends[index].generation += 1;
        assert_eq!(sender_of(&memory, &socket, &backend), None);
    }
}

#[test]
fn a_socket_that_asks_two_services_sees_both() {
    let (memory, socket) = (memory(), Process::default());
    let first = memory.backends[ask(&memory, &socket, VIP) as usize];
    memory.random.set(u32::MAX);
    let second = memory.backends[ask(&memory, &socket, OTHER_VIP) as usize];
    assert_ne!(first, second);
    for _ in 0..2 {
        assert_eq!(sender_of(&memory, &socket, &first), service(VIP));
        assert_eq!(sender_of(&memory, &socket, &second), service(OTHER_VIP));
        ask(&memory, &socket, VIP);
        ask(&memory, &socket, OTHER_VIP);
    }
    // It is connected for a while; what it asked before is still known.
    memory.random.set(0);
    connect_to(&memory, &socket, &address(VIP), Be16::new(53));
    assert_eq!(sender_of(&memory, &socket, &second), service(OTHER_VIP));
    // To there it can send an address along with the datagram all the same.
    assert_eq!(ask(&memory, &socket, OTHER_VIP), 2);
    assert_eq!(sender_of(&memory, &socket, &second), service(OTHER_VIP));
}

#[test]
fn a_backend_answers_for_whom_the_socket_asked_last() {
    for before in [None, Some(OTHER_VIP)] {
        let memory = memory();
        let [socket, stranger] = [1, 2].map(|cookie| Process { cookie, ..Process::default() });
        for socket in [&socket, &stranger] {
            memory.random.set(0);
            if let Some(other) = before {
                ask(&memory, socket, other);
            }
            memory.random.set(u32::MAX);
            ask(&memory, socket, VIP);
        }
        let backend = memory.backends[2];
        assert_eq!(sender_of(&memory, &socket, &backend), service(VIP));
        let own = Some((backend.addr, backend.port));
        let as_itself = |answerer: Option<_>| answerer.is_none() || answerer == own;
        ask_itself(&memory, &stranger, &backend);
        assert_eq!(sender_of(&memory, &socket, &backend), service(VIP), "another socket asked");
        ask_itself(&memory, &socket, &backend);
        assert!(as_itself(sender_of(&memory, &socket, &backend)));
        let writes = memory.writes.get();
        ask_itself(&memory, &socket, &backend);
        assert_eq!(memory.writes.get(), writes, "it is known");
        assert_eq!(ask(&memory, &socket, VIP), 2, "the service leads to the same backend");
        assert_eq!(sender_of(&memory, &socket, &backend), service(VIP));
        connect_to(&memory, &socket, &backend.addr, backend.port);
        assert!(as_itself(sender_of(&memory, &socket, &backend)));
    }
}

#[test]
fn of_two_services_with_one_backend_the_one_that_was_asked_last_answers() {
    let (memory, socket) = (memory(), Process::default());
    let backend = memory.backends[1];
    for vip in [VIP, OTHER_VIP, VIP, OTHER_VIP, OTHER_VIP] {
        assert_eq!(ask(&memory, &socket, vip), 1);
        assert_eq!(sender_of(&memory, &socket, &backend), service(vip));
    }
    let own = Some((backend.addr, backend.port));
    ask_itself(&memory, &socket, &backend);
    assert_eq!(sender_of(&memory, &socket, &backend), own);
    for vip in [OTHER_VIP, VIP] {
        assert_eq!(ask(&memory, &socket, vip), 1);
        assert_eq!(sender_of(&memory, &socket, &backend), service(vip));
    }
}

#[test]
fn of_two_threads_that_ask_two_services_at_once_both_see_who_answers() {
    /// Another thread is a moment quicker.
    struct Overtaken<'a>(&'a Process, SocketValue);
    impl Socket for Overtaken<'_> {
        fn cookie(&self) -> u64 {
            self.0.cookie()
        }
        fn kept(&self) -> Option<SocketValue> {
            self.0.kept()
        }
        fn keep(&self, value: &SocketValue) {
            match self.0.kept() {
                None => self.0.keep(&self.1),
                Some(_) => self.0.keep(value),
            }
        }
    }
    impl Client for Overtaken<'_> {
        fn is_inside(&self) -> bool {
            self.0.is_inside()
        }
        fn is_host(&self) -> bool {
            self.0.is_host()
        }
        fn is_sent_here(&self) -> bool {
            self.0.is_sent_here()
        }
        fn address(&self) -> Addr16 {
            self.0.address()
        }
        fn identity(&self) -> Addr16 {
            self.0.identity()
        }
        fn hash(&self, with_port: bool) -> Option<u32> {
            self.0.hash(with_port)
        }
    }
    let (memory, quicker) = (memory(), Process::default());
    ask(&memory, &quicker, VIP);
    let socket = Process::default();
    memory.random.set(u32::MAX);
    let overtaken = Overtaken(&socket, quicker.kept.get().expect("its first service"));
    send(&memory, &overtaken, (&address(OTHER_VIP), Be16::new(53), UDP));
    assert_eq!(sender_of(&memory, &socket, &memory.backends[1]), service(VIP));
    assert_eq!(sender_of(&memory, &socket, &memory.backends[2]), service(OTHER_VIP));
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
