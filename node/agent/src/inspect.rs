//! The node's maps, decoded for a person: `fairlead bpf` and `fairlead service`. The agent adds the names that it
//! knows; without an agent the maps are read all the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::Path,
};

use fairlead_abi::{
    Addr16,
    conntrack::{self, ConntrackKey, ConntrackValue},
    service::{self, BackendValue, SCOPE_NODE_PORT, ServiceKey, ServiceValue},
};
pub use fairlead_kernel::explain::{Question, Settings};
use fairlead_kernel::{Inspector, KernelError, clock::monotonic_ns};
use fairlead_model::{ObjectName, Service, View};
use serde::{Deserialize, Serialize};

/// A frontend of a service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frontend {
    /// Namespace, name and name of the port, as far as somebody knows.
    pub service: Option<ServiceRef>,
    /// Address; that of a node port is `0.0.0.0` or `::`.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: String,
    /// `address`, or `node-port`: every address that serves node ports.
    pub scope: String,
    /// What the programs do with it.
    pub flags: Vec<String>,
    /// Identifies the block of backends.
    pub id: u32,
    /// Backends under the policy Cluster, as indexes.
    pub cluster: Vec<u32>,
    /// Backends under the policy Local.
    pub local: Vec<u32>,
    /// Length of the Maglev table; 0 is a choice by chance.
    pub maglev_table: u32,
    /// Session affinity in seconds; 0 is none.
    pub affinity_secs: u32,
    /// How often it was committed.
    pub generation: u32,
}

/// A port of a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ServiceRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name of the port; empty when it has none.
    pub port: String,
}

/// A backend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Index in the map.
    pub index: u32,
    /// Frontends' block that uses it, when one does.
    pub id: Option<u32>,
    /// Of which service, as far as somebody knows.
    pub service: Option<ServiceRef>,
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: String,
    /// What new and old connections may do with it, and where it is.
    pub flags: Vec<String>,
    /// Changes when the entry passes to another endpoint.
    pub generation: u32,
}

/// One direction of a connection that the link programs translate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Protocol.
    pub protocol: String,
    /// What arrives: source and destination.
    pub from: (IpAddr, u16),
    /// Its destination.
    pub to: (IpAddr, u16),
    /// What leaves: source.
    pub becomes_from: (IpAddr, u16),
    /// And destination.
    pub becomes_to: (IpAddr, u16),
    /// State.
    pub flags: Vec<String>,
    /// Node that it is handed to over the overlay.
    pub node: Option<IpAddr>,
    /// Of which block.
    pub id: u32,
    /// Backend's index.
    pub backend: u32,
    /// Seconds since its last packet.
    pub idle_secs: u64,
}

/// A client that stays with a backend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The client's address; none for a client on this node, which is known by its network namespace.
    pub client: Option<IpAddr>,
    /// Cookie of that namespace.
    pub netns: Option<u64>,
    /// Of which block.
    pub id: u32,
    /// Of which service, as far as somebody knows.
    pub service: Option<ServiceRef>,
    /// Backend's index.
    pub backend: u32,
    /// Whether that entry still is the same endpoint.
    pub valid: bool,
    /// Seconds since the client's last new connection.
    pub idle_secs: u64,
}

/// A map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapRow {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Entries it holds; none where every entry is always there.
    pub used: Option<u32>,
    /// Entries it can hold (bytes of a ring buffer).
    pub capacity: u32,
    /// Kernel memory that it takes now.
    pub memory_bytes: u64,
}

/// Everything of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dump {
    /// Frontends.
    Services(Vec<Frontend>),
    /// Backends.
    Backends(Vec<Backend>),
    /// Connections.
    Conntrack(Vec<Connection>),
    /// Connections whose client's address was replaced.
    Nat(Vec<Connection>),
    /// Sessions.
    Affinity(Vec<Session>),
    /// Maps.
    Maps(Vec<MapRow>),
}

/// What can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Frontends.
    Services,
    /// Backends.
    Backends,
    /// Connections.
    Conntrack,
    /// Sessions.
    Affinity,
    /// Connections whose client's address was replaced.
    Nat,
    /// Maps.
    Maps,
}

/// Names of frontends.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<ServiceKey, ServiceRef>);

impl Names {
    /// Those of every service in the view.
    pub fn of(view: &View) -> Self {
        Self(view.services().flat_map(frontends).collect())
    }
}

