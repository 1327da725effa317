//! What would happen to a new connection: the datapath itself, run over the live maps in user space. Nothing is written;
//! every look-up that it makes is noted together with its answer, so the reasons are the datapath's own.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
};

use aya::maps::{Array, HashMap, IterableMap as _, LpmTrie, Map, MapData, MapError, lpm_trie};
use fairlead_abi::{
    Addr16, Be16, DropReason,
    conntrack::{CT_MASQUERADED, ConntrackKey, ConntrackValue, FragmentKey, FragmentValue},
    names::{self, MapSpec},
    node::{self, AddressValue, NodeValue, ServiceNetwork},
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
    service::{self, AffinityKey, AffinityValue, BackendValue, ServiceKey, ServiceValue},
};
use fairlead_datapath::{
    Client, Connections, Packet, Services, Tables, Verdict,
    conntrack::{Added, Work},
    link::{self, Entry},
    socket::{self, Translation},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    KernelError,
    bpf::{count::count_keys, pins::Pins, programs::open_pinned},
    clock::monotonic_ns,
};

mod packet;
mod settings;

use packet::Bytes;
pub use settings::Settings;

/// A connection that somebody might open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who: an address of a pod, of the node or of somebody outside.
    pub source: SocketAddr,
    /// What for.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

/// What the datapath answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Who the source is, and which program decides.
    pub source: String,
    /// Look-ups in order: what was asked, and the answer.
    pub steps: Vec<(String, String)>,
    /// What happens, in a sentence.
    pub outcome: String,
    /// The connection is not refused and not dropped.
    pub works: bool,
    /// The frontend that it is for.
    pub frontend: Option<ServiceKey>,
}

/// The maps, as the datapath's traits want them.
struct Live {
    services: HashMap<MapData, ServiceKey, ServiceValue>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, BackendValue>,
    addresses: HashMap<MapData, Addr16, AddressValue>,
    affinity: HashMap<MapData, AffinityKey, AffinityValue>,
    source_ranges: LpmTrie<MapData, [u8; 20], u8>,
    node: Array<MapData, NodeValue>,
    /// None in the maps of a version that knew none.
    service_networks: Option<Array<MapData, ServiceNetwork>>,
    pods: HashMap<MapData, Addr16, PodValue>,
    namespaces: HashMap<MapData, u64, InterfaceValue>,
    interfaces: HashMap<MapData, u32, InterfaceValue>,
    routes: LpmTrie<MapData, [u8; 16], RouteValue>,
    conntrack: HashMap<MapData, ConntrackKey, ConntrackValue>,
    settings: Settings,
    steps: RefCell<Vec<(String, String)>>,
    frontend: Cell<Option<ServiceKey>>,
    /// How many more entries the table of connections takes; counted when that matters.
    room: OnceCell<u32>,
    /// How many would be taken.
    taken: Cell<u32>,
    /// The connection that would be remembered.
    added: RefCell<Option<ConntrackValue>>,
}

/// Runs the datapath for a connection that nobody opens.
///
/// # Errors
/// There is no dataplane under the pin directory, or a map cannot be opened.
pub fn explain(bpffs_dir: &Path, settings: Settings, question: &Question) -> Result<Answer, KernelError> {
    let live = Live::open(&Pins::new(bpffs_dir), settings)?;
    let source = Addr16::from(question.source.ip());
    let pod = live.pods.get(&source, 0).ok();
    let local = live.flags(&source) & node::ADDRESS_LOCAL != 0 || question.source.ip().is_loopback();
    Ok(match pod {
        Some(pod) if live.settings.sockets_of_host_only => live.ask_link_of(question, &pod),
        None if !local => live.ask_uplink(question),
        pod => live.ask_socket(question, pod),
    })
}

