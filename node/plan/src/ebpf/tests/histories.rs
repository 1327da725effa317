//! Laws that hold for every history of changes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Endpoints of a service: last octet and state.
    Endpoints(u8, Vec<(u8, char)>),
    Put(u8, Shape),
    Delete(u8),
    Node(bool),
    /// A pod of this node whose host port is also a node port.
    Pod(bool),
    /// Another address of this node.
    Address(bool),
    Wait(u64),
    Restart,
}

/// What kind of service it is.
#[derive(Clone, Debug)]
struct Shape {
    families: &'static [bool],
    node_port: bool,
    udp: bool,
    external: bool,
    balancer: bool,
    /// Which source ranges it has.
    ranges: [bool; 2],
    maglev: bool,
    affinity: bool,
    local: bool,
}

/// Addresses of a service in their order; true is IPv4.
const FAMILIES: [&[bool]; 4] = [&[true], &[true, false], &[false, true], &[false]];

fn endpoints() -> impl Strategy<Value = Vec<(u8, char)>> {
    let state = prop_oneof![Just('r'), Just('r'), Just('t'), Just('u')];
    proptest::collection::btree_map(0u8..8, state, 0..7).prop_map(|map| map.into_iter().collect())
}

fn shape() -> impl Strategy<Value = Shape> {
    let any = any::<([bool; 4], [bool; 2], [bool; 3])>();
    (proptest::sample::select(&FAMILIES[..]), any).prop_map(|(families, (how, ranges, choice))| {
        let ([node_port, udp, external, balancer], [maglev, affinity, local]) = (how, choice);
        Shape { families, node_port, udp, external, balancer, ranges, maglev, affinity, local }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, endpoints()).prop_map(|(s, e)| Step::Endpoints(s, e)),
        2 => (0u8..3, shape()).prop_map(|(s, shape)| Step::Put(s, shape)),
        1 => (0u8..3).prop_map(Step::Delete),
        1 => any::<bool>().prop_map(Step::Node),
        1 => any::<bool>().prop_map(Step::Pod),
        1 => any::<bool>().prop_map(Step::Address),
        2 => (0u64..1_500).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

fn changes_of(step: &Step) -> Vec<Change> {
    let called = |s: &u8| format!("s{s}");
    match step {
        Step::Endpoints(s, endpoints) => {
            let v4 = slice_of(&called(s), endpoints.iter().map(|(last, c)| endpoint(*last, *c)).collect());
            let six = |last: u8| IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(last)]);
            let v6 =
                endpoints.iter().map(|(last, c)| Endpoint { address: six(*last), ..endpoint(*last, *c) });
            let Change::PutSlice(mut v6) = slice_of(&called(s), v6.collect()) else { unreachable!() };
            v6.name = name(&format!("s{s}-6"));
            vec![v4, Change::PutSlice(v6)]
        }
        Step::Put(s, shape) => {
            let protocol = if shape.udp { Protocol::Udp } else { Protocol::Tcp };
            let node_port = if shape.node_port { 30_000 + u16::from(*s) } else { 0 };
            // Two services want one external address, so that they come into each other's way.
            let external = if shape.external { vec![IpAddr::from([192, 0, 2, *s % 2])] } else { Vec::new() };
            let address =
                |v4: &bool| if *v4 { format!("10.96.0.{}", s + 1) } else { format!("fd00:96::{s}") };
            let addresses: Vec<String> = shape.families.iter().map(address).collect();
            let balanced = [IpAddr::from([203, 0, 113, *s]), ip(&format!("2001:db8:1::{s}"))];
            let balanced = balanced.into_iter().filter(|_| shape.balancer);
            let ranges = [["198.51.100.0/24", "2001:db8::/64"], ["172.29.0.0/16", "fd00:29::/64"]];
            let ranges = ranges.iter().zip(shape.ranges).filter(|(_, is)| *is).flat_map(|(ranges, _)| ranges);
            let policy = if shape.local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            vec![Change::PutService(Service {
                ports: vec![ServicePort { protocol, node_port, ..port(80) }],
                external_addresses: external,
                load_balancer_addresses: balanced.collect(),
                source_ranges: ranges.map(|range| prefix(range)).collect(),
                external_policy: policy,
                affinity_secs: if shape.affinity { 600 } else { 0 },
                algorithm: if shape.maglev { Algorithm::Maglev } else { Algorithm::Random },
                ..service(&called(s), &addresses.iter().map(String::as_str).collect::<Vec<_>>())
            })]
        }
        Step::Delete(s) => vec![Change::DeleteService(name(&called(s)))],
        // The address is also an endpoint's.
        Step::Node(true) => vec![node("there", &["10.244.0.3"])],
        Step::Node(false) => vec![Change::DeleteNode("there".into())],
        Step::Pod(true) => vec![Change::PutPod(Pod {
            name: name("web"),
            node: "here".into(),
            addresses: vec![ip("10.244.0.100"), ip("fd00:244::100")],
            host_ports: vec![HostPort {
                address: None,
                protocol: Protocol::Tcp,
                port: 30_001,
                pod_port: 8080,
            }],
            ..Pod::default()
        })],
        Step::Pod(false) => vec![Change::DeletePod(name("web"))],
        Step::Address(_) | Step::Wait(_) | Step::Restart => Vec::new(),
    }
}

/// What happens beside the changes that the feed tells of.
fn happen(world: &mut World, step: &Step) {
    let another = ip("172.29.1.11");
    match step {
        Step::Wait(ms) => world.now_ms += ms,
        Step::Address(true) => drop(world.local.addresses.insert(another, true)),
        Step::Address(false) => drop(world.local.addresses.remove(&another)),
        _ => {}
    }
}

