//! Services as virtual servers of IPVS, with ipsets and a fixed frame of iptables rules around them.
//!
//! As kube-proxy does: every service address is bound to the dummy interface `kube-ipvs0`, so that packets to it are
//! local and meet IPVS; ipsets say what is to be masqueraded, let in or dropped. IPVS has one list of endpoints per
//! address, so a Local policy applies to whoever asks, and where it finds no endpoint here it falls back to all,
//! unless the service has nothing but a cluster address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use fairlead_model::{ObjectName, Protocol, View};

use self::{rules::rules, service::Rendered};
use crate::{
    Scope,
    classic::{Config, Family, Port},
    iptables::{Restore, saved::Saved},
    select::{Place, Target, node_addresses},
};

pub mod rules;
mod service;
pub mod sets;

/// The dummy interface that has the addresses of services.
pub const INTERFACE: &str = "kube-ipvs0";

/// A virtual server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Server {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Protocol and socket, as `TCP 192.0.2.11:30080`.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.as_str(), SocketAddr::new(self.address, self.port))
    }
}

/// The text is no server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoServer;

impl FromStr for Server {
    type Err = NoServer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, socket) = text.split_once(' ').ok_or(NoServer)?;
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = known.into_iter().find(|known| known.as_str() == protocol).ok_or(NoServer)?;
        let socket: SocketAddr = socket.parse().map_err(|_| NoServer)?;
        Ok(Self { address: socket.ip(), port: socket.port(), protocol })
    }
}

/// How a virtual server chooses: round robin, with the client's address remembered for so many seconds; 0 is not.
pub type AffinitySecs = u32;

/// What the kernel has, of one family.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Virtual servers with their affinity and their endpoints' weights.
    pub servers: BTreeMap<Server, (AffinitySecs, BTreeMap<Target, u32>)>,
    /// Addresses of [`INTERFACE`].
    pub bound: BTreeSet<IpAddr>,
    /// Members of ipsets of ours, by the set's name for this family.
    pub sets: BTreeMap<String, BTreeSet<String>>,
    /// iptables.
    pub saved: Saved,
}

/// One change. They are applied in order: those that add after ipsets and before rules, those that take away after both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// Makes a virtual server, or sets its affinity.
    PutServer(Server, AffinitySecs),
    /// Adds an endpoint, or gives it its weight: 0 for one that only keeps its connections.
    PutEndpoint(Server, Target, u32),
    /// Removes an endpoint.
    DeleteEndpoint(Server, Target),
    /// Gives [`INTERFACE`] an address.
    Bind(IpAddr),
    /// Takes it away.
    Unbind(IpAddr),
    /// Removes a virtual server with its endpoints.
    DeleteServer(Server),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutServer(server, _) | Self::DeleteServer(server) => {
                write!(f, "the virtual server {server}")
            }
            Self::PutEndpoint(server, target, _) | Self::DeleteEndpoint(server, target) => {
                let endpoint = SocketAddr::new(target.address, target.port);
                write!(f, "the endpoint {endpoint} of {server}")
            }
            Self::Bind(address) | Self::Unbind(address) => write!(f, "{address} on {INTERFACE}"),
        }
    }
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Input of `ipset restore`; empty when nothing changed.
    pub sets: String,
    /// Input of `iptables-restore`.
    pub restore: Option<Restore>,
    /// Virtual servers and addresses that are added or changed.
    pub additions: Vec<Op>,
    /// Those that go, after everything else.
    pub removals: Vec<Op>,
}

/// Makes plans; knows what the last one wrote.
#[derive(Clone, Debug)]
pub struct Planner {
    config: Config,
    family: Family,
    services: BTreeMap<ObjectName, Rendered>,
    /// What the kernel has by our plans.
    held: Observed,
    /// Servers of a former life, until the first plan.
    made: BTreeSet<Server>,
    fresh: bool,
    /// The rules of the last plan.
    written: String,
    /// Endpoints without weight and since when.
    draining: BTreeMap<(Server, Target), u64>,
}

