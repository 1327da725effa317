//! Packets that may be of a connection to a service: translated if they are, and sent on their way.

use fairlead_abi::{
    Addr16, DropReason,
    conntrack::{CT_REPLY, ConntrackValue},
    node::{ADDRESS_NODE, ADDRESS_NODE_PORT},
    service::TCP,
};

use super::{
    Tables, Verdict,
    way::{Way, discard, dispatch, forward, hand_over, is_beside_pods},
};
use crate::{
    conntrack::{Place, Work, begin, complete, follow, known},
    header::{Family, Network},
    icmp::{self, Complaint},
    is_unspecified,
    nat::{self, key, quoted, rewrite, rewrite_error},
    packet::{ETHERNET_LEN, Packet, Resizable},
    reset, same,
    service::{Frontend, Refusal, frontend, no_service},
    transport::{ACK, Payload, SYN, payload},
};

/// What the overlay adds to a packet: Ethernet, IP, UDP and VXLAN headers (RFC 7348 §5).
const OVERLAY_V4: u32 = 14 + 20 + 8 + 8;
/// The same with an IPv6 header outside.
const OVERLAY_V6: u32 = 14 + 40 + 8 + 8;

/// Where a packet comes from: what the first look at it has found out, in two words that one part of a program hands to
/// another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct From {
    /// The pod that sent it; 0 is none of this node.
    pub slot: u32,
    /// What else is known, as bits of this module.
    pub marks: u32,
}

/// The sender is in the cluster. What neither this nor [`OUTSIDE`] says is looked up when it matters.
const INSIDE: u32 = 1 << 0;
/// The sender is not in the cluster, or another node has looked after that.
const OUTSIDE: u32 = 1 << 1;
/// The sender is the host.
const HOST: u32 = 1 << 2;
/// It may begin a connection to a service. What neither this nor [`GOES_ON`] says is looked up when it matters.
const BEGINS: u32 = 1 << 3;
/// It may not.
const GOES_ON: u32 = 1 << 4;
/// It leaves by the interface that its new addresses want already: they are all that changes.
const LEAVES: u32 = 1 << 5;
/// Another node handed it over: [`Work::via`].
const HANDED_OVER: u32 = 1 << 6;

impl From {
    /// The marks that a pod and somebody outside may have.
    pub const OF_POD_OR_OUTSIDE: u32 = INSIDE | BEGINS | GOES_ON;

    /// A pod of this node.
    pub(crate) const fn pod(slot: u32, begins: Option<bool>) -> Self {
        Self { slot, marks: INSIDE | begins_mark(begins) }
    }

    /// The host.
    pub(crate) const fn host(begins: bool, leaves: bool) -> Self {
        Self { slot: 0, marks: INSIDE | HOST | begins_mark(Some(begins)) | if leaves { LEAVES } else { 0 } }
    }

    /// Somebody on the uplink's side.
    pub(crate) const fn outside(begins: bool) -> Self {
        Self { slot: 0, marks: begins_mark(Some(begins)) }
    }

    /// Another node, which hands over what a client has sent to it.
    pub(crate) const fn other_node() -> Self {
        Self { slot: 0, marks: OUTSIDE | HANDED_OVER }
    }

    #[inline(always)]
    const fn is(self, mark: u32) -> bool {
        self.marks & mark != 0
    }

    /// The sender is a process or a pod of this node.
    #[inline(always)]
    const fn is_here(self) -> bool {
        self.slot != 0 || self.is(HOST)
    }

    /// The sender is the host.
    #[inline(always)]
    pub(crate) const fn is_host(self) -> bool {
        self.is(HOST)
    }

    #[inline(always)]
    fn is_inside<T: Tables>(self, tables: &T, network: &Network) -> bool {
        self.is(INSIDE) || !self.is(OUTSIDE) && tables.route(&network.src).is_some()
    }

    #[inline(always)]
    fn may_begin<T: Tables>(self, tables: &T, network: &Network) -> bool {
        self.is(BEGINS) || !self.is(GOES_ON) && is_beside_pods(tables, &network.dst)
    }
}

const fn begins_mark(begins: Option<bool>) -> u32 {
    match begins {
        Some(true) => BEGINS,
        Some(false) => GOES_ON,
        None => 0,
    }
}

/// What the tables of connections say about a packet.
pub(crate) enum Step {
    /// It is of no connection to a service.
    Unrelated,
    /// It becomes what `Work::value` says.
    Translated,
    /// It is not let through.
    Refused(Refusal),
}

/// A packet that may be of a connection to a service, whose addresses are in `work`: it is translated if it is, and sent on
/// its way.
#[inline(always)]
pub fn serve<P: Resizable + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    from: From,
    work: &mut Work,
) -> Verdict {
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
    if from.is_here() && !tables.is_tracked(from.slot) {
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
    send(packet, tables, network, value, from)
}

/// Sends a translated packet on.
#[inline(always)]
fn send<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    value: &ConntrackValue,
    from: From,
) -> Verdict {
    if from.is(LEAVES) {
        return Verdict::Pass;
    }
    if !is_unspecified(&value.node) {
        return hand_over(packet, tables, network, &value.node, from.slot);
    }
    dispatch(packet, tables, network, from, value.flags)
}

#[inline(always)]
fn step<T: Tables>(tables: &T, from: From, work: &mut Work) -> Step {
    if let Err(refusal) = complete(tables, work) {
        // Only who may be talking to a service needs the ports.
        let asks = from.may_begin(tables, &work.network);
        return if asks { Step::Refused(refusal) } else { Step::Unrelated };
    }
    work.key = key(&work.network, &work.transport);
    if goes_on(tables, from, work) { Step::Translated } else { start(tables, from, work) }
}

