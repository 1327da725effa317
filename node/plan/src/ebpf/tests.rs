use std::net::IpAddr;

use fairlead_model::{
    Change, Endpoint, EndpointPort, EndpointSlice, Protocol, Revision, Service, ServiceKind, ServicePort,
    TrafficPolicy, Update,
};
use proptest::prelude::*;

use super::*;

/// The maps, and how packets read them.
#[derive(Clone, Default)]
struct Maps {
    services: HashMap<ServiceKey, ServiceValue>,
    backends: HashMap<u32, BackendValue>,
}

impl Maps {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::WriteBackend { slot, value } => drop(self.backends.insert(*slot, *value)),
            Op::PutService { key, value } => drop(self.services.insert(*key, *value)),
            Op::DeleteService { key } => drop(self.services.remove(key)),
            other => panic!("not about services: {other:?}"),
        }
    }

    /// Addresses behind a value: those for new connections, then the terminating ones.
    fn read(&self, value: &ServiceValue) -> (Vec<BackendValue>, Vec<BackendValue>) {
        let slot = |slot| self.backends.get(&slot).copied().unwrap_or_default();
        let end = value.first + value.active;
        ((value.first..end).map(slot).collect(), (end..end + value.terminating).map(slot).collect())
    }

    fn active(&self, key: &ServiceKey) -> Option<Vec<(IpAddr, u16)>> {
        let (active, _) = self.read(self.services.get(key)?);
        Some(active.iter().map(|b| (b.addr.to_ip(), b.port.get())).collect())
    }

    fn observe(&self) -> ObservedServices {
        let services = self.services.iter().map(|(key, value)| (*key, *value)).collect();
        ObservedServices { services, backends: self.backends.clone() }
    }
}

struct World {
    view: View,
    planner: Planner,
    maps: Maps,
    now_ms: u64,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let planner = Planner::adopt("here", &ObservedServices::default(), 0);
        Self { view: View::default(), planner, maps: Maps::default(), now_ms: 0, sequence: 0 }
    }

    fn update(&mut self, changes: Vec<Change>) -> BTreeSet<ObjectName> {
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        self.view.apply(Update { revision, snapshot: false, changes })
    }

    /// Plans for what the changes touch and applies the plan.
    fn change(&mut self, changes: Vec<Change>) -> Plan {
        let touched = self.update(changes);
        let plan = self.planner.plan(&self.view, Scope::Services(&touched), self.now_ms);
        plan.ops.iter().for_each(|op| self.maps.apply(op));
        plan
    }

    fn restart(&mut self) -> Plan {
        self.planner = Planner::adopt("here", &self.maps.observe(), self.now_ms);
        let plan = self.planner.plan(&self.view, Scope::All, self.now_ms);
        plan.ops.iter().for_each(|op| self.maps.apply(op));
        plan
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn name(text: &str) -> ObjectName {
    ObjectName::new("demo", text)
}

fn service(service: &str, addresses: &[&str]) -> Service {
    Service {
        name: name(service),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
        ..Service::default()
    }
}

fn endpoint(last: u8, state: char) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 244, 0, last]),
        ready: state == 'r',
        serving: state != 'u',
        terminating: state == 't',
        node: if last.is_multiple_of(2) { "here".into() } else { "there".into() },
        zone: String::new(),
        hostname: String::new(),
        pod: String::new(),
        hint_nodes: Vec::new(),
        hint_zones: Vec::new(),
    }
}

/// Ready endpoints by last octet.
fn slice(service: &str, octets: &[u8]) -> Change {
    slice_of(service, octets.iter().map(|last| endpoint(*last, 'r')).collect())
}

fn slice_of(service: &str, endpoints: Vec<Endpoint>) -> Change {
    let ports = vec![EndpointPort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }];
    Change::PutSlice(EndpointSlice {
        name: name(service),
        service: service.into(),
        ports,
        endpoints,
        triggered_unix_ns: 0,
    })
}

fn key(address: &str) -> ServiceKey {
    ServiceKey { addr: ip(address).into(), port: Be16::new(80), proto: 6, scope: 0 }
}

fn octets(active: Option<Vec<(IpAddr, u16)>>) -> Option<Vec<u8>> {
    let last = |(address, _): (IpAddr, u16)| match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    Some(active?.into_iter().map(last).collect())
}

const VIP: &str = "10.96.0.20";
const VIP6: &str = "fd00:96::20";

#[test]
fn local_backends_come_first_and_backends_are_written_before_the_commit() {
    let mut world = World::new();
    let plan = world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 2, 3, 4])]);
    assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![2, 4, 1, 3]));
    assert_eq!(world.maps.services[&key(VIP)].local, 2);
    assert!(matches!(plan.ops.last(), Some(Op::PutService { .. })), "{plan:?}");
    assert_eq!(plan.ops.len(), 5);
}

