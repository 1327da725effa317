//! The ways between pods.

use fairlead_abi::{
    Addr16, DropReason,
    conntrack::{CT_REPLY, CT_STACK_MASQUERADES},
    names::globals::FORWARD_BY_STACK,
    node::ADDRESS_LOCAL,
    pod::PodValue,
    route::RouteValue,
};

use super::{Tables, Verdict, serve::From};
use crate::{
    header::{Network, decrement_hops, set_macs},
    is_unspecified,
    packet::Packet,
};

/// Where a destination is. It is looked at where it was found out and not passed on: what a variant leaves of the others is
/// undefined, the compiler may copy that, and the verifier refuses it.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// A pod of this node.
    Pod(PodValue),
    /// A pod network of another node.
    Node(RouteValue),
    /// This node's pod network, but no pod has the address.
    Nowhere,
    /// Not in the cluster's pod networks.
    Unknown,
}

impl Way {
    #[inline(always)]
    pub(crate) fn of<T: Tables>(tables: &T, dst: &Addr16) -> Self {
        if let Some(pod) = tables.pod(dst) {
            return Self::Pod(pod);
        }
        match tables.route(dst) {
            Some(route) if is_unspecified(&route.next_hop) => Self::Nowhere,
            Some(route) => Self::Node(route),
            None => Self::Unknown,
        }
    }
}

/// Whether services may have a say about the address, and no pod has it.
#[inline(always)]
pub(crate) fn is_beside_pods<T: Tables>(tables: &T, addr: &Addr16) -> bool {
    tables.pod(addr).is_none() && tables.route(addr).is_none() && concerns_services(tables, addr)
}

/// Whether services may have a say about an address that is in none of the cluster's pod networks.
#[inline(always)]
pub(crate) fn concerns_services<T: Tables>(tables: &T, addr: &Addr16) -> bool {
    tables.address(addr) != 0 || tables.is_service_network(addr)
}

/// Sends on a packet on the ways between pods.
#[inline(always)]
pub(crate) fn forward<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    way: Way,
    blamed: u32,
) -> Verdict {
    match way {
        Way::Pod(pod) => {
            let blamed = if blamed == 0 { pod.slot } else { blamed };
            deliver(packet, tables, network, &pod, blamed)
        }
        Way::Node(route) => to_node(packet, tables, network, &route, blamed),
        Way::Nowhere => refuse(tables, blamed, DropReason::UnknownPod),
        Way::Unknown => Verdict::Pass,
    }
}

/// Sends a translated packet to where its new destination is. `flags` are those of its connection.
#[inline(always)]
pub(crate) fn dispatch<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: From,
    flags: u16,
) -> Verdict {
    if tables.forwarding() == FORWARD_BY_STACK {
        // Its answers leave by the uplink as the host's own do.
        tables.track(0);
        let masquerades = flags & (CT_STACK_MASQUERADES | CT_REPLY) == CT_STACK_MASQUERADES;
        return if masquerades { Verdict::PassMasqueraded } else { Verdict::Pass };
    }
    match Way::of(tables, &network.dst) {
        Way::Pod(pod) => {
            tables.track(pod.slot);
            let blamed = if from.slot == 0 { pod.slot } else { from.slot };
            deliver(packet, tables, network, &pod, blamed)
        }
        Way::Unknown => {
            if tables.address(&network.dst) & ADDRESS_LOCAL != 0 {
                tables.track(0);
                return Verdict::Pass;
            }
            if from.is_host() {
                // On its way out of the uplink already.
                return Verdict::Pass;
            }
            if let Some(verdict) = hop(packet, tables, network, from.slot) {
                return verdict;
            }
            Verdict::RedirectRouted
        }
        Way::Node(route) => to_node(packet, tables, network, &route, from.slot),
        Way::Nowhere => refuse(tables, from.slot, DropReason::UnknownPod),
    }
}

#[inline(always)]
fn to_node<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    route: &RouteValue,
    blamed: u32,
) -> Verdict {
    if let Some(verdict) = hop(packet, tables, network, blamed) {
        return verdict;
    }
    let ifindex = if route.ifindex == 0 { tables.uplink() } else { route.ifindex };
    Verdict::RedirectNeigh { ifindex, next_hop: route.next_hop }
}

#[inline(always)]
pub(crate) fn hand_over<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    node: &Addr16,
    blamed: u32,
) -> Verdict {
    match hop(packet, tables, network, blamed) {
        Some(verdict) => verdict,
        None => Verdict::RedirectOverlay { node: *node },
    }
}

/// Takes a hop off, or says why the packet goes no further.
#[inline(always)]
fn hop<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    blamed: u32,
) -> Option<Verdict> {
    if network.hops <= 1 {
        return Some(refuse(tables, blamed, DropReason::TtlExceeded));
    }
    match decrement_hops(packet, network) {
        Some(()) => None,
        None => Some(discard(tables, blamed, DropReason::Malformed)),
    }
}

/// Hands a packet to a pod of this node, as the last router on its way. A drop counts for the pod in `blamed`.
#[inline(always)]
pub(crate) fn deliver<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    pod: &PodValue,
    blamed: u32,
) -> Verdict {
    if let Some(verdict) = hop(packet, tables, network, blamed) {
        return verdict;
    }
    if set_macs(packet, pod.mac, pod.host_mac).is_none() {
        return discard(tables, blamed, DropReason::Malformed);
    }
    tables.count_received(pod.slot, packet.network_len());
    Verdict::RedirectPeer { ifindex: pod.ifindex }
}

#[inline(always)]
pub(crate) fn discard<T: Tables>(tables: &T, slot: u32, reason: DropReason) -> Verdict {
    tables.count_drop(slot, reason);
    Verdict::Drop(reason)
}

#[inline(always)]
pub(crate) fn refuse<T: Tables>(tables: &T, slot: u32, reason: DropReason) -> Verdict {
    tables.count_drop(slot, reason);
    Verdict::Refuse(reason)
}
