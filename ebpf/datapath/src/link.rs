//! Packets on links: what the TCX programs do with them. Pod routing, and the services of whoever the socket hooks do not
//! serve.

use fairlead_abi::{
    Addr16, DropReason,
    node::{ADDRESS_NODE, ADDRESS_SERVICE},
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
};

pub use self::serve::{From, serve};
use self::way::{Way, concerns_services, deliver, discard, forward, refuse};
use crate::{
    conntrack::{Connections, Work},
    header::{Family, Network, Parsed, ethertype, ipv4, ipv6, is_link_local, is_multicast, parse},
    is_unspecified,
    packet::{Packet, Resizable},
    same,
    service::is_nobodys,
};

pub(crate) mod serve;
pub(crate) mod way;

/// The maps and counters that a packet's way depends on.
pub trait Tables: Connections {
    /// The pod of this node that has the address.
    fn pod(&self, addr: &Addr16) -> Option<PodValue>;
    /// Whether these programs carry pods' packets; else they count them and leave them to the host's stack.
    fn carries(&self) -> bool;
    /// The same, if that is known at once.
    fn near_pod(&self, addr: &Addr16) -> Option<&PodValue>;
    /// The pod behind a host-side interface.
    fn interface(&self, ifindex: u32) -> Option<InterfaceValue>;
    /// The route of the longest prefix that covers the address.
    fn route(&self, addr: &Addr16) -> Option<RouteValue>;
    /// Interface that leads to other nodes.
    fn uplink(&self) -> u32;
    /// Whether a connection of the pod in `slot` (0: of the host) has ever been translated here.
    fn is_tracked(&self, slot: u32) -> bool;
    /// One is from now on.
    fn track(&self, slot: u32);
    /// Whether the node may answer with one more ICMP error now.
    fn may_answer(&self) -> bool;
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
    /// The host's stack takes it, and replaces the source address with that of the interface that it leaves by.
    PassMasqueraded,
    /// The host's stack takes it in order to answer with an ICMP error; the reason is counted.
    Refuse(DropReason),
    /// It has become an ICMP error, or a TCP reset, and leaves by the interface it came from; the reason is counted.
    Answer(DropReason),
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
    /// Out of the interface to which the kernel's routes lead for its addresses; of the uplink where they lead nowhere.
    RedirectRouted,
    /// To another node, with the client's address, over the overlay.
    RedirectOverlay {
        /// The node.
        node: Addr16,
    },
    /// It ends here; the reason is counted.
    Drop(DropReason),
}

/// What the first look at a packet comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Everything is known.
    Done(Verdict),
    /// It may be of a connection to a service: [`serve`] says more, with the addresses that are in the memory already.
    Serve(From),
}

/// The host's stack takes it.
const PASS: Entry = Entry::Done(Verdict::Pass);

impl Entry {
    #[inline(always)]
    fn serve<'a, T: Tables>(
        tables: &T,
        network: &Network,
        from: From,
        work: impl FnOnce() -> Option<&'a mut Work>,
    ) -> Self {
        let Some(work) = work() else {
            return Self::Done(discard(tables, from.slot, DropReason::Inconsistent));
        };
        work.network = *network;
        Self::Serve(from)
    }

    /// What becomes of the packet.
    #[inline(always)]
    pub fn finish<'a, P: Resizable + ?Sized, T: Tables>(
        self,
        packet: &mut P,
        tables: &T,
        work: impl FnOnce() -> Option<&'a mut Work>,
    ) -> Verdict {
        match self {
            Self::Done(verdict) => verdict,
            Self::Serve(from) => match work() {
                Some(work) => serve(packet, tables, from, work),
                None => discard(tables, from.slot, DropReason::Inconsistent),
            },
        }
    }
}

/// What a pod sends: ingress of its host-side veth `ifindex`.
///
/// A pod may use its own addresses as a source and no other. ARP goes to the stack, and so does IPv6 on the link
/// (neighbour discovery, router solicitation, multicast listener reports), whose source is link-local or unspecified.
/// An interface without an entry belongs to nobody, so no IP packet may come from it.
#[inline(always)]
pub fn from_pod<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Entry {
    match to_neighbour(packet, tables, ifindex) {
        Some(verdict) => Entry::Done(verdict),
        None => beyond_neighbours(packet, tables, ifindex, work),
    }
}

/// The same for a packet that [`to_neighbour`] does not know.
#[inline(always)]
pub fn beyond_neighbours<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Entry {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp => return PASS,
        Parsed::Malformed => {
            let slot = tables.interface(ifindex).map_or(0, |owner| owner.slot);
            return Entry::Done(discard(tables, slot, DropReason::Malformed));
        }
    };
    let slot = match tables.near_pod(&network.src) {
        Some(pod) if pod.ifindex == ifindex => pod.slot,
        _ => match owner_of(tables, ifindex, &network) {
            Owner::Pod(slot) => slot,
            Owner::StaysOnLink => return PASS,
            Owner::Nobody(slot) => return Entry::Done(discard(tables, slot, DropReason::SourceNotOwned)),
        },
    };
    tables.count_sent(slot, packet.network_len());
    let tracked = tables.is_tracked(slot);
    if !tracked && !tables.carries() {
        return PASS;
    }
    if !tracked {
        match Way::of(tables, &network.dst) {
            // A service, perhaps.
            Way::Unknown if concerns_services(tables, &network.dst) => {}
            way => return Entry::Done(forward(packet, tables, &network, way, slot)),
        }
    }
    let begins = if tracked { None } else { Some(true) };
    Entry::serve(tables, &network, From::pod(slot, begins), work)
}