#[test]
fn a_service_without_endpoints_has_a_frontend_that_leads_nowhere() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP]))]);
    assert_eq!(world.maps.active(&key(VIP)), Some(vec![]));
}

#[test]
fn each_family_has_its_own_frontend_and_backends() {
    let mut world = World::new();
    let mut six = endpoint(1, 'r');
    six.address = ip("fd00:244::7");
    let Change::PutSlice(mut slice6) = slice_of("echo", vec![six]) else { unreachable!() };
    slice6.name = name("echo-v6");
    world.change(vec![
        Change::PutService(service("echo", &[VIP, VIP6])),
        slice("echo", &[1]),
        Change::PutSlice(slice6),
    ]);
    assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![1]));
    assert_eq!(octets(world.maps.active(&key(VIP6))), Some(vec![7]));
    let ids: BTreeSet<u32> = world.maps.services.values().map(|value| value.service_id).collect();
    assert_eq!(ids.len(), 1, "one service, one id");
}

#[test]
fn nothing_new_means_nothing_to_do() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 2])]);
    let plan = world.change(vec![slice("echo", &[2, 1])]);
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_restart_writes_nothing_and_keeps_the_service_id() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("a", &["10.96.0.1"]))]);
    world.change(vec![Change::PutService(service("echo", &[VIP, VIP6])), slice("echo", &[1, 2])]);
    world.change(vec![Change::DeleteService(name("a"))]);
    let before = world.maps.services.clone();
    assert_eq!(world.restart(), Plan::default());
    assert_eq!(world.maps.services, before);
    world.change(vec![Change::PutService(service("b", &["10.96.0.2"]))]);
    assert_ne!(world.maps.services[&key("10.96.0.2")].service_id, world.maps.services[&key(VIP)].service_id);
}

#[test]
fn a_restart_deletes_what_went_while_the_agent_was_away_but_not_before_a_snapshot() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1])]);
    let view = std::mem::take(&mut world.view);
    assert_eq!(world.restart(), Plan::default(), "no snapshot yet");
    world.view = view;
    world.update(vec![Change::DeleteService(name("echo"))]);
    assert_eq!(world.restart().ops, [Op::DeleteService { key: key(VIP) }]);
}

#[test]
fn a_range_with_foreign_content_is_written_anew() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 2])]);
    let first = world.maps.services[&key(VIP)].first;
    world.maps.backends.insert(first, BackendValue::default());
    world.restart();
    assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![2, 1]));
    assert_ne!(world.maps.services[&key(VIP)].first, first);
}

#[test]
fn the_slot_of_an_endpoint_that_left_is_voided_after_the_grace_period() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 3])]);
    let first = world.maps.services[&key(VIP)].first;
    world.change(vec![slice("echo", &[1])]);
    assert_eq!(world.planner.release(slots::GRACE_MS - 1), []);
    let void = Op::WriteBackend { slot: first + 1, value: BackendValue::default() };
    assert_eq!(world.planner.next_release_ms(), Some(slots::GRACE_MS));
    assert_eq!(world.planner.release(slots::GRACE_MS), [void]);
}

#[test]
fn an_endpoint_that_starts_to_drain_at_the_end_of_the_range_moves_no_slot() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1, 3])]);
    let plan = world.change(vec![slice_of("echo", vec![endpoint(1, 'r'), endpoint(3, 't')])]);
    let value = world.maps.services[&key(VIP)];
    assert_eq!(plan.ops, [Op::PutService { key: key(VIP), value }]);
    assert_eq!((value.active, value.terminating), (1, 1));
}

#[test]
fn services_that_are_not_ours_to_serve_have_no_frontend_and_turning_into_one_removes_it() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("echo", &[VIP])), slice("echo", &[1])]);
    let echo = || service("echo", &[VIP]);
    for other in [
        Service { kind: ServiceKind::Headless, ..echo() },
        Service { kind: ServiceKind::ExternalName("example.org".into()), ..echo() },
        Service { foreign_proxy: true, ..echo() },
    ] {
        world.change(vec![Change::PutService(other)]);
        assert_eq!(world.maps.services.len(), 0);
        world.change(vec![Change::PutService(service("echo", &[VIP]))]);
        assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![1]));
    }
}

#[test]
fn an_address_passes_from_a_deleted_service_to_a_new_one_in_one_commit() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("z", &[VIP])), slice("z", &[1])]);
    let plan = world.change(vec![
        Change::DeleteService(name("z")),
        Change::PutService(service("a", &[VIP])),
        slice("a", &[2]),
    ]);
    assert!(!plan.ops.contains(&Op::DeleteService { key: key(VIP) }), "{plan:?}");
    assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![2]));
}

