//! What the administration endpoint answers, as values; `fairlead status` and `fairlead top` read them back.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fairlead_abi::{DropReason, names};
use fairlead_flows::Recent;
use fairlead_kernel::{Capacities, Counters, KernelError, PodTotals, Uplink};
use fairlead_model::{ObjectName, Prefix};
use fairlead_plan::ProxyMode;
use fairlead_wire::client::ConnectionState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    garbage,
    health::Health,
    inspect::{self, Dump, Explanation, Kind, Names, Question, Settings},
    network::Network,
};

/// A port that a client might have, for connections that nobody opens.
pub const CLIENT_PORT: u16 = 50_000;

/// State of a node's agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// How services are programmed.
    pub proxy_mode: String,
    /// A complete view of the cluster has been applied.
    pub ready: bool,
    /// `connected`, `connecting`, or why not.
    pub feed: String,
    /// Whether the feed is connected.
    pub connected: bool,
    /// Identifies the life of the feed.
    pub epoch: u64,
    /// What has been applied.
    pub sequence: u64,
    /// Pod networks of the node.
    pub pod_networks: Vec<String>,
    /// How many pods have a place on the network.
    pub pods: usize,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// The programs.
    pub programs: Vec<ProgramReport>,
    /// Drops on the node by reason, all pods together.
    pub drops: BTreeMap<String, u64>,
    /// Interfaces by which clients outside are served.
    pub interfaces: Vec<String>,
    /// Addresses of the node at which node ports are answered.
    pub node_port_addresses: Vec<IpAddr>,
    /// How often an eBPF program, an interface or a kernel parameter that somebody else had removed or changed was put right.
    pub repairs: u64,
    /// What that was last.
    pub last_repair: Option<String>,
    /// Where the uplink's driver program runs: `native`, `generic` or `off`.
    pub xdp: String,
    /// Why there.
    pub xdp_reason: String,
    /// Packets that it has sent on to other machines.
    pub xdp_forwarded_packets: u64,
    /// Event records that were lost because nobody read them in time.
    pub events_lost: u64,
    /// Completed syncs.
    pub syncs: u64,
    /// From the arrival of the last update until it was in the kernel, in microseconds.
    pub last_sync_us: u64,
    /// Failed ones.
    pub sync_failures: u64,
    /// Why the last one failed, if it did.
    pub last_error: Option<String>,
    /// Services that could not be programmed, in sentences.
    pub problems: Vec<String>,
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// One eBPF program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Its name.
    pub name: String,
    /// Its id in the kernel.
    pub id: u32,
    /// Instructions that the verifier walked.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

/// One pod's counters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodReport {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Node.
    pub node: String,
    /// Addresses, primary family first.
    pub addresses: Vec<IpAddr>,
    /// Host side of its veth pair.
    pub interface: String,
    /// Packets delivered to it.
    pub receive_packets: u64,
    /// Bytes delivered to it.
    pub receive_bytes: u64,
    /// Packets it sent.
    pub transmit_packets: u64,
    /// Bytes it sent.
    pub transmit_bytes: u64,
    /// TCP connections it opened.
    pub connections_opened: u64,
    /// TCP connections it accepted.
    pub connections_accepted: u64,
    /// Connections and datagrams refused because their service has no endpoint.
    pub connections_refused: u64,
    /// TCP segments retransmitted.
    pub retransmits: u64,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
}

/// Everything that can be asked of the agent.
pub(crate) struct Reporter {
    pub(crate) node: String,
    pub(crate) mode: ProxyMode,
    pub(crate) health: Arc<Health>,
    pub(crate) bpffs_dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) recent: Arc<Recent>,
    pub(crate) network: Arc<Network>,
    pub(crate) counters: Counters,
    pub(crate) uplink: watch::Receiver<Uplink>,
    pub(crate) malformed: Arc<AtomicU64>,
    pub(crate) garbage: watch::Receiver<garbage::Totals>,
    pub(crate) sockets_ended: Arc<AtomicU64>,
    pub(crate) capacities: Capacities,
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) networks: watch::Receiver<Vec<Prefix>>,
    pub(crate) feed: watch::Receiver<ConnectionState>,
}

impl Reporter {
    /// The agent's state.
    pub(crate) fn status(&self) -> Result<Status, KernelError> {
        let stats = self.health.stats.read();
        let feed = self.feed.borrow().clone();
        let driver = self.uplink.borrow().driver.clone();
        let networks = self.networks.borrow().iter().map(|n| format!("{}/{}", n.address, n.length)).collect();
        let programs = self.network.programs().into_iter().map(|program| ProgramReport {
            name: program.name,
            id: program.id,
            verified_instructions: program.verified_instructions,
            jited_bytes: program.jited_bytes,
        });
        Ok(Status {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            proxy_mode: self.mode.to_string(),
            ready: *self.ready.borrow(),
            connected: feed == ConnectionState::Connected,
            feed: describe(&feed),
            epoch: stats.revision.epoch,
            sequence: stats.revision.sequence,
            pod_networks: networks,
            pods: self.network.records().len(),
            maps: self.maps(),
            programs: programs.collect(),
            drops: self.drops(None)?,
            interfaces: stats.interfaces,
            node_port_addresses: stats.node_port_addresses,
            repairs: stats.upkeep,
            last_repair: stats.last_upkeep,
            xdp: driver.mode.to_string(),
            xdp_reason: driver.reason,
            xdp_forwarded_packets: self.counters.carried()?,
            events_lost: self.events_lost()?,
            syncs: stats.syncs.count,
            last_sync_us: u64::try_from(stats.last_took.as_micros()).unwrap_or(u64::MAX),
            sync_failures: stats.failures,
            last_error: stats.last_error,
            problems: stats.problems,
        })
    }

