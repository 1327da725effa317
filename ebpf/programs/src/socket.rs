//! Cgroup hooks on sockets: service addresses are translated here, once per connection, and node ports are kept free.

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval},
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use fairlead_abi::{
    Addr16, Be16, DropReason,
    event::{FLOW_DENIED, FlowEvent, ROLE_CLIENT},
    service::{TCP, UDP},
    socket::SocketValue,
};
use fairlead_datapath::{
    Client, Tables,
    header::Family,
    service::Refusal,
    socket::{self, Socket, Translation},
};

use crate::{
    event,
    maps::{Maps, SOCKETS, flow_events, host_netns, set_retval, sockets_of_host_only},
};

/// The call goes on.
const ALLOW: i32 = 1;
/// The call fails, with `EPERM` unless another error was set.
const DENY: i32 = 0;
/// `ECONNREFUSED` of `asm-generic/errno.h`.
const ECONNREFUSED: i32 = 111;

macro_rules! hooks {
    ($($hook:ident $what:ident $family:ident;)*) => { $(
        #[doc = concat!("The `", stringify!($hook), "` hook.")]
        #[cgroup_sock_addr($hook)]
        #[inline(always)]
        pub(crate) fn $hook(ctx: SockAddrContext) -> i32 {
            $what(&Call { ctx, family: Family::$family })
        }
    )* };
}

hooks! {
    connect4 connecting V4;
    connect6 connecting V6;
    sendmsg4 sending V4;
    sendmsg6 sending V6;
    recvmsg4 received V4;
    recvmsg6 received V6;
    getpeername4 named V4;
    getpeername6 named V6;
}

/// A socket is about to be connected.
#[inline(always)]
fn connecting(call: &Call) -> i32 {
    let Some(proto) = call.translatable() else { return ALLOW };
    let (addr, port) = (call.addr(), call.port());
    match socket::connect(&Maps, call, &addr, port, proto) {
        Translation::None => {
            socket::connected_past_services(&Maps, call, &addr, port);
            ALLOW
        }
        // A service and its backends are of one family; user space keeps to it.
        Translation::To { choice, service_id } => {
            socket::connected(call, &addr, port, &choice, service_id);
            call.set(&choice.backend.addr, choice.backend.port);
            ALLOW
        }
        Translation::Refused(refusal) => refuse(call, proto, &addr, port, &refusal),
    }
}

/// A datagram is about to be sent by a socket that is not connected, or not to there.
#[inline(always)]
fn sending(call: &Call) -> i32 {
    let Some(proto) = call.translatable() else { return ALLOW };
    let (addr, port) = (call.addr(), call.port());
    match socket::send(&Maps, call, (&addr, port, proto)) {
        Translation::None => ALLOW,
        Translation::To { choice, .. } => {
            call.set(&choice.backend.addr, choice.backend.port);
            ALLOW
        }
        Translation::Refused(refusal) => refuse(call, proto, &addr, port, &refusal),
    }
}

/// The sender of a datagram is about to be shown.
#[inline(always)]
fn received(call: &Call) -> i32 {
    if let Some((addr, port)) = socket::sender(&Maps, call, &call.addr(), call.port()) {
        call.set(&addr, port);
    }
    ALLOW
}

/// The peer of a connection is about to be shown.
#[inline(always)]
fn named(call: &Call) -> i32 {
    if let Some((addr, port)) = socket::peer(call, &call.addr(), call.port()) {
        call.set(&addr, port);
    }
    ALLOW
}