impl Live {
    fn open(pins: &Pins, settings: Settings) -> Result<Self, KernelError> {
        fn open<T: TryFrom<Map, Error = MapError>>(pins: &Pins, spec: MapSpec) -> Result<T, KernelError> {
            open_pinned(pins, spec)
        }
        Ok(Self {
            services: open(pins, names::SERVICES)?,
            slots: open(pins, names::SLOTS)?,
            backends: open(pins, names::BACKENDS)?,
            addresses: open(pins, names::ADDRESSES)?,
            affinity: open(pins, names::AFFINITY)?,
            source_ranges: open(pins, names::SOURCE_RANGES)?,
            node: open(pins, names::NODE)?,
            service_networks: open(pins, names::SERVICE_NETWORKS).ok(),
            pods: open(pins, names::PODS)?,
            namespaces: open(pins, names::POD_NETNS)?,
            interfaces: open(pins, names::INTERFACES)?,
            routes: open(pins, names::ROUTES)?,
            conntrack: open(pins, names::CONNTRACK)?,
            settings,
            steps: RefCell::default(),
            frontend: Cell::default(),
            room: OnceCell::new(),
            taken: Cell::default(),
            added: RefCell::default(),
        })
    }

    /// A process of this node, in a pod or not: its socket is translated before there is a packet.
    fn ask_socket(&self, question: &Question, pod: Option<PodValue>) -> Answer {
        let source = Addr16::from(question.source.ip());
        let owner = pod.and_then(|pod| self.interfaces.get(&pod.ifindex, 0).ok());
        let netns = owner.and_then(|owner| {
            let mut namespaces = self.namespaces.iter().filter_map(Result::ok);
            namespaces.find(|(_, other)| other.slot == owner.slot).map(|(cookie, _)| cookie)
        });
        let asker = Asker { host: pod.is_none(), address: source, netns: netns.unwrap_or_default() };
        let who = match pod {
            Some(_) => format!("{} is a pod of this node; its socket asks `connect`", question.source.ip()),
            None => format!("{} is this node; the process's socket asks `connect`", question.source.ip()),
        };
        let (addr, port) = (Addr16::from(question.destination.ip()), Be16::new(question.destination.port()));
        let (outcome, works, to) = match socket::connect(self, &asker, &addr, port, question.protocol) {
            Translation::None => {
                let outcome =
                    format!("{} is no service's: the connection goes there as it is", question.destination);
                (outcome, true, question.destination)
            }
            Translation::Refused(refusal) => {
                let how = if refusal.is_told() {
                    "refused at once (ECONNREFUSED)"
                } else {
                    "not permitted (EPERM)"
                };
                (refusal_text(refusal.reason, how), false, question.destination)
            }
            Translation::To { choice, .. } => {
                let to = endpoint(&choice.backend.addr, choice.backend.port);
                (format!("the socket is connected to the backend {to} (index {})", choice.index), true, to)
            }
        };
        let route = match pod {
            Some(pod) if works => format!("; its packets: {}", self.route_from_pod(question, to, &pod)),
            _ => String::new(),
        };
        self.answer(who, outcome + &route, works)
    }

    /// Where the packets of a pod go, once its socket is connected.
    fn route_from_pod(&self, question: &Question, to: SocketAddr, pod: &PodValue) -> String {
        let Some(mut packet) = Bytes::opening(question.source, to, question.protocol) else {
            return "of two address families".to_owned();
        };
        let mut work = Work::EMPTY;
        let noted = self.steps.borrow().len();
        let entry = link::from_pod(&mut packet, self, pod.ifindex, || Some(&mut work));
        let verdict = entry.finish(&mut packet, self, || Some(&mut work));
        self.steps.borrow_mut().truncate(noted);
        verdict_text(&verdict)
    }

    /// A pod whose socket is not translated: its packet decides.
    fn ask_link_of(&self, question: &Question, pod: &PodValue) -> Answer {
        let who = format!(
            "{} is a pod of this node, where sockets of pods are not translated; its packet meets its interface",
            question.source.ip()
        );
        self.ask_packet(who, question, |packet, work| {
            link::from_pod(packet, self, pod.ifindex, || Some(work))
        })
    }

