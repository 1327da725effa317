//! Which pod has which addresses, kept in a file, so that a pod keeps them over a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::PathBuf,
};

use fairlead_abi::names;
use fairlead_kernel::PodSpec;
use fairlead_kubelet::network::PodIdentity;
use fairlead_model::Prefix;
use serde::{Deserialize, Serialize};

use crate::{AgentError, files::replace};

/// How the host sides of pods' veth pairs are called; the slot follows.
pub(crate) const INTERFACE_PREFIX: &str = "flp";

/// Version of the checkpoint's format.
const VERSION: u32 = 1;

/// The first address of a network is the network itself, the second the node's.
const FIRST_INDEX: u32 = 2;

/// A pod's place, as the file holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) slot: u32,
    pub(crate) netns: PathBuf,
}

impl PodRecord {
    pub(crate) fn spec(&self) -> PodSpec {
        PodSpec {
            netns: self.netns.clone(),
            interface: format!("{INTERFACE_PREFIX}{}", self.slot),
            addresses: self.addresses.clone(),
            slot: self.slot,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Checkpoint {
    version: u32,
    /// Where the search for a free address begins, so that one rests before it is given to another pod.
    next_index: u32,
    next_slot: u32,
    /// By UID.
    pods: BTreeMap<String, PodRecord>,
}

/// Gives addresses away and remembers to whom.
#[derive(Debug)]
pub(crate) struct Ipam {
    path: PathBuf,
    netns: PathBuf,
    checkpoint: Checkpoint,
}

impl Ipam {
    /// Reads the checkpoint at `path`, if there is one. Namespaces are called `netns` and the pod's UID.
    pub(crate) fn open(path: PathBuf, netns: PathBuf) -> Result<Self, AgentError> {
        let checkpoint = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| AgentError::Checkpoint { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Checkpoint { version: VERSION, next_index: FIRST_INDEX, next_slot: 1, pods: BTreeMap::new() }
            }
            Err(error) => return Err(AgentError::file("reading", path)(error)),
        };
        if checkpoint.version > VERSION {
            let found = checkpoint.version;
            return Err(AgentError::CheckpointVersion { path, found, known: VERSION });
        }
        Ok(Self { path, netns, checkpoint })
    }

    /// The pod's place; a new one, on disk before this returns, unless it has one.
    pub(crate) fn allocate(
        &mut self,
        pod: &PodIdentity,
        networks: &[Prefix],
    ) -> Result<PodRecord, AgentError> {
        if let Some(record) = self.checkpoint.pods.get(&pod.uid) {
            return Ok(record.clone());
        }
        let pods = self.checkpoint.pods.len();
        let slot = self.free_slot().ok_or(AgentError::PodsExhausted { pods })?;
        let Some((index, addresses)) = self.free_addresses(networks) else {
            let networks: Vec<_> = networks.iter().map(|n| format!("{}/{}", n.address, n.length)).collect();
            let networks = networks.join(", ");
            return Err(AgentError::AddressesExhausted { networks, pods });
        };
        let mut netns = self.netns.clone().into_os_string();
        netns.push(&pod.uid);
        let record = PodRecord {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            addresses,
            slot,
            netns: netns.into(),
        };
        let before = self.checkpoint.clone();
        self.checkpoint.pods.insert(pod.uid.clone(), record.clone());
        self.checkpoint.next_index = index + 1;
        self.checkpoint.next_slot = slot + 1;
        self.save().inspect_err(|_| self.checkpoint = before)?;
        Ok(record)
    }

    /// The pod's place, if it has one.
    pub(crate) fn get(&self, uid: &str) -> Option<&PodRecord> {
        self.checkpoint.pods.get(uid)
    }

    /// Everybody's.
    pub(crate) fn pods(&self) -> &BTreeMap<String, PodRecord> {
        &self.checkpoint.pods
    }

    /// Takes a pod's addresses back.
    pub(crate) fn release(&mut self, uid: &str) -> Result<(), AgentError> {
        match self.checkpoint.pods.remove(uid) {
            Some(_) => self.save(),
            None => Ok(()),
        }
    }

    /// One index into all networks, so that a pod's addresses of both families end alike.
    fn free_addresses(&self, networks: &[Prefix]) -> Option<(u32, Vec<IpAddr>)> {
        let last = networks.iter().map(last_index).min()?;
        let taken: BTreeSet<IpAddr> =
            self.checkpoint.pods.values().flat_map(|record| record.addresses.iter().copied()).collect();
        let indices = round_robin(FIRST_INDEX, last, self.checkpoint.next_index);
        let mut candidates =
            indices.map(|index| (index, networks.iter().map(|n| nth(n, index)).collect::<Vec<_>>()));
        candidates.find(|(_, addresses)| !addresses.iter().any(|address| taken.contains(address)))
    }

    fn free_slot(&self) -> Option<u32> {
        let taken: BTreeSet<u32> = self.checkpoint.pods.values().map(|record| record.slot).collect();
        let last = names::POD_COUNTERS.capacity - 1;
        round_robin(1, last, self.checkpoint.next_slot).find(|slot| !taken.contains(slot))
    }

    fn save(&self) -> Result<(), AgentError> {
        let content = serde_json::to_vec(&self.checkpoint).map_err(io::Error::from);
        let saved = content.and_then(|content| replace(&self.path, &content));
        saved.map_err(AgentError::file("writing", &self.path))
    }
}

/// `first..=last`, beginning at `start`.
fn round_robin(first: u32, last: u32, start: u32) -> impl Iterator<Item = u32> {
    let start = if (first..=last).contains(&start) { start } else { first };
    (start..=last).chain(first..start.min(last.saturating_add(1)))
}

/// The last index that is a pod's: in IPv4 the last address of a network is its broadcast address.
fn last_index(network: &Prefix) -> u32 {
    let bits = if network.address.is_ipv4() { 32 } else { 128 } - u32::from(network.length);
    let size = 1u32.checked_shl(bits.min(16)).unwrap_or(u32::MAX);
    size.saturating_sub(2)
}

fn nth(network: &Prefix, index: u32) -> IpAddr {
    match network.address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + index).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(index)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pod(uid: &str) -> PodIdentity {
        PodIdentity { namespace: "demo".into(), name: format!("pod-{uid}"), uid: uid.into() }
    }

    fn networks(v4_length: u8) -> Vec<Prefix> {
        vec![
            Prefix { address: IpAddr::from([10, 244, 1, 0]), length: v4_length },
            Prefix { address: "fd00:244:0:1::".parse().expect("address"), length: 64 },
        ]
    }

    fn open(directory: &Path) -> Ipam {
        Ipam::open(directory.join("pods.json"), "/run/netns/t-".into()).expect("opens")
    }

    #[test]
    fn a_pod_keeps_its_place_over_a_restart_and_has_both_families() {
        let directory = tempfile::tempdir().expect("directory");
        let first = open(directory.path()).allocate(&pod("a"), &networks(24)).expect("allocates");
        let text: Vec<_> = first.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.244.1.2", "fd00:244:0:1::2"]);
        assert_eq!((first.slot, first.netns.as_path()), (1, Path::new("/run/netns/t-a")));
        let mut again = open(directory.path());
        assert_eq!(again.allocate(&pod("a"), &networks(24)).expect("has one"), first);
        assert_ne!(again.allocate(&pod("b"), &networks(24)).expect("allocates").addresses, first.addresses);
    }

    #[test]
    fn a_released_address_rests_until_the_others_were_used() {
        let directory = tempfile::tempdir().expect("directory");
        let mut ipam = open(directory.path());
        let small = networks(29);
        let a = ipam.allocate(&pod("a"), &small).expect("allocates");
        ipam.release("a").expect("releases");
        let mut seen = BTreeSet::new();
        for uid in ["b", "c", "d", "e"] {
            seen.insert(ipam.allocate(&pod(uid), &small).expect("allocates").addresses[0]);
        }
        assert!(!seen.contains(&a.addresses[0]), "{seen:?}");
        assert_eq!(ipam.allocate(&pod("f"), &small).expect("allocates").addresses, a.addresses);
        let error = ipam.allocate(&pod("g"), &small).expect_err("2..=6 are taken").to_string();
        assert!(error.contains("10.244.1.0/29") && error.contains("5 pods"), "{error}");
    }

    #[test]
    fn a_node_that_is_full_refuses_a_pod_keeps_the_others_and_takes_it_when_one_is_gone() {
        let directory = tempfile::tempdir().expect("directory");
        let mut ipam = open(directory.path());
        let most = names::POD_COUNTERS.capacity as usize - 1;
        let record = |slot: u32| PodRecord {
            namespace: "demo".into(),
            name: format!("pod-{slot}"),
            addresses: networks(16).iter().map(|network| nth(network, slot + FIRST_INDEX)).collect(),
            slot,
            netns: format!("/run/netns/t-{slot}").into(),
        };
        // Each is written to disk as it comes; the last one alone will do here.
        let all = (1..names::POD_COUNTERS.capacity - 1).map(|slot| (slot.to_string(), record(slot)));
        ipam.checkpoint.pods.extend(all);
        ipam.allocate(&pod("last"), &networks(16)).expect("there is room for one");
        let before = ipam.checkpoint.clone();
        assert_eq!(before.pods.len(), most);
        let addresses: usize = before.pods.values().map(|record| record.addresses.len()).sum();
        assert!(addresses <= names::PODS.capacity as usize, "every pod has room for both families");
        let error = ipam.allocate(&pod("more"), &networks(16)).expect_err("there is none").to_string();
        assert!(error.contains(&format!("{most} pods")) && error.contains("eBPF maps"), "{error}");
        assert_eq!(ipam.checkpoint, before, "the others keep what they have");
        ipam.release("7").expect("releases");
        assert_eq!(ipam.allocate(&pod("more"), &networks(16)).expect("there is room again").slot, 7);
    }

    #[test]
    fn a_checkpoint_of_a_newer_version_or_of_something_else_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("pods.json");
        let newer = r#"{"version":9,"next_index":2,"next_slot":1,"pods":{}}"#;
        for (content, complaint) in [(newer, "newer version"), ("pods", "is not a checkpoint")] {
            fs::write(&path, content).expect("writes");
            let error = Ipam::open(path.clone(), "/run/netns/t-".into()).expect_err("refused").to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
