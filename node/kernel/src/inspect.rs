//! A node's pinned maps, read as they are. Works beside a running agent and without one, and changes nothing.

use std::{
    collections::HashMap,
    fs,
    hash::Hash,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use aya::maps::MapData;
use fairlead_abi::{
    LAYOUT_VERSION,
    conntrack::{ConntrackKey, ConntrackValue},
    names::{self, MapSpec},
    service::{AffinityKey, AffinityValue, BackendValue, ServiceKey, ServiceValue, SlotValue},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    KernelError,
    bpf::{batch::read_all, count::count_keys, pins::Pins},
};

/// Reads the maps under a pin directory.
#[derive(Clone, Debug)]
pub struct Inspector {
    pins: Pins,
}

/// One map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapSummary {
    /// Its name.
    pub name: &'static str,
    /// Its type as the kernel calls it, in lower case.
    pub kind: String,
    /// Entries it can hold (bytes of a ring buffer).
    pub capacity: u32,
    /// Entries it holds; none where every entry is always there.
    pub used: Option<u32>,
    /// Bytes of kernel memory that it takes now, all CPUs together (`memlock` in `/proc/self/fdinfo`).
    pub memory_bytes: u64,
}

impl Inspector {
    /// Looks at a pin directory, e.g. `/sys/fs/bpf/fairlead/<node>`.
    ///
    /// # Errors
    /// There is none, or what is in it has another layout.
    pub fn open(bpffs_dir: &Path) -> Result<Self, KernelError> {
        let pins = Pins::new(bpffs_dir);
        let layout = pins.layout();
        let found = fs::read_link(&layout).map_err(KernelError::file("reading", layout))?;
        // The version, and what is said about capacities.
        let version = found.to_string_lossy().split('-').next().map(str::to_owned);
        if version != Some(LAYOUT_VERSION.to_string()) {
            let found = found.to_string_lossy().into_owned();
            return Err(KernelError::Layout { path: pins.maps(), found, expected: LAYOUT_VERSION });
        }
        Ok(Self { pins })
    }

    /// Every map, with its size.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn maps(&self) -> Result<Vec<MapSummary>, KernelError> {
        names::MAPS.iter().map(|spec| self.summary(*spec)).collect()
    }

    /// Frontends.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn services(&self) -> Result<HashMap<ServiceKey, ServiceValue>, KernelError> {
        self.entries(names::SERVICES)
    }

    /// Slots by index.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn slots(&self) -> Result<Vec<SlotValue>, KernelError> {
        self.array(names::SLOTS)
    }

    /// Backends by index; an entry that nobody has has no flags.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn backends(&self) -> Result<Vec<BackendValue>, KernelError> {
        self.array(names::BACKENDS)
    }

    /// Connections, both directions of each.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn conntrack(&self) -> Result<HashMap<ConntrackKey, ConntrackValue>, KernelError> {
        self.entries(names::CONNTRACK)
    }

    /// Clients with a session.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn affinity(&self) -> Result<HashMap<AffinityKey, AffinityValue>, KernelError> {
        self.entries(names::AFFINITY)
    }

    fn summary(&self, spec: MapSpec) -> Result<MapSummary, KernelError> {
        let map = self.data(spec)?;
        let info = map.info().map_err(KernelError::map(spec.name, "asking about"))?;
        let kind = info.map_type().map(|kind| format!("{kind:?}")).unwrap_or_default().to_lowercase();
        let fd = map.fd().as_fd();
        let used = if kind.contains("hash") || kind.contains("lpm") {
            let counted = count_keys(fd, info.key_size(), info.max_entries());
            Some(counted.map_err(KernelError::file("counting entries of eBPF map", spec.name))?)
        } else if spec == names::BACKENDS {
            let used = self.backends()?.iter().filter(|value| value.flags != 0).count();
            u32::try_from(used).ok()
        } else {
            None
        };
        let capacity = info.max_entries();
        Ok(MapSummary { name: spec.name, kind, capacity, used, memory_bytes: memory_bytes(fd)? })
    }

    fn entries<K: Plain + Hash + Eq, V: Plain>(&self, spec: MapSpec) -> Result<HashMap<K, V>, KernelError> {
        Ok(self.read(spec)?.into_iter().collect())
    }

    fn array<V: Plain>(&self, spec: MapSpec) -> Result<Vec<V>, KernelError> {
        Ok(self.read::<u32, V>(spec)?.into_iter().map(|(_, value)| value).collect())
    }

    fn read<K: Plain, V: Plain>(&self, spec: MapSpec) -> Result<Vec<(K, V)>, KernelError> {
        let map = self.data(spec)?;
        read_all(map.fd().as_fd()).map_err(KernelError::file("reading eBPF map", spec.name))
    }

    fn data(&self, spec: MapSpec) -> Result<MapData, KernelError> {
        MapData::from_pin(self.pins.map(spec.name)).map_err(KernelError::map(spec.name, "opening"))
    }
}

/// What a map holds: bytes that may be anything.
trait Plain: FromBytes + IntoBytes + Immutable + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Plain for T {}

fn memory_bytes(map: BorrowedFd<'_>) -> Result<u64, KernelError> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = fs::read_to_string(&path).map_err(KernelError::file("reading", &path))?;
    Ok(memlock(&text))
}

/// Kernels that do not account a map say 0.
fn memlock(fdinfo: &str) -> u64 {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert_eq!(memlock("pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t7\n"), 4096);
        assert_eq!(memlock("pos:\t0\n"), 0);
    }

    #[test]
    fn a_directory_without_a_dataplane_is_named() {
        let error = Inspector::open(Path::new("/nonexistent/fairlead")).expect_err("there is none");
        assert!(error.to_string().contains("/nonexistent/fairlead/layout"), "{error}");
    }
}
