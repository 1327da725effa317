//! Entries of `BACKENDS`: who has which, and what generation comes next.

use fairlead_abi::service::{
    BACKEND_CLUSTER, BACKEND_HERE, BACKEND_HOST, BACKEND_LOCAL, BACKEND_SERVING, BackendValue,
};
use fairlead_abi::{Addr16, Be16};

use super::slots::Slots;
use crate::{
    Op,
    select::{Serving, Target},
};

/// An entry that an endpoint has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) target: Target,
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) flags: u8,
}

impl Entry {
    /// The entry of an observed value; none when nobody has it.
    pub(super) fn observed(index: u32, value: &BackendValue) -> Option<Self> {
        let live = value.generation != 0 && value.flags != 0;
        let target = Target { address: value.addr.to_ip(), port: value.port.get() };
        live.then_some(Self { target, index, generation: value.generation, flags: value.flags })
    }

    /// Writes the entry with these flags.
    pub(super) fn write(&self, proto: u8, flags: u8) -> Op {
        Op::WriteBackend { index: self.index, value: self.value(proto, flags) }
    }

    /// What the entry holds with these flags.
    pub(super) fn value(&self, proto: u8, flags: u8) -> BackendValue {
        BackendValue {
            addr: Addr16::from(self.target.address),
            port: Be16::new(self.target.port),
            proto,
            flags,
            generation: self.generation,
        }
    }
}

/// `BACKEND_*` of an endpoint that serves.
pub(super) fn flags_of(serving: &Serving) -> u8 {
    let bits = [
        (serving.cluster, BACKEND_CLUSTER),
        (serving.local, BACKEND_LOCAL),
        (serving.here, BACKEND_HERE),
        (serving.host, BACKEND_HOST),
    ];
    bits.iter().filter(|(set, _)| *set).fold(BACKEND_SERVING, |flags, (_, bit)| flags | bit)
}

/// The array. A generation is counted per entry, and an entry that nobody has keeps its last one, so that whoever
/// remembers an endpoint is never taken to the next that gets the entry, not even after a restart.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    indexes: Slots,
    generations: Vec<u32>,
}

impl Backends {
    pub(super) fn new(capacity: u32) -> Self {
        Self { indexes: Slots::new(capacity), generations: Vec::new() }
    }

    /// Learns the generation of an entry that was observed, whoever has it.
    pub(super) fn learn(&mut self, index: u32, generation: u32) {
        *self.generation(index) = generation;
    }

    /// Takes an entry that is in use already.
    pub(super) fn adopt(&mut self, index: u32) -> bool {
        self.indexes.adopt(index, 1)
    }

    /// A free entry for an endpoint.
    pub(super) fn allocate(&mut self, target: Target, flags: u8) -> Option<Entry> {
        let index = self.indexes.allocate(1)?;
        let generation = self.generation(index);
        *generation = generation.checked_add(1).unwrap_or(1);
        Some(Entry { target, index, generation: *generation, flags })
    }

    /// The entry's endpoint is gone; the entry is free after the grace period.
    pub(super) fn retire(&mut self, index: u32, now_ms: u64) {
        self.indexes.quarantine(index, 1, now_ms);
    }

    /// Voids the entries whose grace period is over.
    pub(super) fn release(&mut self, now_ms: u64) -> Vec<Op> {
        let released = self.indexes.release(now_ms);
        let void = released.into_iter().flatten().map(|index| {
            let value = BackendValue { generation: *self.generation(index), ..BackendValue::default() };
            Op::WriteBackend { index, value }
        });
        void.collect()
    }

    pub(super) fn next_release_ms(&self) -> Option<u64> {
        self.indexes.next_release_ms()
    }

    pub(super) fn used(&self) -> u32 {
        self.indexes.used()
    }

    fn generation(&mut self, index: u32) -> &mut u32 {
        let at = index as usize;
        if self.generations.len() <= at {
            self.generations.resize(at + 1, 0);
        }
        &mut self.generations[at]
    }
}