/// How long an endpoint that left keeps its TCP connections. kube-proxy looks each minute and removes it when it has
/// none, at the latest after 15 minutes.
const DRAIN_MS: u64 = 15 * 60 * 1_000;

impl Planner {
    /// Starts from what the kernel has, and from what a former life said that it [made](Self::made).
    pub fn adopt(config: Config, family: Family, observed: Observed, made: BTreeSet<Server>) -> Self {
        let services = BTreeMap::new();
        Self {
            config,
            family,
            services,
            held: observed,
            made,
            fresh: true,
            written: String::new(),
            draining: BTreeMap::new(),
        }
    }

    /// What makes the kernel hold what the view asks for. Assumes that it will be applied.
    pub fn plan(&mut self, view: &View, scope: Scope<'_>, now_ms: u64) -> Plan {
        if !view.is_complete() {
            return Plan::default();
        }
        let nodes = node_addresses(view);
        let zone = view.node(&self.config.node).map(|node| node.zone.clone()).unwrap_or_default();
        let node = self.config.node.clone();
        let touched = match scope {
            Scope::Changed(changes) if !self.fresh => changes.services.clone(),
            _ => self.all(view),
        };
        for name in touched {
            let ports = Port::all(
                view,
                &name,
                self.family,
                Place { node: &node, zone: &zone, node_addresses: &nodes },
            );
            let rendered = Rendered::new(&ports, &self.config, self.family);
            match rendered.servers.is_empty() {
                true => drop(self.services.remove(&name)),
                false => drop(self.services.insert(name, rendered)),
            }
        }
        let wanted = self.wanted();
        let mut plan = Plan::default();
        self.plan_servers(&wanted, now_ms, &mut plan);
        plan.additions.extend(wanted.bound.difference(&self.held.bound).copied().map(Op::Bind));
        plan.removals.extend(self.held.bound.difference(&wanted.bound).copied().map(Op::Unbind));
        plan.sets = sets::script(self.family, &self.held.sets, &wanted.sets, self.fresh);
        let restore = rules(&self.config, self.family, &wanted, None);
        if self.fresh {
            plan.restore = Some(rules(&self.config, self.family, &wanted, Some(&self.held.saved)));
        } else if restore.text != self.written {
            plan.restore = Some(restore.clone());
        }
        self.written = restore.text;
        self.held.bound = wanted.bound;
        self.held.sets = wanted.sets;
        self.fresh = false;
        plan
    }

    /// The kernel has refused one of [`Plan::additions`]: it is tried again with the next plan, and not missed until then.
    pub fn refused(&mut self, op: &Op) {
        match op {
            Op::PutServer(server, _) => drop(self.held.servers.remove(server)),
            Op::PutEndpoint(server, endpoint, _) => {
                if let Some((_, endpoints)) = self.held.servers.get_mut(server) {
                    endpoints.remove(endpoint);
                }
            }
            Op::Bind(address) => drop(self.held.bound.remove(address)),
            Op::DeleteEndpoint(..) | Op::Unbind(_) | Op::DeleteServer(_) => {}
        }
    }

    /// When endpoints have drained long enough.
    pub fn next_release_ms(&self) -> Option<u64> {
        self.draining.values().min().map(|since| since.saturating_add(DRAIN_MS))
    }

    /// Virtual servers of ours of which nothing in the kernel says so, because the node has their addresses anyway: node
    /// ports, and external addresses that are the node's own.
    pub fn made(&self) -> BTreeSet<Server> {
        if self.fresh {
            return self.made.clone();
        }
        let servers = self.held.servers.keys().copied();
        servers.filter(|server| !self.held.bound.contains(&server.address)).collect()
    }

