//! Connections that the link programs translate: found, begun, followed to their end.
//!
//! East-west connections are translated in the socket and never come here. What does: clients outside the cluster, and
//! whoever has no socket that the hooks see.

use fairlead_abi::{
    Addr16, Be16, DropReason,
    conntrack::{
        CT_ANSWERED, CT_BACKEND_FIN, CT_CLIENT_FIN, CT_MASQUERADED, CT_REPLY, CT_RESET, CT_STACK_MASQUERADES,
        ConntrackKey, ConntrackValue, FragmentKey, FragmentValue,
    },
    names::globals::{FORWARD_BY_STACK, FORWARD_DIRECT_RETURN, FORWARD_MASQUERADED},
    node::NodeValue,
    service::{
        BACKEND_HERE, BACKEND_HOST, BACKEND_SERVING, BackendValue, SERVICE_EXTERNAL, SERVICE_EXTERNAL_LOCAL,
        ServiceValue, TCP,
    },
};

use crate::{
    header::{Family, Network},
    is_unspecified,
    nat::{Quoted, reverse},
    same,
    service::{Choice, Client, Refusal, Services, below, is_certain, mix, select},
    transport::{ACK, FIN, RST, SYN, Transport},
};

/// The tables of connections and what their translation depends on.
pub trait Connections: Services {
    /// Whether there is an entry; it is copied to `value`.
    fn connection(&self, key: &ConntrackKey, value: &mut ConntrackValue) -> bool;
    /// Adds an entry, or replaces one if it may.
    fn add_connection(&self, key: &ConntrackKey, value: &ConntrackValue, replace: bool) -> Added;
    /// Takes an entry back.
    fn remove_connection(&self, key: &ConntrackKey);
    /// Adds flags to an entry, and says that a packet passed now, unless `seen_ns` is 0.
    fn mark_connection(&self, key: &ConntrackKey, flags: u16, seen_ns: u64);
    /// The ports of a fragmented packet.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue>;
    /// Remembers them.
    fn keep_fragment(&self, key: &FragmentKey, value: &FragmentValue);
    /// A `FORWARD_*`.
    fn forwarding(&self) -> u32;
    /// This node.
    fn node(&self) -> NodeValue;
    /// First port to masquerade with and how many there are.
    fn masquerade_ports(&self) -> (u16, u16);
    /// Address of the node that has an address of the cluster's pod networks; none of this node's own.
    fn node_of(&self, addr: &Addr16) -> Option<Addr16>;
}

/// What became of an entry that was to be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// It is there.
    Done,
    /// Another one has the key.
    Exists,
    /// There is no room.
    Full,
}

/// Entries are told that a packet passed at most this often: a second.
const SEEN_EVERY_NS: u64 = 1_000_000_000;

/// How many ports are tried before a connection is refused. With a tenth of them in use, one in 10^16 is refused for
/// want of luck.
const PORTS_TRIED_MAX: u32 = 16;

/// Memory for a packet that needs a look at the tables of connections: more than the stack of a program has. In the kernel
/// it is one per CPU, and its content is of no packet before.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub(crate) network: Network,
    /// The node that handed the packet over, if one did.
    pub(crate) via: Addr16,
    pub(crate) transport: Transport,
    pub(crate) key: ConntrackKey,
    pub(crate) value: ConntrackValue,
    pub(crate) other_key: ConntrackKey,
    pub(crate) other: ConntrackValue,
    pub(crate) quoted: Quoted,
}

impl Work {
    /// Memory that nothing was written to.
    pub const EMPTY: Self = Self {
        network: Network {
            family: Family::V4,
            src: Addr16::UNSPECIFIED,
            dst: Addr16::UNSPECIFIED,
            hops: 0,
            protocol: 0,
        },
        via: Addr16::UNSPECIFIED,
        transport: Transport::NONE,
        key: NO_KEY,
        value: NO_VALUE,
        other_key: NO_KEY,
        other: NO_VALUE,
        quoted: Quoted::NONE,
    };
}

