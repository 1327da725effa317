//! Packets on links: what the TCX programs do with them. Pod routing, and the services of whoever the socket hooks do not
//! serve.

use fairlead_abi::{
    Addr16, DropReason,
    conntrack::{CT_REPLY, ConntrackValue},
    node::{ADDRESS_LOCAL, ADDRESS_NODE, ADDRESS_NODE_PORT, ADDRESS_SERVICE},
    pod::{InterfaceValue, PodValue},
    route::RouteValue,
};

use crate::{
    conntrack::{Connections, Place, Work, begin, complete, follow, known},
    header::{Family, Network, Parsed, decrement_hops, is_link_local, is_multicast, parse, set_macs},
    icmp::{self, Complaint},
    is_unspecified,
    nat::{key, quoted, rewrite, rewrite_error},
    packet::{ETHERNET_LEN, Packet},
    same,
    service::{Frontend, Refusal, frontend},
    transport::{Payload, payload},
};

/// The maps and counters that a packet's way depends on.
pub trait Tables: Connections {
    /// The pod of this node that has the address.
    fn pod(&self, addr: &Addr16) -> Option<PodValue>;
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
    /// The host's stack takes it in order to answer with an ICMP error; the reason is counted.
    Refuse(DropReason),
    /// It has become an ICMP error and leaves by the interface it came from; the reason is counted.
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
    /// Out of the uplink, on the way that the kernel's routes say.
    RedirectUplink,
    /// To another node, with the client's address, over the overlay.
    RedirectOverlay {
        /// The node.
        node: Addr16,
    },
    /// It ends here; the reason is counted.
    Drop(DropReason),
}

/// What the overlay adds to a packet: Ethernet, IP, UDP and VXLAN headers (RFC 7348 §5).
const OVERLAY_V4: u32 = 14 + 20 + 8 + 8;
/// The same with an IPv6 header outside.
const OVERLAY_V6: u32 = 14 + 40 + 8 + 8;

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
) -> Verdict {
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
    let tracked = tables.is_tracked(owner.slot);
    if !tracked {
        match Way::of(tables, &network.dst) {
            // A service, perhaps.
            Way::Unknown if tables.address(&network.dst) != 0 => {}
            way => return forward(packet, tables, &network, way, owner.slot),
        }
    }
    let begins = !tracked || is_beside_pods(tables, &network.dst);
    serve(packet, tables, &network, &From::pod(owner.slot, begins), work())
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
) -> Verdict {
    let Parsed::Ip(network) = parse(packet) else { return Verdict::Pass };
    if stays_on_link(&network) {
        return Verdict::Pass;
    }
    let Some(owner) = tables.interface(ifindex) else { return Verdict::Pass };
    tables.count_received(owner.slot, packet.network_len());
    if tables.is_tracked(owner.slot) && tables.is_tracked(0) {
        return serve(packet, tables, &network, &From::host(false, true), work());
    }
    Verdict::Pass
}

/// What other nodes and clients outside send: ingress of the uplink. What is neither for a pod nor for a service is the
/// host's own.
#[inline(always)]
pub fn from_uplink<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Verdict {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp => return Verdict::Pass,
        Parsed::Malformed => return discard(tables, 0, DropReason::Malformed),
    };
    let begins = match Way::of(tables, &network.dst) {
        Way::Pod(pod) if !tables.is_tracked(pod.slot) => {
            return deliver(packet, tables, &network, &pod, pod.slot);
        }
        Way::Pod(_) => false,
        Way::Nowhere => return refuse(tables, 0, DropReason::UnknownPod),
        Way::Node(_) => return Verdict::Pass,
        Way::Unknown if tables.address(&network.dst) == 0 => return Verdict::Pass,
        Way::Unknown => true,
    };
    let inside = tables.route(&network.src).is_some();
    let from = From { slot: 0, inside, host: false, begins, leaves: false, via: None };
    serve(packet, tables, &network, &from, work())
}

/// What the host's own stack sends: egress of the uplink. Its replies to clients that a service brought to it, and its own
/// connections to services that no socket hook saw.
#[inline(always)]
pub fn to_uplink<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Verdict {
    let Parsed::Ip(network) = parse(packet) else { return Verdict::Pass };
    let begins = tables.address(&network.dst) & ADDRESS_SERVICE != 0;
    if !begins && !tables.is_tracked(0) {
        return Verdict::Pass;
    }
    serve(packet, tables, &network, &From::host(begins, false), work())
}