#[test]
fn of_two_services_with_one_address_the_first_keeps_it_until_it_goes() {
    let mut world = World::new();
    world.change(vec![Change::PutService(service("a", &[VIP])), slice("a", &[1])]);
    let plan = world.change(vec![Change::PutService(service("b", &[VIP])), slice("b", &[2])]);
    assert_eq!(plan.problems, [Problem::Taken { service: name("b"), owner: name("a") }]);
    assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![1]));
    world.change(vec![Change::DeleteService(name("a"))]);
    assert_eq!(octets(world.maps.active(&key(VIP))), Some(vec![2]));
}

#[test]
fn a_local_policy_is_a_flag_and_affinity_a_number() {
    let mut world = World::new();
    let local =
        Service { internal_policy: TrafficPolicy::Local, affinity_secs: 10_800, ..service("echo", &[VIP]) };
    world.change(vec![Change::PutService(local), slice("echo", &[1, 2])]);
    let value = world.maps.services[&key(VIP)];
    assert_eq!(
        (value.flags, value.local, value.active, value.affinity_secs),
        (SERVICE_LOCAL_ONLY, 1, 2, 10_800)
    );
}

fn state() -> impl Strategy<Value = Vec<(u8, char)>> {
    let one = (0u8..8, prop_oneof![Just('r'), Just('r'), Just('t'), Just('u')]);
    proptest::collection::btree_map(0u8..8, one.prop_map(|(_, c)| c), 0..7)
        .prop_map(|m| m.into_iter().collect())
}

#[derive(Clone, Debug)]
enum Step {
    Endpoints(u8, Vec<(u8, char)>),
    Put(u8),
    Delete(u8),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, state()).prop_map(|(s, e)| Step::Endpoints(s, e)),
        1 => (0u8..3).prop_map(Step::Put),
        1 => (0u8..3).prop_map(Step::Delete),
        2 => (0u64..1_500).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

fn changes_of(step: &Step) -> Vec<Change> {
    let vip = |s: &u8| format!("10.96.0.{}", s + 1);
    match step {
        Step::Endpoints(s, endpoints) => {
            vec![slice_of(&format!("s{s}"), endpoints.iter().map(|(last, c)| endpoint(*last, *c)).collect())]
        }
        Step::Put(s) => vec![Change::PutService(service(&format!("s{s}"), &[&vip(s)]))],
        Step::Delete(s) => vec![Change::DeleteService(name(&format!("s{s}")))],
        Step::Wait(_) | Step::Restart => Vec::new(),
    }
}

proptest! {
    /// The one law: whatever prefix of a plan has been applied, every frontend leads to its old backends or to its
    /// new ones, and a value that was read before the plan still leads to what it led to.
    #[test]
    fn at_every_point_of_a_plan_a_frontend_is_old_or_new(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for s in 0..3 {
            world.change(changes_of(&Step::Put(s)));
        }
        for step in steps {
            if let Step::Wait(ms) = step {
                world.now_ms += ms;
            }
            let touched = world.update(changes_of(&step));
            let scope = if matches!(step, Step::Restart) {
                // A process takes longer to come back than a reader to finish.
                world.now_ms += slots::GRACE_MS;
                world.planner = Planner::adopt("here", &world.maps.observe(), world.now_ms);
                Scope::All
            } else {
                Scope::Services(&touched)
            };
            let plan = world.planner.plan(&world.view, scope, world.now_ms);
            prop_assert_eq!(&plan.problems, &[]);

            let old = world.maps.clone();
            let mut new = old.clone();
            plan.ops.iter().for_each(|op| new.apply(op));
            for op in &plan.ops {
                world.maps.apply(op);
                for at in 1..=3 {
                    let key = key(&format!("10.96.0.{at}"));
                    let now = world.maps.active(&key);
                    prop_assert!(now == old.active(&key) || now == new.active(&key), "{now:?} in {plan:?}");
                }
                for value in old.services.values() {
                    prop_assert_eq!(world.maps.read(value).0, old.read(value).0, "a reader was disturbed");
                }
            }
            let again = world.planner.plan(&world.view, Scope::All, world.now_ms);
            prop_assert_eq!(again, Plan::default(), "a second plan must be empty");
            let mut restarted = Planner::adopt("here", &world.maps.observe(), world.now_ms);
            prop_assert_eq!(restarted.plan(&world.view, Scope::All, world.now_ms), Plan::default());
        }
    }

    /// No two frontends share a slot, and no live slot has generation 0.
    #[test]
    fn live_ranges_never_overlap(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            if let Step::Wait(ms) = step {
                world.now_ms += ms;
            }
            world.change(changes_of(&step));
            let mut seen = BTreeSet::new();
            for value in world.maps.services.values() {
                for slot in value.first..value.first + value.active + value.terminating {
                    prop_assert!(seen.insert(slot), "slot {slot} belongs to two frontends");
                    prop_assert_ne!(world.maps.backends[&slot].generation, 0);
                }
            }
            prop_assert_eq!(world.planner.usage().backends as usize, seen.len());
        }
    }
}
