use fairlead_abi::{
    Addr16, Be16,
    node::{ADDRESS_LOCAL, ADDRESS_NODE, ADDRESS_NODE_PORT, ADDRESS_SERVICE},
    service::{
        BACKEND_CLUSTER, BACKEND_LOCAL, BACKEND_SERVING, SCOPE_NODE_PORT, SERVICE_EXTERNAL,
        SERVICE_EXTERNAL_LOCAL, SERVICE_HAS_ENDPOINTS, SERVICE_HOST_ALLOWED, SERVICE_INSIDE_ONLY,
        SERVICE_INTERNAL_LOCAL, SERVICE_SOURCE_RANGES,
    },
};
use fairlead_model::{
    Algorithm, Change, Endpoint, EndpointPort, EndpointSlice, HostPort, Node, Pod, Revision, Service,
    ServiceKind, ServicePort, TrafficPolicy, Update,
};

use super::{slots::GRACE_MS, *};

mod audit;
mod bad_input;
mod blocks;
mod histories;
mod large;
mod limits;

/// The maps, and how packets read them.
#[derive(Clone, Default, PartialEq, Debug)]
struct Maps {
    services: BTreeMap<[u32; 6], (ServiceKey, ServiceValue)>,
    slots: Vec<u32>,
    backends: HashMap<u32, BackendValue>,
    source_ranges: BTreeSet<(u32, Prefix)>,
    addresses: BTreeMap<IpAddr, u32>,
    node: NodeValue,
}

fn sort_key(key: &ServiceKey) -> [u32; 6] {
    let [a, b, c, d] = key.addr.0;
    [a, b, c, d, u32::from(key.port.get()), u32::from(key.proto) << 8 | u32::from(key.scope)]
}

impl Maps {
    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::WriteBackend { index, value } => drop(self.backends.insert(index, value)),
            Op::WriteSlots { first, backends } => {
                let (first, end) = (first as usize, first as usize + backends.len());
                self.slots.resize(self.slots.len().max(end), 0);
                self.slots[first..end].copy_from_slice(&backends);
            }
            Op::PutService { key, value } => drop(self.services.insert(sort_key(&key), (key, value))),
            Op::DeleteService { key } => drop(self.services.remove(&sort_key(&key))),
            Op::PutSourceRange { service_id, range } => {
                self.source_ranges.insert((service_id, range));
            }
            Op::DeleteSourceRange { service_id, range } => {
                self.source_ranges.remove(&(service_id, range));
            }
            Op::PutAddress { address, flags } => drop(self.addresses.insert(address, flags)),
            Op::DeleteAddress { address } => drop(self.addresses.remove(&address)),
            Op::EndFlows { .. } => {}
            Op::PutNode { value } => self.node = value,
            other => panic!("not about services: {other:?}"),
        }
    }

    fn value(&self, key: &ServiceKey) -> ServiceValue {
        self.services.get(&sort_key(key)).unwrap_or_else(|| panic!("no frontend {key:?}")).1
    }

    /// Backends of the windows of both policies and of the table.
    fn read(&self, value: &ServiceValue) -> [Vec<BackendValue>; 3] {
        let window = |first: u32, length: u32| {
            let slots = &self.slots[first as usize..(first + length) as usize];
            slots.iter().map(|index| self.backends[index]).collect()
        };
        [
            window(value.first + value.skip, value.active),
            window(value.first, value.local),
            window(value.table, value.table_len),
        ]
    }

    /// What new connections to a frontend may get under each policy, by address and port.
    fn chosen(&self, key: &ServiceKey) -> Option<[BTreeSet<Target>; 2]> {
        let (_, value) = self.services.get(&sort_key(key))?;
        let [cluster, local, _] = self.read(value).map(|window| window.iter().map(target).collect());
        Some([cluster, local])
    }

    fn observe(&self) -> ObservedServices {
        ObservedServices {
            services: self.services.values().copied().collect(),
            slots: self.slots.clone(),
            backends: self.backends.clone(),
            source_ranges: self.source_ranges.clone(),
            addresses: self.addresses.clone(),
            node: self.node,
        }
    }
}

fn target(backend: &BackendValue) -> Target {
    Target { address: backend.addr.to_ip(), port: backend.port.get() }
}

