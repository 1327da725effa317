//! Cgroup hooks on socket addresses: service addresses are translated here, once per connection or datagram.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use fairlead_abi::{
    Addr16, Be16, DropReason,
    event::{FLOW_DENIED, FlowEvent, ROLE_CLIENT},
    service::{OriginKey, OriginValue, SCOPE_INTERNAL, ServiceKey, TCP, UDP},
};
use fairlead_datapath::{
    Tables,
    header::Family,
    service::{self, Refusal, Translation},
};

use crate::{
    event,
    maps::{Maps, flow_events, set_retval},
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
        pub(crate) fn $hook(ctx: SockAddrContext) -> i32 {
            $what(&Call { ctx, family: Family::$family })
        }
    )* };
}

hooks! {
    connect4 outgoing V4;
    connect6 outgoing V6;
    sendmsg4 outgoing V4;
    sendmsg6 outgoing V6;
    recvmsg4 received V4;
    recvmsg6 received V6;
    getpeername4 named V4;
    getpeername6 named V6;
}

/// A destination is about to be used.
#[inline(always)]
fn outgoing(call: &Call) -> i32 {
    let Some(key) = call.service_key() else { return ALLOW };
    match service::translate(&Maps, || call.cookie(), &key) {
        Translation::None => ALLOW,
        // A service and its backends are of one family; user space keeps to it.
        Translation::To { addr, port } => {
            call.set(&addr, port);
            ALLOW
        }
        Translation::Refused(refusal) => refuse(call, &key, &refusal),
    }
}

/// The sender of a datagram is about to be shown.
#[inline(always)]
fn received(call: &Call) -> i32 {
    if let Some(origin) = service::sender(&Maps, &call.origin_key()) {
        call.show(&origin);
    }
    ALLOW
}

/// The peer of a connection is about to be shown.
#[inline(always)]
fn named(call: &Call) -> i32 {
    if let Some(origin) = service::peer(&Maps, &call.origin_key()) {
        call.show(&origin);
    }
    ALLOW
}

/// Fails the call at once, counts it and writes a record of it.
///
/// Without any endpoint the error is `ECONNREFUSED`, as when nobody listens. With endpoints that the service's policy
/// keeps from this node it is `EPERM`: trying again elsewhere would work, so it must not look like a service that is
/// down.
#[inline(always)]
fn refuse(call: &Call, key: &ServiceKey, refusal: &Refusal) -> i32 {
    if refusal.inconsistent {
        aya_log_ebpf::error!(&call.ctx, "service {} points at a slot without a backend", refusal.service_id);
    }
    let pod = Maps.pod_of_netns(call.netns_cookie()).unwrap_or_default();
    Maps.count_drop(pod.slot, refusal.reason);
    Maps.count(pod.slot, |counters| counters.connections_refused += 1);
    if flow_events() {
        event::write(FlowEvent {
            // SAFETY: the helper takes nothing.
            time_ns: unsafe { bpf_ktime_get_ns() },
            cookie: call.cookie(),
            local: if key.addr.is_v4() { pod.v4 } else { pod.v6 },
            service: key.addr,
            service_port: key.port,
            proto: key.proto,
            kind: FLOW_DENIED,
            role: ROLE_CLIENT,
            reason: refusal.reason as u32,
            service_id: refusal.service_id,
            ..FlowEvent::default()
        });
    }
    if matches!(refusal.reason, DropReason::NoEndpoints) && set_retval() {
        // SAFETY: the helper takes a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}

/// A call on a socket, whose address the hook may change. Of an IPv6 socket the address may be a mapped IPv4 one,
/// which is how the maps hold IPv4 anyway.
struct Call {
    ctx: SockAddrContext,
    family: Family,
}

impl Call {
    /// The destination as a frontend, if a service can have its protocol.
    #[inline(always)]
    fn service_key(&self) -> Option<ServiceKey> {
        // SAFETY: the kernel passes a valid context.
        let proto = match unsafe { (&raw const (*self.raw()).protocol).read_volatile() } {
            number if number == TCP as u32 => TCP,
            number if number == UDP as u32 => UDP,
            _ => return None,
        };
        Some(ServiceKey { addr: self.addr(), port: self.port(), proto, scope: SCOPE_INTERNAL })
    }

    #[inline(always)]
    fn origin_key(&self) -> OriginKey {
        OriginKey { cookie: self.cookie(), addr: self.addr(), port: self.port(), _pad: [0; 6] }
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

    /// Shows the service in place of the backend.
    #[inline(always)]
    fn show(&self, origin: &OriginValue) {
        self.set(&origin.addr, origin.port);
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
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
