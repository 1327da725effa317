//! What a change of capacities carries over: maps whose capacity stays are pinned among the new ones, too, and connections
//! and clients with affinity are copied into a map of another size.
//!
//! Frontends, slots and backends name each other by number, and connections, sockets and clients name backends. So when
//! one of those three gets another capacity, all of these begin anew.

use std::{collections::HashSet, fs, hash::Hash, os::fd::AsFd, path::PathBuf};

use aya::maps::MapData;
use fairlead_abi::{
    conntrack::{ConntrackKey, ConntrackValue},
    names::{self, MapSpec},
    service::{AffinityKey, AffinityValue},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    batch::{read_all, write_all},
    pins::Pins,
};
use crate::KernelError;

/// Name each other's entries by number.
const NUMBERED: [MapSpec; 3] = [names::SERVICES, names::SLOTS, names::BACKENDS];

/// Name entries of [`NUMBERED`].
const NAMING: [MapSpec; 5] =
    [names::SOURCE_RANGES, names::AFFINITY, names::SOCKETS, names::ORIGINS, names::CONNTRACK];

/// Copies what a map's predecessor has that it lacks.
type CopyMap = fn(&Pins, MapSpec) -> Result<(), KernelError>;

/// Maps that get the entries of a predecessor of another capacity.
const COPIED: [(MapSpec, CopyMap); 2] = [
    (names::CONNTRACK, copy_missing::<ConntrackKey, ConntrackValue>),
    (names::AFFINITY, copy_missing::<AffinityKey, AffinityValue>),
];

/// Entries that go from the old maps to the new ones.
#[derive(Debug, Default)]
pub(crate) struct Carried(Vec<(MapSpec, CopyMap)>);

impl Carried {
    /// Pins the maps that stay among the new ones; `chosen` are the capacities that are not the specification's.
    pub(crate) fn keep(pins: &Pins, chosen: &[(MapSpec, u32)]) -> Result<Self, KernelError> {
        let wanted = |spec: &MapSpec| {
            let chosen = chosen.iter().find(|(map, _)| map == spec);
            chosen.map_or(spec.capacity, |(_, capacity)| *capacity)
        };
        let mut same = HashSet::new();
        for spec in names::MAPS.iter().filter(|spec| pins.old_map(spec.name).exists()) {
            if open(pins.old_map(spec.name), *spec)?.info().is_ok_and(|i| i.max_entries() == wanted(spec)) {
                same.insert(spec.name);
            }
        }
        let numbers_stay = NUMBERED.iter().all(|spec| same.contains(spec.name));
        let stays = |spec: &&MapSpec| {
            let free = !NUMBERED.contains(spec) && !NAMING.contains(spec);
            same.contains(spec.name) && (numbers_stay || free)
        };
        for spec in names::MAPS.iter().filter(stays) {
            let (old, new) = (pins.old_map(spec.name), pins.map(spec.name));
            fs::hard_link(&old, &new).map_err(KernelError::file("pinning", new))?;
        }
        let copied = COPIED.into_iter().filter(|(spec, _)| numbers_stay && !same.contains(spec.name));
        Ok(Self(copied.collect()))
    }

    /// Copies what the new maps lack. To be done before the programs are replaced, for what is there, and after that, for
    /// what has begun meanwhile.
    pub(crate) fn copy(&self, pins: &Pins) -> Result<(), KernelError> {
        self.0.iter().try_for_each(|(spec, copy)| copy(pins, *spec))
    }
}

fn copy_missing<K, V>(pins: &Pins, spec: MapSpec) -> Result<(), KernelError>
where
    K: FromBytes + IntoBytes + Immutable + Copy + Eq + Hash,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    let read = |map: &MapData| {
        read_all::<K, V>(map.fd().as_fd()).map_err(KernelError::file("reading eBPF map", spec.name))
    };
    let (old, new) = (open(pins.old_map(spec.name), spec)?, open(pins.map(spec.name), spec)?);
    let there: HashSet<K> = read(&new)?.into_iter().map(|(key, _)| key).collect();
    let (keys, values): (Vec<K>, Vec<V>) =
        read(&old)?.into_iter().filter(|(key, _)| !there.contains(key)).unzip();
    match write_all(new.fd().as_fd(), &keys, &values) {
        // Of a smaller map's point of view: those that fit go on.
        Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
            tracing::warn!("the new eBPF map {} has no room for all entries of the old one", spec.name);
            Ok(())
        }
        other => other.map_err(KernelError::file("writing eBPF map", spec.name)),
    }
}

fn open(path: PathBuf, spec: MapSpec) -> Result<MapData, KernelError> {
    MapData::from_pin(path).map_err(KernelError::map(spec.name, "opening"))
}
