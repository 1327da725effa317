//! Pod routing: what the TCX programs do with a packet.

use fairlead_abi::{
    Addr16, DropReason,
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
};

use crate::{
    header::{Family, Network, Parsed, decrement_hops, is_link_local, is_multicast, parse, set_macs},
    is_unspecified,
    packet::Packet,
    same,
};

/// The maps and counters that a packet's way depends on.
pub trait Tables {
    /// The pod of this node that has the address.
    fn pod(&self, addr: &Addr16) -> Option<PodValue>;
    /// The pod behind a host-side interface.
    fn interface(&self, ifindex: u32) -> Option<InterfaceValue>;
    /// The route of the longest prefix that covers the address.
    fn route(&self, addr: &Addr16) -> Option<RouteValue>;
    /// Interface that leads to other nodes.
    fn uplink(&self) -> u32;
    /// A packet of `bytes` was sent by the pod in `slot`.
    fn count_sent(&self, slot: u32, bytes: u32);
    /// A packet of `bytes` was delivered to the pod in `slot`.
    fn count_received(&self, slot: u32, bytes: u32);
    /// A packet of the pod in `slot` (0: of none) was not let through.
    fn count_drop(&self, slot: u32, reason: DropReason);
}

/// What happens to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The host's stack takes it.
    Pass,
    /// The host's stack takes it in order to answer with an ICMP error; the reason is counted.
    Refuse(DropReason),
    /// Into the network namespace at the other end of a veth, without another pass through the host.
    RedirectPeer {
        /// Host-side interface.
        ifindex: u32,
    },
    /// Out of an interface to a neighbour, whose link-layer address the kernel fills in.
    RedirectNeigh {
        /// Interface to leave by.
        ifindex: u32,
        /// The neighbour.
        next_hop: Addr16,
    },
    /// It ends here; the reason is counted.
    Drop(DropReason),
}

/// What a pod sends: ingress of its host-side veth `ifindex`.
///
/// A pod may use its own addresses as a source and no other. ARP goes to the stack, and so does IPv6 on the link
/// (neighbour discovery, router solicitation, multicast listener reports), whose source is link-local or unspecified.
/// An interface without an entry belongs to nobody, so no IP packet may come from it.
#[inline(always)]
pub fn from_pod<P: Packet + ?Sized, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp => return Verdict::Pass,
        Parsed::Malformed => {
            let slot = tables.interface(ifindex).map_or(0, |owner| owner.slot);
            return discard(tables, slot, DropReason::Malformed);
        }
    };
    let Some(owner) = tables.interface(ifindex) else {
        return discard(tables, 0, DropReason::SourceNotOwned);
    };
    if !owns_source(&owner, &network) {
        if stays_on_link(&network) {
            return Verdict::Pass;
        }
        return discard(tables, owner.slot, DropReason::SourceNotOwned);
    }
    tables.count_sent(owner.slot, packet.network_len());
    if let Some(pod) = tables.pod(&network.dst) {
        return deliver(packet, tables, &network, &pod, owner.slot);
    }
    let Some(route) = tables.route(&network.dst) else { return Verdict::Pass };
    if is_unspecified(&route.next_hop) {
        return refuse(tables, owner.slot, DropReason::UnknownPod);
    }
    if network.hops <= 1 {
        return refuse(tables, owner.slot, DropReason::TtlExceeded);
    }
    if decrement_hops(packet, &network).is_none() {
        return discard(tables, owner.slot, DropReason::Malformed);
    }
    let ifindex = if route.ifindex == 0 { tables.uplink() } else { route.ifindex };
    Verdict::RedirectNeigh { ifindex, next_hop: route.next_hop }
}

/// What the host's own stack sends to a pod: egress of the pod's host-side veth. It is counted, but for the link's own
/// IPv6 housekeeping, which is not counted the other way either. Redirected packets do not come by here.
#[inline(always)]
pub fn to_pod<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T, ifindex: u32) -> Verdict {
    if let Parsed::Ip(network) = parse(packet)
        && !stays_on_link(&network)
        && let Some(owner) = tables.interface(ifindex)
    {
        tables.count_received(owner.slot, packet.network_len());
    }
    Verdict::Pass
}

/// What other nodes send: ingress of the uplink. What is not for a pod is the host's own.
#[inline(always)]
pub fn from_uplink<P: Packet + ?Sized, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp => return Verdict::Pass,
        Parsed::Malformed => return discard(tables, 0, DropReason::Malformed),
    };
    if let Some(pod) = tables.pod(&network.dst) {
        return deliver(packet, tables, &network, &pod, pod.slot);
    }
    match tables.route(&network.dst) {
        Some(route) if is_unspecified(&route.next_hop) => refuse(tables, 0, DropReason::UnknownPod),
        _ => Verdict::Pass,
    }
}

/// Hands a packet to a pod of this node, as the last router on its way. A drop counts for the pod in `blamed`.
#[inline(always)]
fn deliver<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    pod: &PodValue,
    blamed: u32,
) -> Verdict {
    if network.hops <= 1 {
        return refuse(tables, blamed, DropReason::TtlExceeded);
    }
    let rewritten = decrement_hops(packet, network).and_then(|()| set_macs(packet, pod.mac, pod.host_mac));
    if rewritten.is_none() {
        return discard(tables, blamed, DropReason::Malformed);
    }
    tables.count_received(pod.slot, packet.network_len());
    Verdict::RedirectPeer { ifindex: pod.ifindex }
}

/// Whether the packet's source is an address of the pod. A mapped address never equals `owner.v6`, nor does an IPv6
/// packet carry one, so the families cannot be confused.
#[inline(always)]
fn owns_source(owner: &InterfaceValue, network: &Network) -> bool {
    match network.family {
        Family::V4 => same(&network.src, &owner.v4),
        Family::V6 => same(&network.src, &owner.v6) && !is_unspecified(&network.src),
    }
}

/// Whether an IPv6 packet neither comes from nor goes beyond the link.
#[inline(always)]
fn stays_on_link(network: &Network) -> bool {
    matches!(network.family, Family::V6)
        && (is_link_local(&network.src) || is_unspecified(&network.src))
        && (is_link_local(&network.dst) || is_multicast(&network.dst))
}

#[inline(always)]
fn discard<T: Tables>(tables: &T, slot: u32, reason: DropReason) -> Verdict {
    tables.count_drop(slot, reason);
    Verdict::Drop(reason)
}

#[inline(always)]
fn refuse<T: Tables>(tables: &T, slot: u32, reason: DropReason) -> Verdict {
    tables.count_drop(slot, reason);
    Verdict::Refuse(reason)
}

#[cfg(test)]
mod tests;