#[derive(Clone)]
struct World {
    view: View,
    local: LocalNode,
    limits: Limits,
    planner: Planner,
    maps: Maps,
    now_ms: u64,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let local = LocalNode {
            addresses: BTreeMap::from([
                (ip("172.29.0.11"), true),
                (ip("fd00:29::b"), true),
                (ip("10.0.0.1"), false),
            ]),
            masquerade: vec![ip("172.29.0.11")],
            mtu: 1500,
        };
        let planner = Planner::adopt("here", limits.clone(), &ObservedServices::default(), 0);
        let (view, maps) = (View::default(), Maps::default());
        let mut world = Self { view, local, limits, planner, maps, now_ms: 0, sequence: 0 };
        world.change(Vec::new());
        world
    }

    fn update(&mut self, changes: Vec<Change>) -> Changes {
        let of = |change: &Change| matches!(change, Change::PutNode(_) | Change::DeleteNode(_));
        let nodes = changes.iter().any(of);
        let pods = changes.iter().filter_map(|change| match change {
            Change::PutPod(pod) => Some(pod.name.clone()),
            Change::DeletePod(name) => Some(name.clone()),
            _ => None,
        });
        let pods = pods.collect();
        self.sequence += 1;
        let revision = Revision { epoch: 1, sequence: self.sequence };
        let services = self.view.apply(Update { revision, snapshot: false, changes });
        Changes { services, pods, nodes }
    }

    /// Plans for what the changes touch and applies the plan.
    fn change(&mut self, changes: Vec<Change>) -> Plan {
        let changes = self.update(changes);
        self.plan(Scope::Changed(&changes))
    }

    fn plan(&mut self, scope: Scope<'_>) -> Plan {
        let plan = self.planner.plan(&self.view, &self.local, scope, self.now_ms);
        plan.ops.iter().for_each(|op| self.maps.apply(op));
        plan
    }

    fn restart(&mut self) -> Plan {
        self.planner = Planner::adopt("here", self.limits.clone(), &self.maps.observe(), self.now_ms);
        self.plan(Scope::All)
    }

    /// Lets the grace period pass.
    fn rest(&mut self) -> Plan {
        self.now_ms += GRACE_MS;
        self.change(Vec::new())
    }

    fn cluster(&self, key: &ServiceKey) -> Vec<u8> {
        octets(&self.maps.chosen(key).unwrap_or_else(|| panic!("no frontend {key:?}"))[0])
    }

    fn local(&self, key: &ServiceKey) -> Vec<u8> {
        octets(&self.maps.chosen(key).unwrap_or_else(|| panic!("no frontend {key:?}"))[1])
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("address/length");
    Prefix { address: ip(address), length: length.parse().expect("length") }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new("demo", text)
}

fn owner(text: &str) -> Owner {
    Owner::Service(name(text))
}

fn port(number: u16) -> ServicePort {
    ServicePort { name: String::new(), protocol: Protocol::Tcp, port: number, node_port: 0 }
}

fn service(service: &str, addresses: &[&str]) -> Service {
    Service {
        name: name(service),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        ports: vec![port(80)],
        ..Service::default()
    }
}

fn endpoint(last: u8, state: char) -> Endpoint {
    Endpoint {
        ready: state == 'r',
        serving: state != 'u',
        terminating: state == 't',
        node: if last.is_multiple_of(2) { "here".into() } else { "there".into() },
        ..Endpoint::ready_at(IpAddr::from([10, 244, 0, last]), "")
    }
}

/// Ready endpoints by last octet; those with an even one are here.
fn slice(service: &str, octets: &[u8]) -> Change {
    slice_of(service, octets.iter().map(|last| endpoint(*last, 'r')).collect())
}

fn slice_of(service: &str, endpoints: Vec<Endpoint>) -> Change {
    let ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .map(|protocol| EndpointPort { name: String::new(), protocol, port: 8080 })
        .to_vec();
    let name = name(service);
    Change::PutSlice(EndpointSlice { name, service: service.into(), ports, endpoints, triggered_unix_ns: 0 })
}

fn node(name: &str, addresses: &[&str]) -> Change {
    Change::PutNode(Node {
        name: name.into(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        ..Node::default()
    })
}

fn key(address: &str) -> ServiceKey {
    ServiceKey { addr: ip(address).into(), port: Be16::new(80), proto: 6, scope: 0 }
}

fn node_port(number: u16) -> ServiceKey {
    let (addr, port) = (Addr16::UNSPECIFIED_V4, Be16::new(number));
    ServiceKey { addr, port, proto: 6, scope: SCOPE_NODE_PORT }
}

fn octets(targets: &BTreeSet<Target>) -> Vec<u8> {
    let last = |target: &Target| match target.address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    targets.iter().map(last).collect()
}

const VIP: &str = "10.96.0.20";
const VIP6: &str = "fd00:96::20";