    /// Somebody else: the packet arrives by the uplink.
    fn ask_uplink(&self, question: &Question) -> Answer {
        let place = match self.route(&Addr16::from(question.source.ip())) {
            Some(_) => "a pod of the cluster",
            None => "outside the cluster",
        };
        let who = format!("{} is {place}; its packet arrives by the uplink", question.source.ip());
        self.ask_packet(who, question, |packet, work| link::from_uplink(packet, self, || Some(work)))
    }

    fn ask_packet(
        &self,
        who: String,
        question: &Question,
        meet: impl FnOnce(&mut Bytes, &mut Work) -> Entry,
    ) -> Answer {
        let Some(mut packet) = Bytes::opening(question.source, question.destination, question.protocol)
        else {
            let outcome = "the source and the destination are of two address families".to_owned();
            return self.answer(who, outcome, false);
        };
        let mut work = Work::EMPTY;
        let verdict = meet(&mut packet, &mut work).finish(&mut packet, self, || Some(&mut work));
        let added = self.added.borrow_mut().take();
        let translation = added.filter(|_| passes(&verdict)).map_or_else(String::new, |value| {
            let (from, to) = (endpoint(&value.src, value.src_port), endpoint(&value.dst, value.dst_port));
            let kept = match value.flags & CT_MASQUERADED {
                0 => "the client's address is kept".to_owned(),
                _ => format!("the client's address becomes {from}"),
            };
            format!("it is sent to the backend {to} (index {}), {kept}: ", value.backend)
        });
        self.answer(who, translation + &verdict_text(&verdict), passes(&verdict))
    }

    /// How many entries the table of connections has room for. One that cannot be counted is not full.
    fn room(&self) -> u32 {
        *self.room.get_or_init(|| {
            let capacity = self.conntrack.map().info().map_or(u32::MAX, |info| info.max_entries());
            let size = u32::try_from(size_of::<ConntrackKey>()).unwrap_or(u32::MAX);
            let used = count_keys(self.conntrack.map().fd().as_fd(), size, capacity).unwrap_or(0);
            self.note("table of connections".to_owned(), Some(used), |used| {
                format!("{used} of {capacity} entries, two for each connection")
            });
            capacity - used
        })
    }

    fn answer(&self, source: String, outcome: String, works: bool) -> Answer {
        Answer { source, steps: self.steps.take(), outcome, works, frontend: self.frontend.get() }
    }

    fn note<T>(&self, question: String, value: Option<T>, answer: impl FnOnce(&T) -> String) -> Option<T> {
        let text = value.as_ref().map_or_else(|| "none".to_owned(), answer);
        self.steps.borrow_mut().push((question, text));
        value
    }

    fn flags(&self, addr: &Addr16) -> u32 {
        self.addresses.get(addr, 0).map_or(0, |value| value.flags)
    }
}

/// A process of this node.
struct Asker {
    host: bool,
    address: Addr16,
    netns: u64,
}

impl Client for Asker {
    fn is_inside(&self) -> bool {
        true
    }

    fn is_host(&self) -> bool {
        self.host
    }

    fn is_sent_here(&self) -> bool {
        false
    }

    fn address(&self) -> Addr16 {
        self.address
    }

    fn identity(&self) -> Addr16 {
        Addr16::from_cookie(self.netns)
    }

    fn hash(&self, _with_port: bool) -> Option<u32> {
        None
    }
}

const ADDRESS_NAMES: &[(u32, &str)] = &[
    (node::ADDRESS_LOCAL, "this node's"),
    (node::ADDRESS_NODE_PORT, "serves node ports"),
    (node::ADDRESS_SERVICE, "a service's"),
    (node::ADDRESS_NODE, "another node's"),
];

const SERVICE_NAMES: &[(u32, &str)] = &[
    (service::SERVICE_INTERNAL_LOCAL, "Local"),
    (service::SERVICE_EXTERNAL_LOCAL, "Local for clients outside"),
    (service::SERVICE_EXTERNAL, "external"),
    (service::SERVICE_SOURCE_RANGES, "restricted to source ranges"),
    (service::SERVICE_HOST_ALLOWED, "this node may"),
    (service::SERVICE_HAS_ENDPOINTS, "has endpoints"),
    (service::SERVICE_INSIDE_ONLY, "for clients in the cluster only"),
];

