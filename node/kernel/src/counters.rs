//! Counters that the programs keep, added up over CPUs.

use std::collections::BTreeMap;

use aya::maps::{MapData, PerCpuArray, PerCpuHashMap};
use fairlead_abi::{
    names,
    pod::{DropKey, PodCounters},
};

use crate::{
    KernelError,
    bpf::{pins::Pins, programs::open_pinned},
};

/// What has been counted for one pod.
pub type PodTotals = PodCounters;

/// Reads the counters.
pub struct Counters {
    pods: PerCpuArray<MapData, PodCounters>,
    drops: PerCpuHashMap<MapData, DropKey, u64>,
    lost: PerCpuArray<MapData, u64>,
    carried: PerCpuArray<MapData, u64>,
}

impl Counters {
    pub(crate) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            pods: open_pinned(pins, names::POD_COUNTERS)?,
            drops: open_pinned(pins, names::DROPS)?,
            lost: open_pinned(pins, names::EVENTS_LOST)?,
            carried: open_pinned(pins, names::CARRIED)?,
        })
    }

    /// Totals of the pod with this slot.
    ///
    /// # Errors
    /// The slot is out of range, or the map cannot be read.
    pub fn pod(&self, slot: u32) -> Result<PodTotals, KernelError> {
        let values =
            self.pods.get(&slot, 0).map_err(KernelError::map(names::POD_COUNTERS.name, "reading"))?;
        Ok(values.iter().fold(PodTotals::default(), add))
    }

    /// Drops by slot and reason.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn drops(&self) -> Result<BTreeMap<(u32, u32), u64>, KernelError> {
        let mut drops = BTreeMap::new();
        for entry in self.drops.iter() {
            let (key, values) = entry.map_err(KernelError::map(names::DROPS.name, "reading"))?;
            drops.insert((key.slot, key.reason), values.iter().sum());
        }
        Ok(drops)
    }

    /// Events that found the ring buffer full.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn events_lost(&self) -> Result<u64, KernelError> {
        let values = self.lost.get(&0, 0).map_err(KernelError::map(names::EVENTS_LOST.name, "reading"))?;
        Ok(values.iter().sum())
    }

    /// Packets that the driver's program has sent on to other machines.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn carried(&self) -> Result<u64, KernelError> {
        let values = self.carried.get(&0, 0).map_err(KernelError::map(names::CARRIED.name, "reading"))?;
        Ok(values.iter().sum())
    }
}

fn add(mut sum: PodTotals, one: &PodCounters) -> PodTotals {
    sum.rx_packets += one.rx_packets;
    sum.rx_bytes += one.rx_bytes;
    sum.tx_packets += one.tx_packets;
    sum.tx_bytes += one.tx_bytes;
    sum.connections_opened += one.connections_opened;
    sum.connections_accepted += one.connections_accepted;
    sum.connections_refused += one.connections_refused;
    sum.retransmits += one.retransmits;
    sum
}