/// The frontends that a service may have.
fn frontends(service: &Service) -> impl Iterator<Item = (ServiceKey, ServiceRef)> {
    let addresses = [&service.addresses, &service.external_addresses, &service.load_balancer_addresses];
    let addresses: Vec<IpAddr> = addresses.into_iter().flatten().copied().collect();
    let ObjectName { namespace, name } = service.name.clone();
    service.ports.iter().flat_map(move |port| {
        let reference =
            ServiceRef { namespace: namespace.to_string(), name: name.to_string(), port: port.name.clone() };
        let key = |addr, number, scope| ServiceKey {
            addr,
            port: fairlead_abi::Be16::new(number),
            proto: port.protocol.number(),
            scope,
        };
        let mut keys: Vec<ServiceKey> = addresses
            .iter()
            .map(|address| key(Addr16::from(*address), port.port, service::SCOPE_ADDRESS))
            .collect();
        if port.node_port != 0 {
            let any = [Addr16::UNSPECIFIED_V4, Addr16::UNSPECIFIED];
            keys.extend(any.map(|addr| key(addr, port.node_port, SCOPE_NODE_PORT)));
        }
        keys.into_iter().map(move |key| (key, reference.clone()))
    })
}

/// Reads and decodes.
///
/// # Errors
/// There is no dataplane under the pin directory, or a map cannot be read.
pub fn read(bpffs_dir: &Path, kind: Kind, names: &Names) -> Result<Dump, KernelError> {
    let maps = Inspector::open(bpffs_dir)?;
    Ok(match kind {
        Kind::Services => Dump::Services(services(&maps, names)?),
        Kind::Backends => Dump::Backends(backends(&maps, names)?),
        Kind::Conntrack => Dump::Conntrack(connections(&maps, 0)?),
        Kind::Nat => Dump::Nat(connections(&maps, conntrack::CT_MASQUERADED)?),
        Kind::Affinity => Dump::Affinity(sessions(&maps, names)?),
        Kind::Maps => Dump::Maps(map_rows(&maps)?),
    })
}

fn services(maps: &Inspector, names: &Names) -> Result<Vec<Frontend>, KernelError> {
    let slots = maps.slots()?;
    let services = maps.services()?;
    let mut all: Vec<_> = services.iter().map(|(key, value)| frontend(key, value, &slots, names)).collect();
    // Host ports have names of no service; a block's other frontends may know it.
    let known: BTreeMap<u32, ServiceRef> =
        all.iter().filter_map(|one| Some((one.id, one.service.clone()?))).collect();
    for one in &mut all {
        one.service = one.service.take().or_else(|| known.get(&one.id).cloned());
    }
    all.sort_by(|a, b| {
        let order =
            |f: &Frontend| (f.service.clone(), f.scope.clone(), f.address, f.port, f.protocol.clone());
        order(a).cmp(&order(b))
    });
    Ok(all)
}

const SERVICE_FLAGS: &[(u32, &str)] = &[
    (service::SERVICE_INTERNAL_LOCAL, "internal-local"),
    (service::SERVICE_EXTERNAL_LOCAL, "external-local"),
    (service::SERVICE_EXTERNAL, "external"),
    (service::SERVICE_SOURCE_RANGES, "source-ranges"),
    (service::SERVICE_HOST_ALLOWED, "host-allowed"),
    (service::SERVICE_HAS_ENDPOINTS, "has-endpoints"),
    (service::SERVICE_INSIDE_ONLY, "inside-only"),
];

const BACKEND_FLAGS: &[(u32, &str)] = &[
    (service::BACKEND_CLUSTER as u32, "cluster"),
    (service::BACKEND_LOCAL as u32, "local"),
    (service::BACKEND_SERVING as u32, "serving"),
    (service::BACKEND_HERE as u32, "here"),
    (service::BACKEND_HOST as u32, "host"),
];

const CONNECTION_FLAGS: &[(u32, &str)] = &[
    (conntrack::CT_REPLY as u32, "reply"),
    (conntrack::CT_ANSWERED as u32, "answered"),
    (conntrack::CT_CLIENT_FIN as u32, "client-fin"),
    (conntrack::CT_BACKEND_FIN as u32, "backend-fin"),
    (conntrack::CT_RESET as u32, "reset"),
    (conntrack::CT_MASQUERADED as u32, "masqueraded"),
];