fn names_of(bits: u32, table: &[(u32, &str)]) -> String {
    let set: Vec<_> = table.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "nothing known".to_owned() } else { set.join(", ") }
}

fn describe_service(value: &ServiceValue) -> String {
    let ServiceValue { first, local, skip, active, service_id, .. } = *value;
    let cluster = first.saturating_add(skip);
    format!(
        "block {service_id}; policy Cluster: {active} backends in slots {cluster}.., Local: {local} in {first}..; {}",
        names_of(value.flags, SERVICE_NAMES)
    )
}

fn endpoint(addr: &Addr16, port: Be16) -> SocketAddr {
    SocketAddr::new(addr.to_ip(), port.get())
}

fn refusal_text(reason: DropReason, how: &str) -> String {
    format!("{how}: {} ({})", reason.description(), reason.name())
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "the host's stack takes it".to_owned(),
        Verdict::PassMasqueraded => "the host's stack takes it and masquerades it".to_owned(),
        Verdict::Refuse(reason) | Verdict::Answer(reason) => refusal_text(*reason, "refused at once (ICMP)"),
        Verdict::RedirectPeer { ifindex } => format!("straight into the pod behind interface {ifindex}"),
        Verdict::RedirectNeigh { ifindex, next_hop } => {
            format!("out of interface {ifindex} to {}", next_hop.to_ip())
        }
        Verdict::RedirectRouted => "to where the kernel's routes lead for these addresses".to_owned(),
        Verdict::RedirectOverlay { node } => format!("over the overlay to the node {}", node.to_ip()),
        Verdict::Drop(reason) => refusal_text(*reason, "dropped"),
    }
}

fn passes(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Refuse(_) | Verdict::Answer(_) | Verdict::Drop(_))
}

impl Services for Live {
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue> {
        let what = match key.scope {
            service::SCOPE_NODE_PORT => format!("node port {}", key.port.get()),
            _ => format!("frontend {}", endpoint(&key.addr, key.port)),
        };
        let found = self.note(what, self.services.get(key, 0).ok(), describe_service);
        if found.is_some() {
            self.frontend.set(Some(*key));
        }
        found
    }

    fn slot(&self, slot: u32) -> Option<u32> {
        self.note(format!("slot {slot}"), self.slots.get(&slot, 0).ok(), |index| format!("backend {index}"))
    }

    fn backend(&self, index: u32) -> Option<BackendValue> {
        let value = self.backends.get(&index, 0).ok();
        self.note(format!("backend {index}"), value, |backend| {
            format!("{}, generation {}", endpoint(&backend.addr, backend.port), backend.generation)
        })
    }

    fn address(&self, addr: &Addr16) -> u32 {
        let flags = self.flags(addr);
        self.note(format!("address {}", addr.to_ip()), Some(flags), |flags| names_of(*flags, ADDRESS_NAMES));
        flags
    }

    fn is_service_network(&self, addr: &Addr16) -> bool {
        let networks = self.service_networks.as_ref();
        let network = networks.and_then(|networks| networks.get(&ServiceNetwork::index(addr), 0).ok());
        let within = network.is_some_and(|network| network.covers(addr));
        let what = format!("network of services with {}", addr.to_ip());
        self.note(what, Some(within), |within| if *within { "yes" } else { "no" }.to_owned());
        within
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        let what = format!("session of this client with block {}", key.service_id);
        self.note(what, self.affinity.get(key, 0).ok(), |value| {
            format!("stays with backend {}", value.backend)
        })
    }

    fn keep_affinity(&self, _: &AffinityKey, _: &AffinityValue) {}

    fn is_allowed(&self, service_id: u32, source: &Addr16) -> bool {
        let mut data = [0; 20];
        data[..4].copy_from_slice(service_id.as_bytes());
        data[4..].copy_from_slice(source.as_bytes());
        let found = self.source_ranges.get(&lpm_trie::Key::new(32 + 128, data), 0).ok();
        let what = format!("source range of block {service_id} with {}", source.to_ip());
        self.note(what, found, |_| "one".to_owned()).is_some()
    }

