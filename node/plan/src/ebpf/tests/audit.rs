//! What others do to the maps is noticed and put right.

use super::*;

/// Something that another process might do.
type Deed = fn(&mut Maps);

fn first_backend(maps: &mut Maps) -> &mut BackendValue {
    maps.backends.values_mut().find(|backend| backend.flags != 0).expect("there are some")
}

#[test]
fn what_others_change_is_noticed_and_put_right() {
    let deeds: [(&str, Deed); 10] = [
        ("SERVICES", |maps| {
            maps.services.pop_first();
        }),
        ("SERVICES", |maps| maps.services.clear()),
        ("SERVICES", |maps| maps.services.values_mut().for_each(|(_, value)| value.active = 0)),
        ("SERVICES", |maps| {
            let (mut key, value) = *maps.services.values().next().expect("there are some");
            key.port = Be16::new(1);
            maps.services.insert(sort_key(&key), (key, value));
        }),
        ("SLOTS", |maps| maps.slots.fill(0)),
        ("BACKENDS", |maps| maps.backends.clear()),
        ("BACKENDS", |maps| first_backend(maps).port = Be16::new(1)),
        ("SOURCE_RANGES", |maps| maps.source_ranges.clear()),
        ("ADDRESSES", |maps| {
            maps.addresses.pop_first();
        }),
        ("NODE", |maps| maps.node.mtu = 1),
    ];
    for (number, (map, deed)) in deeds.into_iter().enumerate() {
        let mut world = World::new();
        let restricted = Service {
            load_balancer_addresses: vec![ip("192.0.2.2")],
            source_ranges: vec![prefix("198.51.100.0/24")],
            algorithm: Algorithm::Maglev,
            ..service("echo", &[VIP])
        };
        world.change(vec![Change::PutService(restricted), slice("echo", &[1, 2])]);
        assert_eq!(world.planner.map_that_differs(&world.maps.observe()), None);
        deed(&mut world.maps);
        assert_eq!(world.planner.map_that_differs(&world.maps.observe()), Some(map), "deed {number}");

        world.restart();
        assert_eq!(world.planner.map_that_differs(&world.maps.observe()), None, "deed {number}");
        assert_eq!(world.cluster(&key(VIP)), [1, 2], "deed {number}");
        assert_eq!(world.maps.services.len(), 2, "deed {number}");
    }
}
