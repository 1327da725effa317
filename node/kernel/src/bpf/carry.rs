//! What a change of layout carries over: maps whose layout and capacity stay are pinned among the new ones, too; connections
//! and clients with affinity are copied into a map of another size, and where they name what gets another number, they
//! get that number.
//!
//! Frontends, slots and backends name each other by number. So when one of those three changes, all three begin anew.
//! What else names them begins anew, too, unless it is in [`COPIED`].

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
    renumber::{Numbers, Renumber},
};
use crate::KernelError;

/// Name each other's entries by number.
const NUMBERED: [MapSpec; 3] = [names::SERVICES, names::SLOTS, names::BACKENDS];

/// Name entries of [`NUMBERED`], or count what does.
const NAMING: [MapSpec; 6] =
    [names::SOURCE_RANGES, names::AFFINITY, names::SOCKETS, names::ORIGINS, names::CONNTRACK, names::ADDED];

/// Copies what a map's predecessor has that it lacks, with other numbers if there are any.
type CopyMap = fn(&Pins, MapSpec, Option<&Numbers>) -> Result<(), KernelError>;

/// Maps that get the entries of a predecessor that cannot stay.
const COPIED: [(MapSpec, CopyMap); 2] = [
    (names::CONNTRACK, copy_missing::<ConntrackKey, ConntrackValue>),
    (names::AFFINITY, copy_missing::<AffinityKey, AffinityValue>),
];

/// Entries that go from the old maps to the new ones.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    copied: Vec<(MapSpec, CopyMap)>,
    /// Frontends and backends have other numbers.
    renumbered: bool,
    /// Connections go on, and it is not known of which pods: all count as [`names::TRACKED`].
    track_all: bool,
}

impl Carried {
    /// Pins the maps that stay among the new ones. `chosen` are the capacities that are not the specification's, `version`
    /// is the version of the old maps.
    pub(crate) fn keep(pins: &Pins, chosen: &[(MapSpec, u32)], version: u32) -> Result<Self, KernelError> {
        let wanted = |spec: &MapSpec| {
            let chosen = chosen.iter().find(|(map, _)| map == spec);
            chosen.map_or(spec.capacity, |(_, capacity)| *capacity)
        };
        let known = |spec: &&MapSpec| spec.since <= version && pins.old_map(spec.name).exists();
        let (mut readable, mut same) = (HashSet::new(), HashSet::new());
        for spec in names::MAPS.iter().filter(known) {
            readable.insert(spec.name);
            if open(pins.old_map(spec.name), *spec)?.info().is_ok_and(|i| i.max_entries() == wanted(spec)) {
                same.insert(spec.name);
            }
        }
        let numbers_stay = NUMBERED.iter().all(|spec| same.contains(spec.name));
        let stays = |spec: &MapSpec| {
            let free = !NUMBERED.contains(spec) && !NAMING.contains(spec);
            same.contains(spec.name) && (numbers_stay || free)
        };
        for spec in names::MAPS.iter().filter(|spec| stays(spec)) {
            let (old, new) = (pins.old_map(spec.name), pins.map(spec.name));
            fs::hard_link(&old, &new).map_err(KernelError::file("pinning", new))?;
        }
        let can_be_numbered = numbers_stay || NUMBERED.iter().all(|spec| readable.contains(spec.name));
        let copied = |spec: &MapSpec| can_be_numbered && readable.contains(spec.name) && !stays(spec);
        let connections = stays(&names::CONNTRACK) || copied(&names::CONNTRACK);
        Ok(Self {
            copied: COPIED.into_iter().filter(|(spec, _)| copied(spec)).collect(),
            renumbered: !numbers_stay,
            track_all: connections && !stays(&names::TRACKED),
        })
    }

    /// Copies what the new maps lack. To be done before the programs are replaced, for what is there, and after that, for
    /// what has begun meanwhile.
    pub(crate) fn copy(&self, pins: &Pins) -> Result<(), KernelError> {
        let numbers = (self.renumbered && !self.copied.is_empty()).then(|| Numbers::between(pins));
        let numbers = numbers.transpose()?;
        self.copied.iter().try_for_each(|(spec, copy)| copy(pins, *spec, numbers.as_ref()))?;
        if self.track_all {
            let slots: Vec<u32> = (0..names::TRACKED.capacity).collect();
            write(pins, names::TRACKED, &slots, &vec![1u32; slots.len()])?;
        }
        Ok(())
    }
}

fn copy_missing<K, V>(pins: &Pins, spec: MapSpec, numbers: Option<&Numbers>) -> Result<(), KernelError>
where
    K: FromBytes + IntoBytes + Immutable + Copy + Eq + Hash,
    V: FromBytes + IntoBytes + Immutable + Copy,
    (K, V): Renumber,
{
    let there: HashSet<K> =
        entries::<K, V>(pins.map(spec.name), spec)?.into_iter().map(|(key, _)| key).collect();
    let renumbered = entries::<K, V>(pins.old_map(spec.name), spec)?
        .into_iter()
        .filter_map(|entry| numbers.map_or(Some(entry), |numbers| entry.renumber(numbers)));
    let (keys, values): (Vec<K>, Vec<V>) = renumbered.filter(|(key, _)| !there.contains(key)).unzip();
    write(pins, spec, &keys, &values)
}

fn write<K, V>(pins: &Pins, spec: MapSpec, keys: &[K], values: &[V]) -> Result<(), KernelError>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    let new = open(pins.map(spec.name), spec)?;
    match write_all(new.fd().as_fd(), keys, values) {
        // Of a smaller map's point of view: those that fit go on.
        Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
            tracing::warn!("the new eBPF map {} has no room for all entries of the old one", spec.name);
            Ok(())
        }
        other => other.map_err(KernelError::file("writing eBPF map", spec.name)),
    }
}

/// All entries of a pinned map.
pub(super) fn entries<K, V>(path: PathBuf, spec: MapSpec) -> Result<Vec<(K, V)>, KernelError>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    let map = open(path, spec)?;
    read_all(map.fd().as_fd()).map_err(KernelError::file("reading eBPF map", spec.name))
}

fn open(path: PathBuf, spec: MapSpec) -> Result<MapData, KernelError> {
    MapData::from_pin(path).map_err(KernelError::map(spec.name, "opening"))
}
