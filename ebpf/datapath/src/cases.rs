//! The packet table: one description of what a packet's way must be, run by this crate on the host and by
//! `BPF_PROG_TEST_RUN` on the loaded programs, which must agree.
//!
//! Only built for tests (feature `cases`).

mod builder;
mod memory;
mod services;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use fairlead_abi::{
    Addr16, DropReason,
    conntrack::{ConntrackKey, ConntrackValue},
    pod::PodCounters,
};

use zerocopy::IntoBytes;

pub use builder::PacketBuilder;
pub use memory::{Memory, address};
pub use table::table;

use crate::{
    Verdict,
    conntrack::Work,
    link::{from_overlay, from_pod, from_uplink, to_pod, to_uplink},
};

/// Index of the loopback interface, on which the kernel lets a test run arrive.
pub const TEST_IFINDEX: u32 = 1;

/// The program that sees a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Ingress of a pod's host-side veth.
    FromPod,
    /// Egress of a pod's host-side veth.
    ToPod,
    /// Ingress of the uplink.
    FromUplink,
    /// Egress of the uplink, from the host itself.
    ToUplink,
    /// The same, from another interface of the host.
    ThroughToUplink,
    /// Ingress of the overlay, from the node with this address.
    FromOverlay(Addr16),
}

impl Hook {
    /// What its program does with a packet.
    pub(crate) fn run(self, packet: &mut Vec<u8>, tables: &Memory, memory: &mut Work) -> Verdict {
        let lent = &mut *memory;
        let work = move || Some(lent);
        let entry = match self {
            Self::FromPod => from_pod(packet, tables, TEST_IFINDEX, work),
            Self::ToPod => to_pod(packet, tables, TEST_IFINDEX, work),
            Self::FromUplink => from_uplink(packet, tables, work),
            Self::ToUplink => to_uplink(packet, tables, false, work),
            Self::ThroughToUplink => to_uplink(packet, tables, true, work),
            Self::FromOverlay(via) => from_overlay(packet, tables, &via, work),
        };
        entry.finish(packet, tables, || Some(memory))
    }
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What must be.
    pub name: &'static str,
    /// Which program.
    pub hook: Hook,
    /// The maps before.
    pub tables: Memory,
    /// The packet before.
    pub packet: Vec<u8>,
    /// What must come of it.
    pub expected: Outcome,
    /// The kernel's test run takes no packet that is cut within its network header, though a link may carry one.
    pub host_only: bool,
}

/// What a packet leaves behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Where it goes.
    pub verdict: Verdict,
    /// Its bytes.
    pub packet: Vec<u8>,
    /// Counters by pod slot, of those that are not all zero.
    pub counters: BTreeMap<u32, PodCounters>,
    /// Drops: pod slot and reason.
    pub drops: BTreeSet<(u32, u32)>,
    /// Connections that are known then, in no order and without their times.
    pub connections: Vec<(ConntrackKey, ConntrackValue)>,
}

impl Case {
    /// Runs the datapath on the host.
    pub fn run(&self) -> Outcome {
        self.run_and_keep().0
    }

    /// The same; also the maps afterwards, which the next packet of a conversation meets.
    pub fn run_and_keep(&self) -> (Outcome, Memory) {
        let tables = self.tables.clone();
        let mut packet = self.packet.clone();
        let mut memory = Work::EMPTY;
        let verdict = self.hook.run(&mut packet, &tables, &mut memory);
        let outcome = Outcome {
            verdict,
            packet,
            counters: tables.counters(),
            drops: tables.drops(),
            connections: sorted(tables.connections.borrow().iter().map(|(key, value)| (*key, *value))),
        };
        (outcome, tables)
    }
}

/// Connections without their times, in an order that only the keys decide.
pub fn sorted(
    connections: impl Iterator<Item = (ConntrackKey, ConntrackValue)>,
) -> Vec<(ConntrackKey, ConntrackValue)> {
    let timeless = |(key, value)| (key, ConntrackValue { seen_ns: 0, ..value });
    let mut connections: Vec<_> = connections.map(timeless).collect();
    connections.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    connections
}

impl Outcome {
    /// The packet goes there unchanged, and nothing is counted.
    pub(crate) fn unseen(verdict: Verdict, packet: &[u8]) -> Self {
        Self {
            verdict,
            packet: packet.to_vec(),
            counters: BTreeMap::new(),
            drops: BTreeSet::new(),
            connections: Vec::new(),
        }
    }

    /// The pod in `slot` has sent it.
    pub(crate) fn sent(mut self, slot: u32) -> Self {
        let bytes = self.packet.len() as u64 - 14;
        let counters = self.counters.entry(slot).or_default();
        (counters.tx_packets, counters.tx_bytes) = (1, bytes);
        self
    }

    /// The pod in `slot` has received it.
    pub(crate) fn received(mut self, slot: u32) -> Self {
        let bytes = self.packet.len() as u64 - 14;
        let counters = self.counters.entry(slot).or_default();
        (counters.rx_packets, counters.rx_bytes) = (1, bytes);
        self
    }

    /// It is counted as a drop of the pod in `slot`.
    pub(crate) fn dropped(mut self, slot: u32, reason: DropReason) -> Self {
        self.drops.insert((slot, reason as u32));
        self
    }
}