/// A frontend, its flags and affinity, what each policy may choose, the table, and who may use it.
type Meaning = (ServiceKey, [u32; 2], [BTreeSet<Target>; 2], Vec<Target>, BTreeSet<Prefix>);

/// The source ranges of a block.
fn ranges_of(maps: &Maps, id: u32) -> BTreeSet<Prefix> {
    maps.source_ranges.iter().filter(|(of, _)| *of == id).map(|(_, range)| *range).collect()
}

/// What each frontend leads to, without where that is held.
fn meaning(maps: &Maps) -> Vec<Meaning> {
    let read = |(key, value): &(ServiceKey, ServiceValue)| {
        let table = maps.read(value)[2].iter().map(target).collect();
        let (how, chosen) = ([value.flags, value.affinity_secs], maps.chosen(key).unwrap_or_default());
        (*key, how, chosen, table, ranges_of(maps, value.service_id))
    };
    maps.services.values().map(read).collect()
}

/// What a reader may see between two operations, given what it saw before the plan and will see after it.
fn check(now: &Maps, old: &Maps, new: &Maps, plan: &Plan) -> Result<(), TestCaseError> {
    for (key, value) in now.services.values() {
        let (was, will, is) = (old.chosen(key), new.chosen(key), now.chosen(key));
        prop_assert!(is == was || is == will, "{is:?} is neither {was:?} nor {will:?} in {plan:?}");
        for backend in now.read(value).iter().flatten() {
            prop_assert_ne!(backend.flags, 0, "a choice that does not serve in {:?}", plan);
        }
        if value.flags & SERVICE_SOURCE_RANGES != 0 {
            let [was, will, is] = [old, new, now].map(|maps| ranges_of(maps, value.service_id));
            let wanted = is.is_superset(&was) || is.is_superset(&will);
            prop_assert!(wanted && is.iter().all(|range| was.contains(range) || will.contains(range)));
        }
    }
    for (key, _) in old.services.values() {
        let stays = new.services.contains_key(&sort_key(key));
        prop_assert!(!stays || now.services.contains_key(&sort_key(key)), "a gap in {plan:?}");
    }
    for (_, value) in old.services.values() {
        let targets =
            |maps: &Maps| maps.read(value).map(|window| window.iter().map(target).collect::<Vec<_>>());
        prop_assert_eq!(targets(now), targets(old), "a reader was disturbed");
    }
    Ok(())
}

proptest! {
    // A history of thirty steps is played about a thousand times over, once from each of its points.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever prefix of a plan has been applied, every frontend leads to its old backends or to its new ones, and a
    /// value that was read before the plan still leads to what it led to. Whoever dies at that point is succeeded by
    /// one that arrives at the same end, and then finds nothing to do.
    #[test]
    fn at_every_point_of_a_plan_a_frontend_is_old_or_new(steps in proptest::collection::vec(step(), 1..30)) {
        let mut world = World::new();
        for step in steps {
            happen(&mut world, &step);
            let changes = world.update(changes_of(&step));
            let scope = if matches!(step, Step::Restart) {
                // A process takes longer to come back than a reader to finish.
                world.now_ms += GRACE_MS;
                world.planner = Planner::adopt("here", world.limits.clone(), &world.maps.observe(), world.now_ms);
                Scope::All
            } else {
                Scope::Changed(&changes)
            };
            let plan = world.planner.plan(&world.view, &world.local, scope, world.now_ms);
            let contested = plan.problems.iter().any(|problem| matches!(problem, Problem::Taken { .. }));

            let old = world.maps.clone();
            let mut new = old.clone();
            plan.ops.iter().for_each(|op| new.apply(op));
            for op in &plan.ops {
                world.maps.apply(op);
                check(&world.maps, &old, &new, &plan)?;
                let mut successor = world.clone();
                successor.restart();
                if !contested {
                    prop_assert_eq!(meaning(&successor.maps), meaning(&new), "after a crash in {:?}", plan);
                    prop_assert_eq!(&successor.maps.addresses, &new.addresses);
                }
                let again = successor.plan(Scope::All);
                prop_assert_eq!(again.ops, vec![], "a successor's second plan must be empty");
            }
            let again = world.planner.plan(&world.view, &world.local, Scope::All, world.now_ms);
            prop_assert_eq!(again.ops, vec![], "a second plan must be empty");
            if !contested {
                let restarted = world.clone().restart();
                prop_assert_eq!(restarted.ops, vec![], "a restart must find everything done");
            }
        }
    }

    /// No two blocks share an entry, no two ranges a slot, what is in use is what is counted, and an audit finds no fault.
    #[test]
    fn blocks_never_overlap_and_nothing_leaks(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            happen(&mut world, &step);
            world.change(changes_of(&step));
            let mut ranges = BTreeMap::new();
            for (_, value) in world.maps.services.values() {
                let length = value.local.max(value.skip + value.active);
                ranges.insert((value.first, length), value.service_id);
                ranges.insert((value.table, value.table_len), value.service_id);
            }
            let mut seen = BTreeSet::new();
            for slot in ranges.keys().flat_map(|(first, length)| *first..first + length) {
                prop_assert!(seen.insert(slot), "slot {slot} is in two ranges");
            }
            let live = world.maps.backends.values().filter(|backend| backend.flags != 0).count();
            let usage = world.planner.usage();
            prop_assert_eq!((usage.slots as usize, usage.backends as usize), (seen.len(), live));
            prop_assert_eq!(world.planner.map_that_differs(&world.maps.observe()), None);
        }
    }
}
