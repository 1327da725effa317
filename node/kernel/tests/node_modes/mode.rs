//! The proxy modes.

use std::{net::IpAddr, path::Path};

use fairlead_kernel::{Forwarding, KernelError, ServiceOptions, ipvs};
use fairlead_testkit::{Netns, netns::run_in};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::NODE_PORTS;

/// A proxy mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Ebpf,
    /// The same where pods' sockets are left alone and their packets are translated (`--socket-lb-host-only`).
    EbpfLinks,
    /// As that, with the node's address where kube-proxy has it (`--forwarding masquerade`).
    EbpfMasquerade,
    Iptables,
    Nftables,
    /// Where the kernel has it.
    Ipvs,
}

impl Mode {
    /// Modes with rules that this kernel has.
    pub(crate) fn with_rules() -> Vec<Self> {
        let ipvs = ipvs_is_missing().is_none().then_some(Self::Ipvs);
        [Self::Iptables, Self::Nftables].into_iter().chain(ipvs).collect()
    }

    /// All that this kernel has.
    pub(crate) fn all() -> Vec<Self> {
        let programs = [Self::Ebpf, Self::EbpfLinks, Self::EbpfMasquerade];
        programs.into_iter().chain(Self::with_rules()).collect()
    }

    /// Whether its rules are iptables'.
    pub(crate) fn has_iptables(self) -> bool {
        matches!(self, Self::Iptables | Self::Ipvs)
    }

    /// How programs carry services; none in a mode with rules.
    pub(crate) fn programs(self) -> Option<ServiceOptions> {
        let (sockets_of_host_only, forwarding) = match self {
            Self::Ebpf => (false, Forwarding::Encapsulated),
            Self::EbpfLinks => (true, Forwarding::Encapsulated),
            Self::EbpfMasquerade => (true, Forwarding::Masquerade),
            Self::Iptables | Self::Nftables | Self::Ipvs => return None,
        };
        let node_ports = NODE_PORTS;
        Some(ServiceOptions { sockets_of_host_only, forwarding, node_ports, ..ServiceOptions::default() })
    }

    /// Whether endpoints see clients' own addresses, always.
    pub(crate) fn keeps_addresses(self) -> bool {
        self.programs().is_some_and(|how| how.forwarding != Forwarding::Masquerade)
    }
}

/// Set where the kernel must have IPVS: a machine that was made for it.
const NEEDS_IPVS: &str = "FAIRLEAD_NEEDS_IPVS";

/// What the kernel lacks for IPVS, in the words of the mode; none when it has it.
pub(crate) fn ipvs_is_missing() -> Option<String> {
    // Opening it sets parameters, so it is done where they are nobody's.
    let probe = Netns::new("ipvs");
    let runtime = runtime_in(&probe.path());
    let opened = run_in(&probe.path(), || runtime.block_on(async { ipvs::Ipvs::open().map(drop) }));
    let missing = match opened {
        Ok(()) => return None,
        Err(error @ KernelError::MissingFeature { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    };
    assert!(std::env::var_os(NEEDS_IPVS).is_none(), "{NEEDS_IPVS} is set, but {missing}");
    Some(missing)
}

/// A runtime whose threads are in the namespace at `netns`.
pub(crate) fn runtime_in(netns: &Path) -> Runtime {
    run_in(netns, || Builder::new_current_thread().enable_all().build().expect("a runtime"))
}

/// Whether an address belongs to a family.
pub(crate) fn is_of(address: &IpAddr, v4: bool) -> bool {
    address.is_ipv4() == v4
}