/// Whether the packet of `work.key` goes on with a connection.
#[inline(always)]
pub(crate) fn goes_on<T: Tables>(tables: &T, from: From, work: &mut Work) -> bool {
    if !known(tables, work) {
        return false;
    }
    // What one node handed over is followed anew when another one does.
    let value = &work.value;
    let followed = value.service_id == 0 && value.flags & CT_REPLY == 0;
    !followed || from.is(HANDED_OVER) && same(&value.node, &work.via)
}

/// What the first packet of a connection does.
#[inline(always)]
pub(crate) fn start<T: Tables>(tables: &T, from: From, work: &mut Work) -> Step {
    let translated = |result: Result<(), Refusal>| match result {
        Ok(()) => Step::Translated,
        Err(refusal) => Step::Refused(refusal),
    };
    let begins = from.may_begin(tables, &work.network);
    if begins {
        // Another node hands over what came to its own node ports.
        let serving = if from.is(HANDED_OVER) { ADDRESS_NODE_PORT | ADDRESS_NODE } else { ADDRESS_NODE_PORT };
        let key = &work.key;
        match frontend(tables, &key.dst, key.dst_port, key.proto, serving) {
            Frontend::Service(service) => {
                let place = Place {
                    inside: from.is_inside(tables, &work.network),
                    host: from.is_host(),
                    here: from.is_here(),
                    sent_here: from.is(HANDED_OVER),
                };
                return translated(begin(tables, &service, place, work));
            }
            Frontend::NoPort => {
                return Step::Refused(no_service(DropReason::NoPort));
            }
            Frontend::NoAddress => {
                return Step::Refused(no_service(DropReason::UnknownAddress));
            }
            Frontend::None => {}
        }
    }
    // To a backend on this node: one of its pods, or the host.
    if from.is(HANDED_OVER) && (begins || tables.pod(&work.key.dst).is_some()) {
        return translated(follow(tables, work));
    }
    begin_beside(tables, from, work);
    Step::Unrelated
}

/// A connection of this node that begins beside services may have the port of a former one to the same backend by a service:
/// its answers are not that one's. Should the former one go on, it begins anew.
#[inline(always)]
fn begin_beside<T: Tables>(tables: &T, from: From, work: &mut Work) {
    let Work { transport, key, value, other_key, .. } = work;
    let opens = transport.proto != TCP || transport.tcp_flags & (SYN | ACK) == SYN;
    if !from.is_here() || !opens {
        return;
    }
    *other_key = nat::answer(key);
    if tables.connection(other_key, value) && value.flags & CT_REPLY != 0 {
        tables.remove_connection(other_key);
        *other_key = nat::reverse(value, key.proto);
        tables.remove_connection(other_key);
    }
}

/// An ICMP error: one about a translated packet goes to who sent that packet, and tells of the packet that was sent.
#[inline(always)]
fn error<P: Resizable + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    from: From,
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
    send(packet, tables, network, value, from)
}

/// What was handed over is not handed on; and of a connection that was, the node in the entry of the client's packets is
/// where they came from.
#[inline(always)]
pub(crate) fn forget_who_handed_over(from: From, value: &mut ConntrackValue) {
    let is_origin = value.service_id == 0 && value.flags & CT_REPLY == 0;
    if from.is(HANDED_OVER) || is_origin {
        value.node = Addr16::UNSPECIFIED;
    }
}

/// Sends on a packet that is of no service: as if nobody had looked.
#[inline(always)]
fn forward_from<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: From,
) -> Verdict {
    if from.is_host() {
        return Verdict::Pass;
    }
    forward(packet, tables, network, Way::of(tables, &network.dst), from.slot)
}

/// The largest packet that the overlay takes to the node, when this one is longer and may not be cut.
#[inline(always)]
pub(crate) fn too_big<P: Packet + ?Sized, T: Tables>(
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
fn complain<P: Resizable + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: From,
    mtu: u32,
) -> Verdict {
    answer(packet, tables, network, from, DropReason::TooBig, Complaint::TooBig(mtu))
}

/// Refuses a connection: tells the client where it is to know, drops where it is not. Who goes on with one that nobody knows is
/// told by a reset, which alone ends it at once.
#[inline(always)]
fn reject<P: Resizable + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: From,
    refusal: &Refusal,
) -> Verdict {
    if matches!(refusal.reason, DropReason::UnknownConnection) {
        let told = is_told(tables, from) && reset::answer(packet, network).is_some();
        return answered(tables, from, refusal.reason, told);
    }
    if !refusal.is_told() {
        return discard(tables, from.slot, refusal.reason);
    }
    answer(packet, tables, network, from, refusal.reason, Complaint::PortUnreachable)
}

/// Answers with an ICMP error.
#[inline(always)]
fn answer<P: Resizable + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    from: From,
    reason: DropReason,
    complaint: Complaint,
) -> Verdict {
    let told = is_told(tables, from) && icmp::answer(packet, network, complaint).is_some();
    answered(tables, from, reason, told)
}

/// Whether the sender may be answered: not over the overlay, where the client is another node's.
#[inline(always)]
fn is_told<T: Tables>(tables: &T, from: From) -> bool {
    !from.is(LEAVES | HANDED_OVER) && tables.may_answer()
}

/// The packet has become the answer, or ends here.
#[inline(always)]
fn answered<T: Tables>(tables: &T, from: From, reason: DropReason, told: bool) -> Verdict {
    if !told {
        return discard(tables, from.slot, reason);
    }
    tables.count_drop(from.slot, reason);
    Verdict::Answer(reason)
}
