use std::{vec, vec::Vec};

use fairlead_abi::service::{SCOPE_INTERNAL, TCP, UDP};

use super::*;
use crate::cases::{MemorySockets, address};

const COOKIE: u64 = 42;

fn frontend(proto: u8) -> ServiceKey {
    ServiceKey { addr: address("10.96.0.10"), port: Be16::new(53), proto, scope: SCOPE_INTERNAL }
}

fn backend(last: u8, generation: u32) -> BackendValue {
    let addr = Addr16::from_v4_be(u32::from_ne_bytes([10, 244, 1, last]));
    BackendValue { addr, port: Be16::new(5353), proto: UDP, flags: 0, generation }
}

/// A node with a service on slots 10.., of which `local` of `active` are local.
fn sockets(active: u32, local: u32, flags: u32) -> MemorySockets {
    let value = ServiceValue {
        first: 10,
        active,
        local,
        flags,
        service_id: 7,
        generation: 1,
        ..ServiceValue::default()
    };
    let mut sockets = MemorySockets::default();
    sockets.services.insert(frontend(UDP), value);
    sockets.backends = vec![BackendValue::default(); 10];
    sockets.backends.extend((0..active).map(|index| backend(index as u8 + 1, 100 + index)));
    sockets
}

fn chosen(sockets: &MemorySockets, random: u32) -> u32 {
    sockets.random.set(random);
    match select(sockets, &frontend(UDP)) {
        Selection::Backend { slot, .. } => slot,
        other => panic!("{other:?}"),
    }
}

fn reason(sockets: &MemorySockets) -> DropReason {
    match select(sockets, &frontend(UDP)) {
        Selection::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_service_is_left_alone() {
    let sockets = sockets(1, 0, 0);
    let elsewhere = ServiceKey { port: Be16::new(54), ..frontend(UDP) };
    for key in [elsewhere, frontend(TCP)] {
        assert_eq!(translate(&sockets, || COOKIE, &key), Translation::None);
    }
    assert_eq!(sockets.writes.get(), 0);
}

#[test]
fn chance_reaches_every_active_backend_equally_and_no_other() {
    let sockets = sockets(3, 1, 0);
    let steps = 3_000;
    let slots: Vec<u32> = (0..steps).map(|step| chosen(&sockets, u32::MAX / steps * step + 1)).collect();
    for slot in 10..13 {
        let found = slots.iter().filter(|&&found| found == slot).count();
        assert!(found.abs_diff(1_000) <= 1, "slot {slot}: {found}");
    }
    assert_eq!(chosen(&sockets, u32::MAX), 12);
}

#[test]
fn a_local_policy_chooses_among_the_local_backends() {
    let sockets = sockets(3, 2, SERVICE_LOCAL_ONLY);
    assert_eq!([0, u32::MAX / 2 + 1, u32::MAX].map(|random| chosen(&sockets, random)), [10, 11, 11]);
}

#[test]
fn a_service_without_endpoints_is_refused_with_its_reason() {
    assert_eq!(reason(&sockets(0, 0, 0)), DropReason::NoEndpoints);
    assert_eq!(reason(&sockets(0, 0, SERVICE_LOCAL_ONLY)), DropReason::NoEndpoints);
    assert_eq!(reason(&sockets(2, 0, SERVICE_LOCAL_ONLY)), DropReason::NoLocalEndpoints);
}

#[test]
fn a_slot_without_a_backend_is_refused_and_reported() {
    let mut sockets = sockets(1, 0, 0);
    for backends in [vec![BackendValue::default(); 11], Vec::new()] {
        sockets.backends = backends;
        let refusal = Refusal { reason: DropReason::NoEndpoints, service_id: 7, inconsistent: true };
        assert_eq!(select(&sockets, &frontend(UDP)), Selection::Refused(refusal));
    }
}

#[test]
fn a_translated_socket_is_told_the_service_again() {
    let sockets = sockets(1, 0, 0);
    let to = Translation::To { addr: backend(1, 100).addr, port: Be16::new(5353) };
    assert_eq!(translate(&sockets, || COOKIE, &frontend(UDP)), to);
    let key = OriginKey { cookie: COOKIE, addr: backend(1, 100).addr, port: Be16::new(5353), _pad: [0; 6] };
    for origin in [sender(&sockets, &key), peer(&sockets, &key)] {
        let origin = origin.unwrap();
        assert_eq!((origin.addr, origin.port, origin.service_id), (frontend(UDP).addr, Be16::new(53), 7));
    }
    let other_socket = OriginKey { cookie: COOKIE + 1, ..key };
    assert_eq!(sender(&sockets, &other_socket), None);
}

#[test]
fn a_datagram_to_the_same_backend_writes_nothing() {
    let sockets = sockets(1, 0, 0);
    for _ in 0..3 {
        let _translation = translate(&sockets, || COOKIE, &frontend(UDP));
    }
    assert_eq!(sockets.writes.get(), 1);
}

#[test]
fn a_slot_given_to_another_endpoint_voids_what_a_socket_remembers_of_datagrams() {
    let mut sockets = sockets(1, 0, 0);
    let _translation = translate(&sockets, || COOKIE, &frontend(UDP));
    let key = OriginKey { cookie: COOKIE, addr: backend(1, 100).addr, port: Be16::new(5353), _pad: [0; 6] };
    sockets.backends[10] = backend(9, 200);
    assert_eq!(sender(&sockets, &key), None);
    assert!(peer(&sockets, &key).is_some(), "a connection keeps its peer");

    sockets.backends[10] = backend(1, 300);
    let _translation = translate(&sockets, || COOKIE, &frontend(UDP));
    assert_eq!(sender(&sockets, &key).unwrap().backend_generation, 300);
}
