//! The packet table: one description of what a packet's way must be, run by this crate on the host and by
//! `BPF_PROG_TEST_RUN` on the loaded programs, which must agree.
//!
//! Only built for tests (feature `cases`).

mod builder;
mod memory;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use fairlead_abi::{DropReason, pod::PodCounters};

pub use builder::PacketBuilder;
pub use memory::{MemorySockets, MemoryTables, address};
pub use table::table;

use crate::{
    Verdict,
    link::{from_pod, from_uplink, to_pod},
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
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What must be.
    pub name: &'static str,
    /// Which program.
    pub hook: Hook,
    /// The maps before.
    pub tables: MemoryTables,
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
}

impl Case {
    /// Runs the datapath on the host.
    pub fn run(&self) -> Outcome {
        let tables = self.tables.clone();
        let mut packet = self.packet.clone();
        let verdict = match self.hook {
            Hook::FromPod => from_pod(&mut packet[..], &tables, TEST_IFINDEX),
            Hook::ToPod => to_pod(&packet[..], &tables, TEST_IFINDEX),
            Hook::FromUplink => from_uplink(&mut packet[..], &tables),
        };
        Outcome { verdict, packet, counters: tables.counters(), drops: tables.drops() }
    }
}

impl Outcome {
    /// The packet goes there unchanged, and nothing is counted.
    pub(crate) fn unseen(verdict: Verdict, packet: &[u8]) -> Self {
        Self { verdict, packet: packet.to_vec(), counters: BTreeMap::new(), drops: BTreeSet::new() }
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