    fn is_node_port(&self, port: u16) -> bool {
        let range = &self.settings.node_ports;
        let within = range.contains(&port);
        let what = format!("port {port} among node ports {} to {}", range.start(), range.end());
        self.note(what, Some(within), |within| if *within { "yes" } else { "no" }.to_owned());
        within
    }

    /// Any number will do; who asks twice may hear of two backends.
    fn random(&self) -> u32 {
        (monotonic_ns() as u32).wrapping_mul(0x9e37_79b1)
    }

    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }
}

impl Connections for Live {
    fn connection(&self, key: &ConntrackKey, value: &mut ConntrackValue) -> bool {
        let what =
            format!("connection {} → {}", endpoint(&key.src, key.src_port), endpoint(&key.dst, key.dst_port));
        let found = self.note(what, self.conntrack.get(key, 0).ok(), |found| {
            format!(
                "becomes {} → {}",
                endpoint(&found.src, found.src_port),
                endpoint(&found.dst, found.dst_port)
            )
        });
        found.map(|found| *value = found).is_some()
    }

    fn add_connection(&self, key: &ConntrackKey, value: &ConntrackValue, replace: bool) -> Added {
        let exists = self.conntrack.get(key, 0).is_ok();
        if exists && !replace {
            return Added::Exists;
        }
        if !exists && self.taken.replace(self.taken.get() + 1) >= self.room() {
            return Added::Full;
        }
        if value.flags & fairlead_abi::conntrack::CT_REPLY == 0 {
            self.added.replace(Some(*value));
        }
        Added::Done
    }

    fn remove_connection(&self, _: &ConntrackKey) {}

    fn mark_connection(&self, _: &ConntrackKey, _: u16, _: u64) {}

    /// The packet that is asked about is whole.
    fn fragment(&self, _: &FragmentKey) -> Option<FragmentValue> {
        None
    }

    fn keep_fragment(&self, _: &FragmentKey, _: &FragmentValue) {}

    fn forwarding(&self) -> u32 {
        self.settings.forwarding
    }

    fn node(&self) -> NodeValue {
        self.node.get(&0, 0).unwrap_or_default()
    }

    fn masquerade_ports(&self) -> (u16, u16) {
        let ports = &self.settings.masquerade_ports;
        (*ports.start(), u16::try_from(ports.len()).unwrap_or(u16::MAX))
    }

    fn node_of(&self, addr: &Addr16) -> Option<Addr16> {
        let route = self.route(addr)?;
        (route.next_hop != Addr16::UNSPECIFIED).then_some(route.next_hop)
    }
}

impl Tables for Live {
    fn pod(&self, addr: &Addr16) -> Option<PodValue> {
        self.pods.get(addr, 0).ok()
    }

    fn carries(&self) -> bool {
        true
    }

    fn near_pod(&self, _: &Addr16) -> Option<&PodValue> {
        // The whole map has it, too.
        None
    }

    fn interface(&self, ifindex: u32) -> Option<InterfaceValue> {
        self.interfaces.get(&ifindex, 0).ok()
    }

    fn route(&self, addr: &Addr16) -> Option<RouteValue> {
        let mut data = [0; 16];
        data.copy_from_slice(addr.as_bytes());
        self.routes.get(&lpm_trie::Key::new(128, data), 0).ok()
    }

    /// Packets that leave by the uplink are said to leave by interface 0.
    fn uplink(&self) -> u32 {
        0
    }

    /// The look at the table of connections is never spared.
    fn is_tracked(&self, _: u32) -> bool {
        true
    }

    fn track(&self, _: u32) {}

    fn may_answer(&self) -> bool {
        true
    }

    fn count_sent(&self, _: u32, _: u32) {}

    fn count_received(&self, _: u32, _: u32) {}

    fn count_drop(&self, _: u32, _: DropReason) {}
}