fn flags(bits: u32, table: &[(u32, &str)]) -> Vec<String> {
    table.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

fn protocol(number: u8) -> String {
    match number {
        service::TCP => "TCP".to_owned(),
        service::UDP => "UDP".to_owned(),
        service::SCTP => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

/// Slots from `first`, as far as there are any.
fn window(slots: &[u32], first: u32, length: u32) -> Vec<u32> {
    let begin = first as usize;
    slots.get(begin..begin.saturating_add(length as usize)).unwrap_or_default().to_vec()
}

fn frontend(key: &ServiceKey, value: &ServiceValue, slots: &[u32], names: &Names) -> Frontend {
    Frontend {
        service: names.0.get(key).cloned(),
        address: key.addr.to_ip(),
        port: key.port.get(),
        protocol: protocol(key.proto),
        scope: if key.scope == SCOPE_NODE_PORT { "node-port" } else { "address" }.to_owned(),
        flags: flags(value.flags, SERVICE_FLAGS),
        id: value.service_id,
        cluster: window(slots, value.first.saturating_add(value.skip), value.active),
        local: window(slots, value.first, value.local),
        maglev_table: value.table_len,
        affinity_secs: value.affinity_secs,
        generation: value.generation,
    }
}

fn backends(maps: &Inspector, names: &Names) -> Result<Vec<Backend>, KernelError> {
    let mut blocks: HashMap<u32, (u32, Option<ServiceRef>)> = HashMap::new();
    for frontend in services(maps, names)? {
        for index in frontend.cluster.iter().chain(&frontend.local) {
            blocks.insert(*index, (frontend.id, frontend.service.clone()));
        }
    }
    let values = (0..).zip(maps.backends()?).filter(|(_, value)| *value != BackendValue::default());
    let row = |(index, value): (u32, BackendValue)| {
        let (id, service) = blocks.remove(&index).map_or((None, None), |(id, name)| (Some(id), name));
        Backend {
            index,
            id,
            service,
            address: value.addr.to_ip(),
            port: value.port.get(),
            protocol: protocol(value.proto),
            flags: flags(u32::from(value.flags), BACKEND_FLAGS),
            generation: value.generation,
        }
    };
    Ok(values.map(row).collect())
}

/// Those that have all of these bits.
fn connections(maps: &Inspector, with: u16) -> Result<Vec<Connection>, KernelError> {
    let now = monotonic_ns();
    let entries = maps.conntrack()?;
    let wanted = entries.iter().filter(|(_, value)| value.flags & with == with);
    let mut all: Vec<_> = wanted.map(|(key, value)| connection(key, value, now)).collect();
    all.sort_by_key(|one| (one.to, one.from, one.protocol.clone()));
    Ok(all)
}

fn connection(key: &ConntrackKey, value: &ConntrackValue, now: u64) -> Connection {
    Connection {
        protocol: protocol(key.proto),
        from: (key.src.to_ip(), key.src_port.get()),
        to: (key.dst.to_ip(), key.dst_port.get()),
        becomes_from: (value.src.to_ip(), value.src_port.get()),
        becomes_to: (value.dst.to_ip(), value.dst_port.get()),
        flags: flags(u32::from(value.flags), CONNECTION_FLAGS),
        node: (value.node != Addr16::UNSPECIFIED).then(|| value.node.to_ip()),
        id: value.service_id,
        backend: value.backend,
        idle_secs: now.saturating_sub(value.seen_ns) / 1_000_000_000,
    }
}

fn sessions(maps: &Inspector, names: &Names) -> Result<Vec<Session>, KernelError> {
    let now = monotonic_ns();
    let known: BTreeMap<u32, ServiceRef> =
        services(maps, names)?.into_iter().filter_map(|one| Some((one.id, one.service?))).collect();
    let backends = maps.backends()?;
    let row = |(key, value): (fairlead_abi::service::AffinityKey, fairlead_abi::service::AffinityValue)| {
        let netns = key.client.to_cookie();
        let backend = backends.get(value.backend as usize);
        Session {
            client: netns.is_none().then(|| key.client.to_ip()),
            netns,
            id: key.service_id,
            service: known.get(&key.service_id).cloned(),
            backend: value.backend,
            valid: backend.is_some_and(|backend| backend.generation == value.generation),
            idle_secs: now.saturating_sub(value.used_ns) / 1_000_000_000,
        }
    };
    let mut all: Vec<_> = maps.affinity()?.into_iter().map(row).collect();
    all.sort_by_key(|one| (one.id, one.client, one.netns));
    Ok(all)
}

fn map_rows(maps: &Inspector) -> Result<Vec<MapRow>, KernelError> {
    let rows = maps.maps()?.into_iter().map(|map| MapRow {
        name: map.name.to_owned(),
        kind: map.kind,
        used: map.used,
        capacity: map.capacity,
        memory_bytes: map.memory_bytes,
    });
    Ok(rows.collect())
}

/// What would happen to a new connection, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The connection, as it was understood.
    pub connection: String,
    /// Of which service the destination is, as far as somebody knows.
    pub service: Option<ServiceRef>,
    /// Who the source is, and which program decides.
    pub source: String,
    /// The programs' look-ups in order.
    pub steps: Vec<Step>,
    /// What happens.
    pub outcome: String,
    /// The connection is neither refused nor dropped.
    pub works: bool,
}

/// A look-up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What was asked.
    pub question: String,
    /// What the map holds.
    pub answer: String,
}

/// Asks the programs' own code over the live maps.
///
/// # Errors
/// There is no dataplane under the pin directory, or a map cannot be opened.
pub fn explain(
    bpffs_dir: &Path,
    settings: Settings,
    question: &Question,
    names: &Names,
) -> Result<Explanation, KernelError> {
    let answer = fairlead_kernel::explain::explain(bpffs_dir, settings, question)?;
    let step = |(question, answer)| Step { question, answer };
    Ok(Explanation {
        connection: format!(
            "{} → {}/{}",
            question.source.ip(),
            question.destination,
            protocol(question.protocol)
        ),
        service: answer.frontend.and_then(|key| names.0.get(&key).cloned()),
        source: answer.source,
        steps: answer.steps.into_iter().map(step).collect(),
        outcome: answer.outcome,
        works: answer.works,
    })
}

/// Blocks of a service by name: the ids of its ports, one for each address family.
pub fn blocks_of<'a>(frontends: &'a [Frontend], wanted: impl Fn(&ServiceRef) -> bool + 'a) -> BTreeSet<u32> {
    frontends.iter().filter(|one| one.service.as_ref().is_some_and(&wanted)).map(|one| one.id).collect()
}