const NO_KEY: ConntrackKey = ConntrackKey {
    src: Addr16::UNSPECIFIED,
    dst: Addr16::UNSPECIFIED,
    src_port: Be16(0),
    dst_port: Be16(0),
    proto: 0,
    _pad: [0; 3],
};
const NO_VALUE: ConntrackValue = ConntrackValue {
    seen_ns: 0,
    src: Addr16::UNSPECIFIED,
    dst: Addr16::UNSPECIFIED,
    src_port: Be16(0),
    dst_port: Be16(0),
    flags: 0,
    _pad: 0,
    node: Addr16::UNSPECIFIED,
    backend: 0,
    generation: 0,
    service_id: 0,
    _pad2: 0,
};

/// Who sends a packet that the link programs see.
pub(crate) struct Sender<'a> {
    pub(crate) network: &'a Network,
    pub(crate) transport: &'a Transport,
    pub(crate) place: Place,
}

/// Where a sender is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// It is in the cluster.
    pub(crate) inside: bool,
    /// It is a process of this node.
    pub(crate) host: bool,
    /// It is a process or a pod of this node, so replies come by here whatever they look like.
    pub(crate) here: bool,
    /// Another node has chosen this one.
    pub(crate) sent_here: bool,
}

impl Client for Sender<'_> {
    #[inline(always)]
    fn is_inside(&self) -> bool {
        self.place.inside
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        self.place.host
    }

    #[inline(always)]
    fn is_sent_here(&self) -> bool {
        self.place.sent_here
    }

    #[inline(always)]
    fn address(&self) -> Addr16 {
        self.network.src
    }

    #[inline(always)]
    fn identity(&self) -> Addr16 {
        self.network.src
    }

    #[inline(always)]
    fn hash(&self, with_port: bool) -> Option<u32> {
        let (src, dst) = (&self.network.src.0, &self.network.dst.0);
        let ports = if with_port { self.transport.src_port.0 as u32 } else { 0 };
        let mut hash = mix(self.transport.proto as u32, (self.transport.dst_port.0 as u32) << 16 | ports);
        for word in 0..4 {
            hash = mix(hash, src[word]);
            hash = mix(hash, dst[word]);
        }
        Some(hash)
    }
}

/// Gives a fragment the ports that its packet's first one had; keeps those of a first one.
#[inline(always)]
pub(crate) fn complete<C: Connections>(connections: &C, work: &mut Work) -> Result<(), Refusal> {
    let Work { network, transport, .. } = work;
    if !transport.is_fragment {
        return Ok(());
    }
    let (src, dst, id) = (network.src, network.dst, transport.fragment_id);
    let key = FragmentKey { src, dst, id, proto: transport.proto, _pad: [0; 3] };
    if transport.has_header {
        let value = FragmentValue { src_port: transport.src_port, dst_port: transport.dst_port };
        connections.keep_fragment(&key, &value);
        return Ok(());
    }
    match connections.fragment(&key) {
        Some(value) => {
            (transport.src_port, transport.dst_port) = (value.src_port, value.dst_port);
            Ok(())
        }
        None => Err(Refusal { reason: DropReason::UnknownFragment, service_id: 0 }),
    }
}

/// Whether the connection that the packet in `work` belongs to is known and may go on: a SYN does not revive one that has
/// ended, and a datagram does not follow a backend that no longer serves. `work.value` is then its entry.
#[inline(always)]
pub(crate) fn known<C: Connections>(connections: &C, work: &mut Work) -> bool {
    let Work { transport, key, value, other_key, .. } = work;
    if !connections.connection(key, value) {
        return false;
    }
    let flags = value.flags;
    if flags & CT_REPLY == 0 {
        if transport.proto == TCP {
            let ended = CT_RESET | CT_BACKEND_FIN | CT_CLIENT_FIN;
            if transport.tcp_flags & (SYN | ACK) == SYN && flags & ended != 0 {
                return false;
            }
        } else if value.service_id != 0 {
            let Some(backend) = connections.backend(value.backend) else { return false };
            if backend.generation != value.generation || backend.flags & BACKEND_SERVING == 0 {
                return false;
            }
        }
    }
    let mut news = 0;
    if transport.tcp_flags & RST != 0 {
        news = CT_RESET;
    } else if transport.tcp_flags & FIN != 0 {
        news = if flags & CT_REPLY != 0 { CT_BACKEND_FIN } else { CT_CLIENT_FIN };
    }
    if flags & CT_REPLY != 0 {
        news |= CT_ANSWERED;
    }
    news &= !flags;
    let now = connections.now_ns();
    if news != 0 || now.wrapping_sub(value.seen_ns) >= SEEN_EVERY_NS {
        connections.mark_connection(key, news, now);
    }
    if news != 0 {
        *other_key = reverse(value, key.proto);
        connections.mark_connection(other_key, news, 0);
    }
    true
}