/// What another node hands over together with the client's address: ingress of the overlay. `via` is that node; packets of
/// others are not let in.
#[inline(always)]
pub fn from_overlay<'a, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    via: &Addr16,
    work: impl FnOnce() -> Option<&'a mut Work>,
) -> Verdict {
    let network = match parse(packet) {
        Parsed::Ip(network) => network,
        Parsed::NotIp | Parsed::Malformed => return discard(tables, 0, DropReason::Malformed),
    };
    if tables.address(via) & ADDRESS_NODE == 0 {
        return discard(tables, 0, DropReason::SourceNotOwned);
    }
    let begins = is_beside_pods(tables, &network.dst);
    let from = From { slot: 0, inside: false, host: false, begins, leaves: false, via: Some(via) };
    serve(packet, tables, &network, &from, work())
}

/// Whether something is known of the address that is in none of the cluster's pod networks.
#[inline(always)]
fn is_beside_pods<T: Tables>(tables: &T, addr: &Addr16) -> bool {
    tables.pod(addr).is_none() && tables.route(addr).is_none() && tables.address(addr) != 0
}

/// Where a destination is. It is looked at where it was found out and not passed on: what a variant leaves of the others is
/// undefined, the compiler may copy that, and the verifier refuses it.
#[derive(Clone, Copy)]
enum Way {
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
    fn of<T: Tables>(tables: &T, dst: &Addr16) -> Self {
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

/// Where a packet comes from.
struct From<'a> {
    /// The pod that sent it; 0 is none of this node.
    slot: u32,
    /// The sender is in the cluster.
    inside: bool,
    /// The sender is the host.
    host: bool,
    /// It may begin a connection to a service.
    begins: bool,
    /// It leaves by the interface that its new addresses want already: they are all that changes.
    leaves: bool,
    /// The node that handed it over.
    via: Option<&'a Addr16>,
}

impl From<'_> {
    /// A pod of this node.
    const fn pod(slot: u32, begins: bool) -> Self {
        Self { slot, inside: true, host: false, begins, leaves: false, via: None }
    }

    /// The host.
    const fn host(begins: bool, leaves: bool) -> Self {
        Self { slot: 0, inside: true, host: true, begins, leaves, via: None }
    }
}

/// What the tables of connections say about a packet.
enum Step {
    /// It is of no connection to a service.
    Unrelated,
    /// It becomes what `Work::value` says.
    Translated,
    /// It is not let through.
    Refused(Refusal),
}

/// A packet that may be of a connection to a service: it is translated if it is, and sent on its way.
#[inline(always)]
fn serve<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: &From<'_>,
    work: Option<&mut Work>,
) -> Verdict {
    let Some(work) = work else { return discard(tables, from.slot, DropReason::Inconsistent) };
    work.network = *network;
    match payload(packet, &work.network, &mut work.transport) {
        Payload::Transport => {}
        Payload::Error(icmp) => return error(packet, tables, from, icmp, work),
        Payload::Other => return forward_from(packet, tables, &work.network, from),
        Payload::Malformed => return discard(tables, from.slot, DropReason::Malformed),
    }
    match step(tables, from, work) {
        Step::Unrelated => return forward_from(packet, tables, &work.network, from),
        Step::Translated => {}
        Step::Refused(refusal) => return reject(packet, tables, &work.network, from, &refusal),
    }
    if (from.slot != 0 || from.host) && !tables.is_tracked(from.slot) {
        tables.track(from.slot);
    }
    forget_who_handed_over(from, &mut work.value);
    let Work { network, transport, value, .. } = work;
    if let Some(mtu) = too_big(packet, tables, network, &value.node) {
        return complain(packet, tables, network, from, mtu);
    }
    if rewrite(packet, network, transport, value).is_none() {
        return discard(tables, from.slot, DropReason::Malformed);
    }
    send(packet, tables, network, &value.node, from)
}

/// Sends a translated packet on.
#[inline(always)]
fn send<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    node: &Addr16,
    from: &From<'_>,
) -> Verdict {
    if from.leaves {
        return Verdict::Pass;
    }
    if !is_unspecified(node) {
        return hand_over(packet, tables, network, node, from.slot);
    }
    dispatch(packet, tables, network, from)
}

#[inline(always)]
fn step<T: Tables>(tables: &T, from: &From<'_>, work: &mut Work) -> Step {
    if let Err(refusal) = complete(tables, work) {
        // Only who may be talking to a service needs the ports.
        return if from.begins { Step::Refused(refusal) } else { Step::Unrelated };
    }
    work.key = key(&work.network, &work.transport);
    if known(tables, work) {
        // What one node handed over is followed anew when another one does.
        let value = &work.value;
        let followed = value.service_id == 0 && value.flags & CT_REPLY == 0;
        if !followed || from.via.is_some_and(|via| same(&value.node, via)) {
            return Step::Translated;
        }
    }
    let translated = |result: Result<(), Refusal>| match result {
        Ok(()) => Step::Translated,
        Err(refusal) => Step::Refused(refusal),
    };
    if from.begins {
        // Another node hands over what came to its own node ports.
        let serving = if from.via.is_some() { ADDRESS_NODE_PORT | ADDRESS_NODE } else { ADDRESS_NODE_PORT };
        let key = &work.key;
        match frontend(tables, &key.dst, key.dst_port, key.proto, serving) {
            Frontend::Service(service) => {
                let place = Place {
                    inside: from.inside,
                    host: from.host,
                    here: from.host || from.slot != 0,
                    sent_here: from.via.is_some(),
                };
                return translated(begin(tables, &service, place, work));
            }
            Frontend::NoPort => {
                return Step::Refused(Refusal { reason: DropReason::NoPort, service_id: 0 });
            }
            Frontend::None => {}
        }
    }
    match from.via {
        // To a backend on this node: one of its pods, or the host.
        Some(via) if from.begins || tables.pod(&work.key.dst).is_some() => {
            translated(follow(tables, via, work))
        }
        _ => Step::Unrelated,
    }
}