/// Fails the call at once, counts it and writes a record of it.
///
/// Where the client is to know (no endpoint at all, no such port) the error is `ECONNREFUSED`, as when nobody listens. With
/// endpoints that the service's policy keeps from this node it is `EPERM`: trying again elsewhere would work, so it must not
/// look like a service that is down.
#[inline(always)]
fn refuse(call: &Call, proto: u8, addr: &Addr16, port: Be16, refusal: &Refusal) -> i32 {
    if matches!(refusal.reason, DropReason::Inconsistent) {
        aya_log_ebpf::error!(&call.ctx, "service {} points at a slot without a backend", refusal.service_id);
    }
    let pod = Maps.pod_of_netns(call.netns_cookie()).unwrap_or_default();
    Maps.count_drop(pod.slot, refusal.reason);
    Maps.count(pod.slot, |counters| counters.connections_refused += 1);
    if flow_events() != 0 {
        event::write(|| FlowEvent {
            // SAFETY: the helper takes nothing.
            time_ns: unsafe { bpf_ktime_get_ns() },
            cookie: call.cookie(),
            local: if addr.is_v4() { pod.v4 } else { pod.v6 },
            service: *addr,
            service_port: port,
            proto,
            kind: FLOW_DENIED,
            role: ROLE_CLIENT,
            reason: refusal.reason as u32,
            service_id: refusal.service_id,
            ..FlowEvent::default()
        });
    }
    if refusal.is_told() && set_retval() != 0 {
        // SAFETY: the helper takes a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}

/// One load of a context field at a fixed offset, as the verifier wants it; hence volatile.
macro_rules! field {
    ($raw:expr, $($field:tt)+) => {
        // SAFETY: the kernel passes a valid context.
        unsafe { (&raw const (*$raw).$($field)+).read_volatile() }
    };
}

/// A process has bound an IPv4 socket.
#[cgroup_sock(post_bind4)]
#[inline(always)]
pub(crate) fn post_bind4(ctx: SockContext) -> i32 {
    let sock: *const bpf_sock = ctx.as_ptr().cast();
    bound(&ctx, &Addr16::from_v4_be(field!(sock, src_ip4)))
}

/// A process has bound an IPv6 socket.
#[cgroup_sock(post_bind6)]
#[inline(always)]
pub(crate) fn post_bind6(ctx: SockContext) -> i32 {
    let sock: *const bpf_sock = ctx.as_ptr().cast();
    let addr = Addr16::from_v6_be([
        field!(sock, src_ip6[0]),
        field!(sock, src_ip6[1]),
        field!(sock, src_ip6[2]),
        field!(sock, src_ip6[3]),
    ]);
    bound(&ctx, &addr)
}

#[inline(always)]
fn bound(ctx: &SockContext, addr: &Addr16) -> i32 {
    let sock: *const bpf_sock = ctx.as_ptr().cast();
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } != host_netns() {
        return ALLOW;
    }
    let proto = field!(sock, protocol);
    if proto != TCP as u32 && proto != UDP as u32 {
        return ALLOW;
    }
    // In host order, unlike the destination's.
    let port = Be16::new(field!(sock, src_port) as u16);
    if socket::may_bind(&Maps, addr, port, proto as u8) {
        return ALLOW;
    }
    Maps.count_drop(0, DropReason::PortReserved);
    DENY
}

/// A call on a socket, whose address the hook may change. Of an IPv6 socket the address may be a mapped IPv4 one,
/// which is how the maps hold IPv4 anyway.
struct Call {
    ctx: SockAddrContext,
    family: Family,
}

impl Call {
    /// The protocol, if a service can have it and sockets of this namespace are translated.
    #[inline(always)]
    fn translatable(&self) -> Option<u8> {
        if sockets_of_host_only() != 0 && self.netns_cookie() != host_netns() {
            return None;
        }
        // SAFETY: the kernel passes a valid context.
        match unsafe { (&raw const (*self.raw()).protocol).read_volatile() } {
            number if number == TCP as u32 => Some(TCP),
            number if number == UDP as u32 => Some(UDP),
            _ => None,
        }
    }

    #[inline(always)]
    fn addr(&self) -> Addr16 {
        let ctx = self.raw();
        // SAFETY: the kernel passes a valid context. Each word is one load at a fixed offset, as the verifier wants
        // it; hence volatile.
        unsafe {
            match self.family {
                Family::V4 => Addr16::from_v4_be((&raw const (*ctx).user_ip4).read_volatile()),
                Family::V6 => Addr16::from_v6_be([
                    (&raw const (*ctx).user_ip6[0]).read_volatile(),
                    (&raw const (*ctx).user_ip6[1]).read_volatile(),
                    (&raw const (*ctx).user_ip6[2]).read_volatile(),
                    (&raw const (*ctx).user_ip6[3]).read_volatile(),
                ]),
            }
        }
    }

    #[inline(always)]
    fn port(&self) -> Be16 {
        // SAFETY: as in `addr`. The field holds 16 bits in network order.
        Be16(unsafe { (&raw const (*self.raw()).user_port).read_volatile() } as u16)
    }

    #[inline(always)]
    fn set(&self, addr: &Addr16, port: Be16) {
        let ctx = self.raw();
        // SAFETY: as in `addr`; these fields may be written.
        unsafe {
            match self.family {
                Family::V4 => (&raw mut (*ctx).user_ip4).write_volatile(addr.v4_be()),
                Family::V6 => {
                    (&raw mut (*ctx).user_ip6[0]).write_volatile(addr.0[0]);
                    (&raw mut (*ctx).user_ip6[1]).write_volatile(addr.0[1]);
                    (&raw mut (*ctx).user_ip6[2]).write_volatile(addr.0[2]);
                    (&raw mut (*ctx).user_ip6[3]).write_volatile(addr.0[3]);
                }
            }
            (&raw mut (*ctx).user_port).write_volatile(port.0 as u32);
        }
    }

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.ctx.sock_addr
    }
}

impl Socket for Call {
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    fn kept(&self) -> Option<SocketValue> {
        // SAFETY: the context is valid; the value is plain bytes that live as long as the socket, copied at once.
        unsafe { SOCKETS.get_ptr_mut(&self.ctx).as_ref().copied() }
    }

    /// Without memory for it the call works all the same; only who answers is seen by the backend's address.
    #[inline(always)]
    fn keep(&self, value: &SocketValue) {
        let mut fresh = *value;
        // SAFETY: the context is valid, and the pointer is to the socket's own value, which lives as long as the socket.
        unsafe {
            if let Some(kept) = SOCKETS.get_or_insert_ptr_mut(&self.ctx, Some(&mut fresh)).as_mut() {
                *kept = SocketValue { others: value.others | kept.others, ..*value };
            }
        }
    }
}

impl Client for Call {
    #[inline(always)]
    fn is_inside(&self) -> bool {
        true
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        self.netns_cookie() == host_netns()
    }

    #[inline(always)]
    fn is_sent_here(&self) -> bool {
        false
    }

    /// The pod's; the kernel chooses a source address only after it knows the destination. None is known of a pod that is not
    /// ours, which no source range therefore lets in.
    #[inline(always)]
    fn address(&self) -> Addr16 {
        let pod = Maps.pod_of_netns(self.netns_cookie()).unwrap_or_default();
        match self.family {
            Family::V4 => pod.v4,
            Family::V6 if self.addr().is_v4() => pod.v4,
            Family::V6 => pod.v6,
        }
    }

    #[inline(always)]
    fn identity(&self) -> Addr16 {
        Addr16::from_cookie(self.netns_cookie())
    }

    #[inline(always)]
    fn hash(&self, _with_port: bool) -> Option<u32> {
        None
    }
}