    /// Whether the kernel has what was planned.
    pub fn is_intact(&self, observed: &Observed) -> bool {
        let servers =
            self.held.servers.iter().all(|(server, held)| observed.servers.get(server) == Some(held));
        let members = self.held.sets.iter().all(|(set, held)| observed.sets.get(set) == Some(held));
        let bound = self.held.bound.is_subset(&observed.bound);
        servers && members && bound && rules::are_intact(&self.written, &observed.saved)
    }

    fn all(&self, view: &View) -> BTreeSet<ObjectName> {
        view.services().map(|service| service.name.clone()).chain(self.services.keys().cloned()).collect()
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for row in sets::ALL {
            wanted.sets.insert(sets::name(row.name, self.family), BTreeSet::new());
        }
        for service in self.services.values() {
            for (server, value) in &service.servers {
                // Of two services with one address the first by name has it.
                wanted.servers.entry(*server).or_insert_with(|| value.clone());
            }
            wanted.bound.extend(&service.bound);
            wanted.blocked.extend(&service.blocked);
            for (set, member) in &service.members {
                wanted.sets.entry(sets::name(set, self.family)).or_default().insert(member.clone());
            }
        }
        let bound = wanted.bound.iter().map(ToString::to_string).collect();
        wanted.sets.insert(sets::name(sets::IPVS_IPS, self.family), bound);
        wanted
    }

    fn plan_servers(&mut self, wanted: &Wanted, now_ms: u64, plan: &mut Plan) {
        for (server, (affinity, endpoints)) in &wanted.servers {
            let held = self.held.servers.entry(*server).or_insert_with(|| (u32::MAX, BTreeMap::new()));
            if held.0 != *affinity {
                plan.additions.push(Op::PutServer(*server, *affinity));
                held.0 = *affinity;
            }
            for endpoint in endpoints {
                self.draining.remove(&(*server, *endpoint));
                if held.1.insert(*endpoint, 1) != Some(1) {
                    plan.additions.push(Op::PutEndpoint(*server, *endpoint, 1));
                }
            }
            held.1.retain(|endpoint, weight| {
                if endpoints.contains(endpoint) {
                    return true;
                }
                let key = (*server, *endpoint);
                let since = *self.draining.entry(key).or_insert(now_ms);
                // Only TCP tells when a connection is over, so only there is it worth waiting.
                if server.protocol != Protocol::Tcp || since.saturating_add(DRAIN_MS) <= now_ms {
                    self.draining.remove(&key);
                    plan.removals.push(Op::DeleteEndpoint(*server, *endpoint));
                    return false;
                }
                if std::mem::replace(weight, 0) != 0 {
                    plan.additions.push(Op::PutEndpoint(*server, *endpoint, 0));
                }
                true
            });
        }
        let (made, bound, fresh) = (&self.made, &self.held.bound, self.fresh);
        self.held.servers.retain(|server, _| {
            if wanted.servers.contains_key(server) {
                return true;
            }
            // What we did not make is not ours to take away, unless only a former life of ours can have made it.
            if !fresh || is_ours(server, bound, made) {
                plan.removals.push(Op::DeleteServer(*server));
            }
            false
        });
        self.draining.retain(|(server, _), _| wanted.servers.contains_key(server));
    }
}

/// Whether a virtual server that was there before is one of this mode: its address is on our interface, or a former life
/// has [made](Planner::made) it.
pub fn is_ours(server: &Server, bound: &BTreeSet<IpAddr>, made: &BTreeSet<Server>) -> bool {
    bound.contains(&server.address) || made.contains(server)
}

/// What the kernel should have.
#[derive(Debug, Default)]
struct Wanted {
    servers: BTreeMap<Server, (AffinitySecs, BTreeSet<Target>)>,
    bound: BTreeSet<IpAddr>,
    sets: BTreeMap<String, BTreeSet<String>>,
    /// Load balancer addresses that the node itself may not use.
    blocked: BTreeSet<Server>,
}

#[cfg(test)]
mod tests;