/// An ICMP error: one about a translated packet goes to who sent that packet, and tells of the packet that was sent.
#[inline(always)]
fn error<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    from: &From<'_>,
    icmp: u32,
    work: &mut Work,
) -> Verdict {
    let Work { network, value, quoted: about, .. } = work;
    let of_ours =
        quoted(packet, network.family, icmp, about).is_some() && tables.connection(&about.answer, value);
    if !of_ours {
        return forward_from(packet, tables, network, from);
    }
    if rewrite_error(packet, network, about, value).is_none() {
        return discard(tables, from.slot, DropReason::Malformed);
    }
    forget_who_handed_over(from, value);
    send(packet, tables, network, &value.node, from)
}

/// What was handed over is not handed on; and of a connection that was, the node in the entry of the client's packets is
/// where they came from.
#[inline(always)]
fn forget_who_handed_over(from: &From<'_>, value: &mut ConntrackValue) {
    let is_origin = value.service_id == 0 && value.flags & CT_REPLY == 0;
    if from.via.is_some() || is_origin {
        value.node = Addr16::UNSPECIFIED;
    }
}

/// Sends on a packet that is of no service: as if nobody had looked.
#[inline(always)]
fn forward_from<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: &From<'_>,
) -> Verdict {
    if from.host {
        return Verdict::Pass;
    }
    forward(packet, tables, network, Way::of(tables, &network.dst), from.slot)
}

/// Sends on a packet on the ways between pods.
#[inline(always)]
fn forward<P: Packet + ?Sized, T: Tables>(
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

/// Sends a translated packet to where its new destination is.
#[inline(always)]
fn dispatch<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: &From<'_>,
) -> Verdict {
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
            if from.host {
                // On its way out of the uplink already.
                return Verdict::Pass;
            }
            if let Some(verdict) = hop(packet, tables, network, from.slot) {
                return verdict;
            }
            Verdict::RedirectUplink
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
fn hand_over<P: Packet + ?Sized, T: Tables>(
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
fn deliver<P: Packet + ?Sized, T: Tables>(
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

/// The largest packet that the overlay takes to the node, when this one is longer and may not be cut.
#[inline(always)]
fn too_big<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    tables: &T,
    network: &Network,
    node: &Addr16,
) -> Option<u32> {
    if is_unspecified(node) {
        return None;
    }
    let overhead = if node.is_v4() { OVERLAY_V4 } else { OVERLAY_V6 };
    let mtu = tables.node().mtu.wrapping_sub(overhead);
    if packet.segment_len() <= mtu {
        return None;
    }
    let cuttable = match network.family {
        // "Don't fragment" is the second highest bit (RFC 791 §3.1).
        Family::V4 => packet.load::<u8, { ETHERNET_LEN + 6 }>()? & 0x40 == 0,
        Family::V6 => false,
    };
    (!cuttable).then_some(mtu)
}

#[inline(always)]
fn complain<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: &From<'_>,
    mtu: u32,
) -> Verdict {
    answer(packet, tables, network, from, DropReason::TooBig, Complaint::TooBig(mtu))
}

/// Refuses a connection: tells the client where it is to know, drops where it is not.
#[inline(always)]
fn reject<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: &From<'_>,
    refusal: &Refusal,
) -> Verdict {
    if !refusal.is_told() {
        return discard(tables, from.slot, refusal.reason);
    }
    answer(packet, tables, network, from, refusal.reason, Complaint::PortUnreachable)
}

/// Answers with an ICMP error; not over the overlay, where the client is another node's.
#[inline(always)]
fn answer<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: &From<'_>,
    reason: DropReason,
    complaint: Complaint,
) -> Verdict {
    let told = !from.leaves && from.via.is_none() && tables.may_answer();
    if told && icmp::answer(packet, network, complaint).is_some() {
        tables.count_drop(from.slot, reason);
        return Verdict::Answer(reason);
    }
    discard(tables, from.slot, reason)
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
