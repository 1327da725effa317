//! Handing services over from the programs to rules.

use std::{fs, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie},
};
use fairlead_abi::{
    Addr16,
    names::{self, MapSpec},
    node::{AddressValue, ServiceNetwork},
    pod::{NearPod, PodValue},
    route::RouteValue,
    service::{ServiceKey, ServiceValue},
};

use crate::{
    KernelError,
    bpf::pins::{Pins, absent_is_fine},
    tables::ignore_absent,
};

/// Whether a node has programs and maps there.
pub fn is_pinned(bpffs_dir: &Path) -> bool {
    Pins::new(bpffs_dir).maps().exists()
}

/// Takes services, and the short ways of pods' packets, out of what the programs do. First packets go through the
/// host's stack again, where rules see them. Then what the programs know of services is deleted, addresses first: an
/// address that is known and has no such port is refused. The links of the sockets go last: a socket that is not
/// translated while the services are still there would be by the programs on links, which are about to forget it. A
/// connection that a socket program translated leads to its endpoint itself and goes on.
///
/// # Errors
/// A map cannot be changed or a link not be removed; call again.
pub fn retire_ebpf_services(bpffs_dir: &Path) -> Result<(), KernelError> {
    let pins = Pins::new(bpffs_dir);
    if !pins.maps().exists() {
        return Ok(());
    }
    forget_service_networks(&pins)?;
    clear_near_pods(&pins)?;
    clear::<Addr16, PodValue>(&pins, names::PODS)?;
    clear_routes(&pins)?;
    clear::<Addr16, AddressValue>(&pins, names::ADDRESSES)?;
    clear::<ServiceKey, ServiceValue>(&pins, names::SERVICES)?;
    for program in names::cgroup::ALL {
        let pin = pins.cgroup_link(program);
        absent_is_fine(fs::remove_file(&pin), &pin)?;
    }
    Ok(())
}

fn open(pins: &Pins, spec: MapSpec) -> Result<Option<Map>, KernelError> {
    let pin = pins.map(spec.name);
    if !pin.exists() {
        return Ok(None);
    }
    let data = MapData::from_pin(pin).map_err(KernelError::map(spec.name, "opening"))?;
    Map::from_map_data(data).map(Some).map_err(KernelError::map(spec.name, "opening"))
}

fn clear<K: Pod, V: Pod>(pins: &Pins, spec: MapSpec) -> Result<(), KernelError> {
    let Some(map) = open(pins, spec)? else { return Ok(()) };
    let mut map = HashMap::<MapData, K, V>::try_from(map).map_err(KernelError::map(spec.name, "opening"))?;
    let keys: Result<Vec<K>, _> = map.keys().collect();
    for key in keys.map_err(KernelError::map(spec.name, "reading"))? {
        ignore_absent(map.remove(&key)).map_err(KernelError::map(spec.name, "emptying"))?;
    }
    Ok(())
}

fn clear_near_pods(pins: &Pins) -> Result<(), KernelError> {
    let Some(map) = open(pins, names::NEAR_PODS)? else { return Ok(()) };
    let failed = |operation| KernelError::map(names::NEAR_PODS.name, operation);
    let mut map = Array::<MapData, NearPod>::try_from(map).map_err(failed("opening"))?;
    (0..map.len()).try_for_each(|index| map.set(index, NearPod::default(), 0)).map_err(failed("emptying"))
}

/// What follows takes services away, and an address of theirs is not to be nobody's.
fn forget_service_networks(pins: &Pins) -> Result<(), KernelError> {
    let Some(map) = open(pins, names::SERVICE_NETWORKS)? else { return Ok(()) };
    let failed = |operation| KernelError::map(names::SERVICE_NETWORKS.name, operation);
    let mut map = Array::<MapData, ServiceNetwork>::try_from(map).map_err(failed("opening"))?;
    (0..map.len())
        .try_for_each(|index| map.set(index, ServiceNetwork::default(), 0))
        .map_err(failed("emptying"))
}

fn clear_routes(pins: &Pins) -> Result<(), KernelError> {
    let Some(map) = open(pins, names::ROUTES)? else { return Ok(()) };
    let failed = |operation| KernelError::map(names::ROUTES.name, operation);
    let mut map = LpmTrie::<MapData, [u8; 16], RouteValue>::try_from(map).map_err(failed("opening"))?;
    let keys: Result<Vec<lpm_trie::Key<[u8; 16]>>, _> = map.keys().collect();
    for key in keys.map_err(failed("reading"))? {
        ignore_absent(map.remove(&key)).map_err(failed("emptying"))?;
    }
    Ok(())
}