/// Begins a connection to a service: chooses a backend, decides what the packets become, and writes both entries.
/// `work.value` is then the one of the packet's direction.
#[inline(always)]
pub(crate) fn begin<C: Connections>(
    connections: &C,
    service: &ServiceValue,
    place: Place,
    work: &mut Work,
) -> Result<(), Refusal> {
    let sender = Sender { network: &work.network, transport: &work.transport, place };
    let choice = select(connections, service, &sender)?;
    if !may_begin(service, &sender) {
        return Err(Refusal { reason: DropReason::UnknownConnection, service_id: service.service_id });
    }
    let backend = &choice.backend;
    let node = way_to(connections, place, &choice);
    let direct = !is_unspecified(&node) && connections.forwarding() == FORWARD_DIRECT_RETURN;
    let by_stack = connections.forwarding() == FORWARD_BY_STACK;
    let (key, value) = (&work.key, &mut work.value);
    *value = ConntrackValue {
        seen_ns: connections.now_ns(),
        src: key.src,
        // A node that answers the client itself must learn which address the client asked: the packet keeps it.
        dst: if direct { key.dst } else { backend.addr },
        src_port: key.src_port,
        dst_port: if direct { key.dst_port } else { backend.port },
        flags: if work.transport.tcp_flags & FIN != 0 { CT_CLIENT_FIN } else { 0 },
        _pad: 0,
        node,
        backend: choice.index,
        generation: backend.generation,
        service_id: service.service_id,
        _pad2: 0,
    };
    if same(&key.src, &backend.addr) {
        // A pod that is its own backend would answer itself past us: to it, the service is the client.
        value.src = key.dst;
    } else if !is_process_here(backend) && masquerades(service.flags, place, connections.forwarding()) {
        let own = connections.node();
        value.src = if key.src.is_v4() { own.v4 } else { own.v6 };
        value.flags |= CT_MASQUERADED;
    } else if by_stack && !place.host && backend.flags & BACKEND_HERE == 0 {
        // Its answers would go past this node.
        value.flags |= CT_STACK_MASQUERADES;
    }
    if !direct {
        add_reply(connections, work)?;
    }
    match connections.add_connection(&work.key, &work.value, true) {
        Added::Done => Ok(()),
        _ => {
            if !direct {
                connections.remove_connection(&work.other_key);
            }
            Err(Refusal { reason: DropReason::ConntrackFull, service_id: service.service_id })
        }
    }
}

/// Whether a packet of no known connection may begin one: a SYN or a datagram. Another segment is of a connection that some node
/// knew, and goes on where only the same backend can be chosen for it; elsewhere it would meet a stranger. A reset has
/// nothing to begin.
#[inline(always)]
fn may_begin(service: &ServiceValue, sender: &Sender<'_>) -> bool {
    let flags = sender.transport.tcp_flags;
    let opens = sender.transport.proto != TCP || flags & (SYN | ACK | RST) == SYN;
    opens || flags & RST == 0 && is_certain(service, sender)
}

/// Whether a client's address is replaced with the node's. It is where kube-proxy does so, when this node is told to forward
/// as kube-proxy does; else never: replies find their way back through this node's entries.
///
/// A process of the node itself has the node's address already.
#[inline(always)]
pub(crate) const fn masquerades(service_flags: u32, place: Place, forwarding: u32) -> bool {
    if forwarding != FORWARD_MASQUERADED || place.host {
        return false;
    }
    if service_flags & SERVICE_EXTERNAL == 0 {
        // A cluster address: pods keep their address, others may not be reachable from the backend.
        return !place.inside;
    }
    service_flags & SERVICE_EXTERNAL_LOCAL == 0
}

/// Whether the backend is a process of this node: it answers by this node whoever asks, and would not believe that a packet
/// from outside comes from the node itself.
#[inline(always)]
const fn is_process_here(backend: &BackendValue) -> bool {
    backend.flags & (BACKEND_HERE | BACKEND_HOST) == BACKEND_HERE | BACKEND_HOST
}