/// A packet from pod to pod of this node, neither of which has to be looked for: what [`from_pod`] does with it, in short.
#[inline(always)]
pub fn to_neighbour<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
) -> Option<Verdict> {
    // Each family by itself, so that what its addresses have in common is a constant and not carried along.
    match Family::of(ethertype(packet)?)? {
        Family::V4 => between_neighbours(packet, tables, &ipv4(packet)?, ifindex),
        Family::V6 => between_neighbours(packet, tables, &ipv6(packet)?, ifindex),
    }
}

#[inline(always)]
fn between_neighbours<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    ifindex: u32,
) -> Option<Verdict> {
    let sender = tables.near_pod(&network.src)?;
    let receiver = tables.near_pod(&network.dst)?;
    if sender.ifindex != ifindex || tables.is_tracked(sender.slot) || !tables.carries() {
        return None;
    }
    tables.count_sent(sender.slot, packet.network_len());
    Some(deliver(packet, tables, network, receiver, sender.slot))
}

/// What the host's own stack sends to a pod: egress of the pod's host-side veth. It is counted, but for the link's own
/// IPv6 housekeeping, which is not counted the other way either. Redirected packets do not come by here. Replies of the
/// host to a pod that reached it by a service become the service's.
#[inline(always)]
pub fn to_pod<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Entry {
    let Parsed::Ip(network) = parse(packet) else { return PASS };
    if stays_on_link(&network) {
        return PASS;
    }
    let Some(owner) = tables.interface(ifindex) else { return PASS };
    tables.count_received(owner.slot, packet.network_len());
    if tables.is_tracked(owner.slot) && tables.is_tracked(0) {
        return Entry::serve(tables, &network, From::host(false, true), work);
    }
    PASS
}

/// What other nodes and clients outside send: ingress of the uplink. What is neither for a pod nor for a service is the
/// host's own.
#[inline(always)]
pub fn from_uplink<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Entry {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp => return PASS,
        Parsed::Malformed => return Entry::Done(discard(tables, 0, DropReason::Malformed)),
    };
    let begins = match Way::of(tables, &network.dst) {
        Way::Pod(pod) if !tables.is_tracked(pod.slot) => {
            return Entry::Done(deliver(packet, tables, &network, &pod, pod.slot));
        }
        Way::Pod(_) => false,
        Way::Nowhere => return Entry::Done(refuse(tables, 0, DropReason::UnknownPod)),
        Way::Node(_) => return PASS,
        Way::Unknown if concerns_services(tables, &network.dst) => true,
        Way::Unknown => return PASS,
    };
    Entry::serve(tables, &network, From::outside(begins), work)
}

/// What the host's own stack sends: egress of the uplink. Its replies to clients that a service brought to it, and its own
/// connections to services that no socket hook saw. Where pods' interfaces are somebody else's it also sends what pods have
/// `forwarded` to it: their replies.
#[inline(always)]
pub fn to_uplink<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    forwarded: bool,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Entry {
    let Parsed::Ip(network) = parse(packet) else { return PASS };
    let flags = tables.address(&network.dst);
    let begins = !forwarded && (flags & ADDRESS_SERVICE != 0 || is_nobodys(tables, &network.dst, flags));
    if !begins && !tables.is_tracked(0) {
        return PASS;
    }
    Entry::serve(tables, &network, From::host(begins, false), work)
}

/// What another node hands over together with the client's address: ingress of the overlay. `via` is that node; packets of
/// others are not let in.
#[inline(always)]
pub fn from_overlay<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    via: &Addr16,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Entry {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp | Parsed::Malformed => return Entry::Done(discard(tables, 0, DropReason::Malformed)),
    };
    if tables.address(via) & ADDRESS_NODE == 0 {
        return Entry::Done(discard(tables, 0, DropReason::SourceNotOwned));
    }
    Entry::serve(tables, &network, From::other_node(), || {
        let work = work()?;
        work.via = *via;
        Some(work)
    })
}

/// Whose packet it is.
enum Owner {
    /// The pod's in this slot.
    Pod(u32),
    /// The link's own housekeeping.
    StaysOnLink,
    /// Nobody's; it counts for the pod in this slot.
    Nobody(u32),
}

/// Asks the interface whose packet it is.
#[inline(always)]
fn owner_of<T: Tables>(tables: &T, ifindex: u32, network: &Network) -> Owner {
    let Some(owner) = tables.interface(ifindex) else { return Owner::Nobody(0) };
    if owns_source(&owner, network) {
        Owner::Pod(owner.slot)
    } else if stays_on_link(network) {
        Owner::StaysOnLink
    } else {
        Owner::Nobody(owner.slot)
    }
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

#[cfg(test)]
mod tests;