#[cfg(test)]
mod tests {
    use fairlead_model::{Change, Protocol, Revision, ServicePort, Update};

    use super::*;

    #[test]
    fn every_frontend_of_a_service_has_its_name() {
        let service = Service {
            name: ObjectName::new("demo", "web"),
            addresses: vec!["10.96.0.1".parse().expect("v4"), "fd00:96::1".parse().expect("v6")],
            external_addresses: vec!["192.0.2.1".parse().expect("v4")],
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: 30_080,
            }],
            ..Service::default()
        };
        let mut view = View::default();
        let revision = Revision { epoch: 1, sequence: 1 };
        view.apply(Update { revision, snapshot: true, changes: vec![Change::PutService(service)] });
        let names = Names::of(&view);
        let mut found: Vec<_> =
            names.0.keys().map(|key| (key.addr.to_ip().to_string(), key.port.get(), key.scope)).collect();
        found.sort();
        let row = |address: &str, port, scope| (address.to_owned(), port, scope);
        assert_eq!(
            found,
            [
                row("0.0.0.0", 30_080, 1),
                row("10.96.0.1", 80, 0),
                row("192.0.2.1", 80, 0),
                row("::", 30_080, 1),
                row("fd00:96::1", 80, 0),
            ]
        );
    }

    #[test]
    fn windows_are_cut_from_the_range() {
        let slots = [9, 1, 2, 3, 4];
        let value = ServiceValue { first: 1, local: 2, skip: 1, active: 3, ..ServiceValue::default() };
        let shown = frontend(&ServiceKey::default(), &value, &slots, &Names::default());
        assert_eq!((shown.local, shown.cluster), (vec![1, 2], vec![2, 3, 4]));
        assert_eq!(window(&slots, 4, 5), Vec::<u32>::new(), "a range that is not there is not read");
    }
}