/// The node to hand a connection over to: that of a backend elsewhere, for a client that is not of this node.
#[inline(always)]
fn way_to<C: Connections>(connections: &C, place: Place, choice: &Choice) -> Addr16 {
    let backend = &choice.backend;
    let keeps_to_itself = matches!(connections.forwarding(), FORWARD_MASQUERADED | FORWARD_BY_STACK);
    if place.here || backend.flags & BACKEND_HERE != 0 || keeps_to_itself {
        return Addr16::UNSPECIFIED;
    }
    if backend.flags & BACKEND_HOST != 0 {
        return backend.addr;
    }
    // A backend outside the cluster has no node: the packet goes there with the client's address.
    connections.node_of(&backend.addr).unwrap_or(Addr16::UNSPECIFIED)
}

/// Writes the entry of the replies. When another connection's replies look the same (one client port to two services with
/// one backend), or the client is masqueraded, a port of the reserved range tells them apart.
#[inline(always)]
fn add_reply<C: Connections>(connections: &C, work: &mut Work) -> Result<(), Refusal> {
    let Work { key, value, other_key, other, .. } = work;
    let refused = |reason| Err(Refusal { reason, service_id: value.service_id });
    *other_key = reverse(value, key.proto);
    // Replies of this client's own former connection to the same frontend are what this one replaces, or those of one that has
    // ended.
    let own_port = value.flags & CT_MASQUERADED == 0;
    let mut replace = own_port && connections.connection(other_key, other) && {
        let same_addresses = same(&other.src, &key.dst) && same(&other.dst, &key.src);
        let same_ports = other.src_port.0 == key.dst_port.0 && other.dst_port.0 == key.src_port.0;
        same_addresses && same_ports || has_ended(other.flags)
    };
    *other = *value;
    (other.src, other.dst) = (key.dst, key.src);
    (other.src_port, other.dst_port) = (key.dst_port, key.src_port);
    other.flags |= CT_REPLY;
    other.node = Addr16::UNSPECIFIED;
    let (first, count) = connections.masquerade_ports();
    let start = connections.random();
    for attempt in 0..PORTS_TRIED_MAX {
        if attempt > 0 || !own_port {
            let port = first as u32 + below(mix(start, attempt), count as u32);
            other_key.dst_port = Be16::new(port as u16);
        }
        match connections.add_connection(other_key, other, replace) {
            Added::Done => {
                value.src_port = other_key.dst_port;
                return Ok(());
            }
            Added::Exists => replace = false,
            Added::Full => return refused(DropReason::ConntrackFull),
        }
    }
    refused(DropReason::PortsExhausted)
}

/// Whether both sides of a TCP connection have said that it is over, or one has reset it.
#[inline(always)]
const fn has_ended(flags: u16) -> bool {
    const CLOSED: u16 = CT_BACKEND_FIN | CT_CLIENT_FIN;
    flags & CT_RESET != 0 || flags & CLOSED == CLOSED
}

/// Follows a connection that another node, [`Work::via`], handed over: its packets stay what they are, and its replies
/// go back to that node. `work.value` is then the entry of its packets; `node` in it says who handed it over.
#[inline(always)]
pub(crate) fn follow<C: Connections>(connections: &C, work: &mut Work) -> Result<(), Refusal> {
    let Work { via, key, value, other_key, other, .. } = work;
    *value = ConntrackValue {
        seen_ns: connections.now_ns(),
        src: key.src,
        dst: key.dst,
        src_port: key.src_port,
        dst_port: key.dst_port,
        node: *via,
        ..NO_VALUE
    };
    *other_key = reverse(value, key.proto);
    *other = *value;
    (other.src, other.dst) = (value.dst, value.src);
    (other.src_port, other.dst_port) = (value.dst_port, value.src_port);
    other.flags = CT_REPLY;
    let added = connections.add_connection(key, value, true) == Added::Done
        && connections.add_connection(other_key, other, true) == Added::Done;
    if added { Ok(()) } else { Err(Refusal { reason: DropReason::ConntrackFull, service_id: 0 }) }
}

#[cfg(test)]
mod tests;
