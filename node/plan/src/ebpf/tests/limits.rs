//! Maps that are full refuse what is new and keep what is there.

use super::*;

fn full(name: &str, map: &'static str, missing: usize) -> Problem {
    Problem::Full { owner: owner(name), map, missing }
}

#[test]
fn a_service_that_has_no_room_for_its_frontend_waits_for_it() {
    let mut world = World::with(Limits { frontends: 1, ..Limits::default() });
    world.change(vec![Change::PutService(service("a", &[VIP])), slice("a", &[1])]);
    let plan = world.change(vec![Change::PutService(service("b", &["10.96.0.21"])), slice("b", &[2])]);
    assert_eq!(plan.problems, [full("b", "SERVICES", 1)]);
    assert_eq!(world.planner.usage().refused, 1);
    world.change(vec![slice("a", &[1, 3])]);
    assert_eq!(world.cluster(&key(VIP)), [1, 3], "what is there goes on");
    world.change(vec![Change::DeleteService(name("a"))]);
    assert_eq!(world.change(vec![]).problems, []);
    assert_eq!(world.cluster(&key("10.96.0.21")), [2]);
}

#[test]
fn without_room_for_backends_a_service_has_fewer_and_never_a_dead_one() {
    let mut world = World::with(Limits { backends: 3, ..Limits::default() });
    world.change(vec![Change::PutService(service("a", &[VIP])), slice("a", &[1, 2, 3])]);
    let plan = world.change(vec![slice("a", &[2, 3, 4, 5])]);
    assert_eq!(plan.problems, [full("a", "BACKENDS", 2)]);
    assert_eq!(world.cluster(&key(VIP)), [2, 3]);
    assert_eq!(world.rest().problems, [full("a", "BACKENDS", 1)]);
    assert_eq!(world.cluster(&key(VIP)), [2, 3, 4], "the entry of the one that left");
    let plan = world.change(vec![]);
    assert_eq!((plan.ops, plan.problems.len()), (vec![], 1), "what does not fit is not tried in circles");
}

#[test]
fn without_room_for_a_range_the_old_one_is_written_over() {
    let mut world = World::with(Limits { slots: 3, ..Limits::default() });
    world.change(vec![Change::PutService(service("a", &[VIP])), slice("a", &[1, 2, 3])]);
    world.change(vec![slice("a", &[1, 5])]);
    assert_eq!(world.cluster(&key(VIP)), [1, 5]);
    let plan = world.change(vec![slice("a", &[1, 5, 7])]);
    assert_eq!(plan.problems, [full("a", "SLOTS", 1)]);
    assert_eq!(world.cluster(&key(VIP)), [1, 5]);
    let plan = world.change(vec![Change::PutService(service("b", &["10.96.0.21"])), slice("b", &[9])]);
    assert!(plan.problems.contains(&full("b", "SLOTS", 1)), "{plan:?}");
    assert_eq!(world.maps.value(&key("10.96.0.21")).flags, SERVICE_HAS_ENDPOINTS, "dropped, not refused");
}

#[test]
fn a_source_range_without_room_keeps_its_clients_out() {
    let mut world = World::with(Limits { source_ranges: 1, ..Limits::default() });
    let restricted = Service {
        load_balancer_addresses: vec![ip("192.0.2.2")],
        source_ranges: vec![prefix("198.51.100.0/24"), prefix("203.0.113.0/24")],
        ..service("a", &[VIP])
    };
    let plan = world.change(vec![Change::PutService(restricted)]);
    assert_eq!(plan.problems, [full("a", "SOURCE_RANGES", 1)]);
    assert_eq!(world.maps.source_ranges.len(), 1);
    assert_ne!(world.maps.value(&key("192.0.2.2")).flags & SERVICE_SOURCE_RANGES, 0);
}

#[test]
fn an_address_without_room_waits() {
    let mut world = World::with(Limits { addresses: 3, ..Limits::default() });
    let plan = world.change(vec![Change::PutService(service("a", &[VIP])), slice("a", &[1])]);
    assert_eq!(plan.problems, [Problem::Full { owner: Owner::Node, map: "ADDRESSES", missing: 1 }]);
    assert_eq!(world.cluster(&key(VIP)), [1], "its service is served all the same");
    world.local.addresses.remove(&ip("10.0.0.1"));
    assert_eq!(world.change(vec![]).problems, []);
    assert_eq!(world.maps.addresses[&ip(VIP)], ADDRESS_SERVICE);
}

#[test]
fn however_many_wait_a_plan_looks_at_some_and_all_get_their_turn() {
    const ROOM: u32 = 300;
    const WAITING: u32 = 600;
    assert!(WAITING as usize > 2 * retry::AT_ONCE, "more than two plans look at");
    let mut world = World::with(Limits { frontends: ROOM, ..Limits::default() });
    let put = |number: u32| {
        let addresses = vec![IpAddr::from([10, 96, (number >> 8) as u8, number as u8])];
        Change::PutService(Service { addresses, ..service(&format!("svc-{number}"), &[]) })
    };
    world.change((0..ROOM + WAITING).map(put).collect());
    assert_eq!(world.planner.usage().refused, WAITING as usize);
    let waiting: BTreeSet<Owner> = world.planner.problems.keys().cloned().collect();
    // With nothing that changed, whoever is looked at goes on waiting, until all were.
    let mut seen = BTreeSet::new();
    while seen != waiting {
        let turn = world.planner.retry.next(&world.planner.problems);
        assert!(!turn.is_empty() && turn.len() <= retry::AT_ONCE);
        seen.extend(turn);
    }
    let served = (0..ROOM + WAITING).map(|number| name(&format!("svc-{number}")));
    let served = served.filter(|name| !waiting.contains(&Owner::Service(name.clone())));
    world.change(served.map(Change::DeleteService).collect());
    // From then on by itself.
    for _ in 0..1_000 {
        let Some(next) = world.planner.next_release_ms() else { break };
        world.now_ms = next;
        world.change(Vec::new());
    }
    assert_eq!(world.planner.next_release_ms(), None, "it comes to rest");
    assert_eq!(world.planner.usage().frontends, ROOM as usize);
    assert_eq!(world.planner.usage().refused, (WAITING - ROOM) as usize);
}
