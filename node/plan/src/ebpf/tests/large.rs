//! A cluster that is larger than the maps: 20 000 services of 50 endpoints, of which the maps hold about a quarter.

use super::*;

const SERVICES: u32 = 20_000;
const ENDPOINTS: u32 = 50;

fn large_name(number: u32) -> String {
    format!("svc-{number}")
}

fn cluster_ip(number: u32) -> IpAddr {
    IpAddr::from([10, 96, (number >> 8) as u8, number as u8])
}

fn large_key(number: u32) -> ServiceKey {
    ServiceKey { addr: cluster_ip(number).into(), ..key(VIP) }
}

fn large_slice(number: u32, endpoints: impl Iterator<Item = u32>) -> Change {
    let address = |index: u32| {
        let [_, a, b, c] = (number * ENDPOINTS + index).to_be_bytes();
        IpAddr::from([10, 128 + a, b, c])
    };
    slice_of(
        &large_name(number),
        endpoints.map(|index| Endpoint::ready_at(address(index), "there")).collect(),
    )
}

fn large_service(number: u32) -> Change {
    let name = name(&large_name(number));
    Change::PutService(Service { name, addresses: vec![cluster_ip(number)], ..service("", &[]) })
}

/// How many endpoints new connections to each service may choose.
fn served(world: &World) -> Vec<usize> {
    let of = |number| world.maps.value(&large_key(number)).active as usize;
    (0..SERVICES).map(of).collect()
}

#[test]
fn a_snapshot_that_is_larger_than_the_maps_is_survived() {
    let mut world = World::new();
    let all = |number| [large_service(number), large_slice(number, 0..ENDPOINTS)];
    world.update((0..SERVICES).flat_map(all).collect());
    let plan = world.plan(Scope::All);

    // What does not fit is said, once for each service, with the map's name; all that is said is about the maps.
    let usage = world.planner.usage();
    let limits = world.limits.clone();
    assert!(plan.problems.iter().all(Problem::is_limit), "{:?}", plan.problems.first());
    assert_eq!(usage.refused, plan.problems.len());
    assert!(
        plan.problems[0].to_string().contains("eBPF map BACKENDS, which is full"),
        "{}",
        plan.problems[0]
    );
    // The maps are as full as they get, and no service has a backend that is not its own.
    assert_eq!(usage.backends, limits.backends);
    assert!(usage.slots <= limits.slots && usage.frontends == SERVICES as usize, "{usage:?}");
    let before = served(&world);
    let whole = before.iter().filter(|count| **count == ENDPOINTS as usize).count();
    assert_eq!(whole, (limits.backends / ENDPOINTS) as usize, "a service is served whole or waits");
    assert_eq!(whole + usage.refused, SERVICES as usize);
    // One that has endpoints and no room for them is not one without endpoints.
    let waiting = before.iter().position(|count| *count == 0).expect("some wait");
    let waiting = u32::try_from(waiting).expect("few");
    assert_eq!(world.maps.value(&large_key(waiting)).flags & SERVICE_HAS_ENDPOINTS, SERVICE_HAS_ENDPOINTS);

    what_is_served_stays(&mut world, &before);
    let maps = world.maps.clone();
    let again = world.restart();
    assert_eq!((again.ops.len(), again.problems.len()), (0, usage.refused), "a restart changes nothing");
    assert!(maps == world.maps);
}

/// One of those that are served changes: the others do not.
fn what_is_served_stays(world: &mut World, before: &[usize]) {
    let number = before.iter().position(|count| *count == ENDPOINTS as usize).expect("some are served");
    let changed = u32::try_from(number).expect("few");
    let plan = world.change(vec![large_slice(changed, 1..ENDPOINTS)]);
    assert!(plan.ops.len() < 10, "{} operations for one endpoint", plan.ops.len());
    let after = served(world);
    let differing: Vec<_> = (0..before.len()).filter(|number| before[*number] != after[*number]).collect();
    assert_eq!(differing, [number]);
}