    /// A map, decoded, with names of services.
    pub(crate) fn inspect(&self, kind: Kind) -> Result<Dump, KernelError> {
        let names = self.health.cluster.read(|inner| Names::of(&inner.view));
        inspect::read(&self.bpffs_dir, kind, &names)
    }

    /// What would happen to a new connection.
    pub(crate) fn explain(&self, question: &Question) -> Result<Explanation, KernelError> {
        let names = self.health.cluster.read(|inner| Names::of(&inner.view));
        inspect::explain(&self.bpffs_dir, self.settings.clone(), question, &names)
    }

    /// An address, or a pod's of the destination's family; with a port such as clients have.
    pub(crate) fn source(&self, text: &str, destination: SocketAddr) -> Option<SocketAddr> {
        let of_pod = || {
            let (namespace, name) = text.split_once('/')?;
            let pod = self
                .health
                .cluster
                .read(|inner| inner.view.pod(&ObjectName::new(namespace, name)).cloned())?;
            pod.addresses.into_iter().find(|address| address.is_ipv4() == destination.is_ipv4())
        };
        let address = text.parse().ok().or_else(of_pod)?;
        Some(SocketAddr::new(address, CLIENT_PORT))
    }

    /// Counters of every pod that has a place on the network, by namespace and name.
    pub(crate) fn pods(&self) -> Result<Vec<PodReport>, KernelError> {
        let mut drops: BTreeMap<u32, BTreeMap<String, u64>> = BTreeMap::new();
        for ((slot, reason), count) in self.counters.drops()? {
            drops.entry(slot).or_default().insert(reason_name(reason), count);
        }
        let mut pods = Vec::new();
        for (uid, record) in self.network.records() {
            let totals: PodTotals = self.counters.pod(record.slot)?;
            pods.push(PodReport {
                interface: record.spec().interface,
                namespace: record.namespace,
                name: record.name,
                uid,
                node: self.node.clone(),
                addresses: record.addresses,
                receive_packets: totals.rx_packets,
                receive_bytes: totals.rx_bytes,
                transmit_packets: totals.tx_packets,
                transmit_bytes: totals.tx_bytes,
                connections_opened: totals.connections_opened,
                connections_accepted: totals.connections_accepted,
                connections_refused: totals.connections_refused,
                retransmits: totals.retransmits,
                drops: drops.remove(&record.slot).unwrap_or_default(),
            });
        }
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(pods)
    }

    /// Drops by the name of their reason, of one slot or of all.
    pub(crate) fn drops(&self, of: Option<u32>) -> Result<BTreeMap<String, u64>, KernelError> {
        let mut drops = BTreeMap::new();
        for ((slot, reason), count) in self.counters.drops()? {
            if of.is_none_or(|of| of == slot) {
                *drops.entry(reason_name(reason)).or_default() += count;
            }
        }
        Ok(drops)
    }

    /// Records that the kernel could not write and those that could not be read.
    pub(crate) fn events_lost(&self) -> Result<u64, KernelError> {
        Ok(self.counters.events_lost()? + self.malformed.load(Ordering::Relaxed))
    }

    /// How full the maps are: those that user space fills, and as of the last look those that it empties.
    pub(crate) fn maps(&self) -> Vec<MapFill> {
        let stats = self.health.stats.read();
        let addresses = self.network.records().values().map(|record| record.addresses.len() as u64).sum();
        let (usage, garbage) = (stats.usage, *self.garbage.borrow());
        let chosen = self.capacities;
        let fills = [
            (names::SERVICES, usage.frontends as u64, chosen.services),
            (names::SLOTS, u64::from(usage.slots), chosen.slots),
            (names::BACKENDS, u64::from(usage.backends), chosen.backends),
            (names::SOURCE_RANGES, usage.source_ranges as u64, names::SOURCE_RANGES.capacity),
            (names::ADDRESSES, usage.addresses as u64, names::ADDRESSES.capacity),
            (names::CONNTRACK, garbage.last.conntrack.entries, chosen.conntrack),
            (names::AFFINITY, garbage.last.affinity.entries, chosen.affinity),
            (names::ORIGINS, garbage.last.lru[0].entries, names::ORIGINS.capacity),
            (names::FRAGMENTS, garbage.last.lru[1].entries, names::FRAGMENTS.capacity),
            (names::ROUTES, stats.routes as u64, chosen.routes),
            (names::PODS, addresses, names::PODS.capacity),
        ];
        let fills = fills.map(|(map, used, capacity)| MapFill {
            name: map.name.to_owned(),
            used,
            capacity: u64::from(capacity),
        });
        fills.to_vec()
    }
}

fn describe(state: &ConnectionState) -> String {
    match state {
        ConnectionState::Connecting => "connecting".to_owned(),
        ConnectionState::Connected => "connected".to_owned(),
        ConnectionState::Broken { attempts, error } => format!("broken after {attempts} attempts: {error}"),
    }
}

fn reason_name(number: u32) -> String {
    DropReason::from_number(number)
        .map_or_else(|| format!("reason-{number}"), |reason| reason.name().to_owned())
}
