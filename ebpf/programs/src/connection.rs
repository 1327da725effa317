//! `sock_ops`: one record when a TCP connection is established and one when it ends, with what its socket counted.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock_ops,
    },
    helpers::{
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sk_storage_get,
        bpf_sock_ops_cb_flags_set,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use fairlead_abi::{
    Addr16, Be16,
    event::{FLOW_END, FLOW_START, FlowEvent, ROLE_CLIENT, ROLE_SERVER},
    service::TCP,
    socket::SocketValue,
};
use fairlead_datapath::Tables;

use crate::{
    event,
    maps::{Maps, SOCKETS, flow_events, sock_ops_netns},
};

/// `AF_INET`.
const AF_INET: u32 = 2;

/// The socket accepted its connection. As a flag it asks for a call when a retransmission timer expires, which is rare and of
/// which nothing is made.
const SERVER: u32 = BPF_SOCK_OPS_RTO_CB_FLAG;

/// Records of connections.
#[sock_ops]
#[inline(always)]
pub(crate) fn sock_ops(ctx: SockOpsContext) -> u32 {
    let socket = Socket { ctx };
    match socket.ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(&socket, ROLE_CLIENT),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(&socket, ROLE_SERVER),
        BPF_SOCK_OPS_STATE_CB if socket.new_state() == BPF_TCP_CLOSE => ended(&socket),
        _ => {}
    }
    1
}

#[inline(always)]
fn established(socket: &Socket, role: u8) {
    let local = socket.local();
    Maps.count(socket.pod_slot(&local), |counters| {
        if role == ROLE_CLIENT {
            counters.connections_opened += 1;
        } else {
            counters.connections_accepted += 1;
        }
    });
    // The end is heard of for the retransmits alone, even when no records are written.
    socket.listen_to_states(role);
    if flow_events() == 0 {
        return;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut kept = socket.storage();
    if let Some(kept) = &mut kept {
        (kept.start_ns, kept.role) = (now, role);
    }
    let kept = kept.as_deref();
    event::write(|| FlowEvent {
        time_ns: now,
        start_ns: now,
        kind: FLOW_START,
        role,
        ..socket.describe(local, kept)
    });
}

#[inline(always)]
fn ended(socket: &Socket) {
    let local = socket.local();
    let retransmits = socket.retransmits();
    if retransmits != 0 {
        Maps.count(socket.pod_slot(&local), |counters| counters.retransmits += retransmits as u64);
    }
    if flow_events() == 0 {
        return;
    }
    let kept = socket.storage();
    let kept = kept.as_deref();
    let (start_ns, role) = match kept {
        Some(kept) if kept.role != 0 => (kept.start_ns, kept.role),
        _ => (0, socket.role()),
    };
    event::write(|| FlowEvent {
        // SAFETY: the helper takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
        start_ns,
        kind: FLOW_END,
        role,
        ..socket.describe(local, kept)
    });
}

/// A TCP socket as `sock_ops` sees it.
struct Socket {
    ctx: SockOpsContext,
}

/// One load of a context field at a fixed offset, as the verifier wants it; hence volatile.
macro_rules! field {
    ($socket:expr, $($field:tt)+) => {
        // SAFETY: the kernel passes a valid context.
        unsafe { (&raw const (*$socket.raw()).$($field)+).read_volatile() }
    };
}

impl Socket {
    /// What the socket has counted, and which service it was aimed at.
    #[inline(always)]
    fn describe(&self, local: Addr16, kept: Option<&SocketValue>) -> FlowEvent {
        let mut event = FlowEvent {
            cookie: self.cookie(),
            local,
            remote: self.remote(),
            remote_port: self.remote_port(),
            bytes_sent: field!(self, bytes_acked),
            bytes_received: field!(self, bytes_received),
            // In host order, unlike the remote one.
            local_port: Be16::new(field!(self, local_port) as u16),
            proto: TCP,
            srtt_us: field!(self, srtt_us) >> 3,
            retransmits: self.retransmits(),
            ..FlowEvent::default()
        };
        if let Some(kept) = kept {
            (event.service, event.service_port) = (kept.service, kept.service_port);
            event.service_id = kept.service_id;
        }
        event
    }

    /// What a translated socket keeps. Others keep nothing: it would cost each connection more than all its records, and some
    /// hundred bytes of the kernel's memory; the reader of the records joins the two of a socket by its cookie.
    #[inline(always)]
    fn storage(&self) -> Option<&mut SocketValue> {
        let sk = field!(self, __bindgen_anon_2.sk);
        if sk.is_null() {
            return None;
        }
        // SAFETY: the map and the socket are valid; the value lives as long as the socket, and only its own hooks use it.
        unsafe {
            let map = (&raw const SOCKETS).cast_mut().cast();
            bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0).cast::<SocketValue>().as_mut()
        }
    }

    /// The pod whose socket it is: by its address, or by its network namespace where the address is no pod's.
    #[inline(always)]
    fn pod_slot(&self, local: &Addr16) -> u32 {
        if let Some(pod) = Maps.pod(local) {
            return pod.slot;
        }
        if sock_ops_netns() == 0 {
            return 0;
        }
        // SAFETY: the kernel passes a valid context.
        let cookie = unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) };
        Maps.pod_of_netns(cookie).map_or(0, |pod| pod.slot)
    }

    /// Asks for the end, and notes the role: [`SERVER`] in the socket's own flags costs nothing.
    #[inline(always)]
    fn listen_to_states(&self, role: u8) {
        let noted = if role == ROLE_SERVER { SERVER } else { 0 };
        let flags = field!(self, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG | noted;
        // SAFETY: the kernel passes a valid context. It fails only for flags that the kernel does not know.
        let _unknown = unsafe { bpf_sock_ops_cb_flags_set(self.raw(), flags as i32) };
    }

    #[inline(always)]
    fn role(&self) -> u8 {
        if field!(self, bpf_sock_ops_cb_flags) & SERVER == 0 { ROLE_CLIENT } else { ROLE_SERVER }
    }

    #[inline(always)]
    fn new_state(&self) -> u32 {
        field!(self, __bindgen_anon_1.args[1])
    }

    #[inline(always)]
    fn retransmits(&self) -> u32 {
        field!(self, total_retrans)
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    fn local(&self) -> Addr16 {
        let v4 = field!(self, local_ip4);
        let v6 = [
            field!(self, local_ip6[0]),
            field!(self, local_ip6[1]),
            field!(self, local_ip6[2]),
            field!(self, local_ip6[3]),
        ];
        self.either(v4, v6)
    }

    #[inline(always)]
    fn remote(&self) -> Addr16 {
        let v4 = field!(self, remote_ip4);
        let v6 = [
            field!(self, remote_ip6[0]),
            field!(self, remote_ip6[1]),
            field!(self, remote_ip6[2]),
            field!(self, remote_ip6[3]),
        ];
        self.either(v4, v6)
    }

    /// The address of the socket's family. Both were loaded: of two branches that each load one the compiler makes a
    /// single load at a computed offset, which the verifier refuses.
    #[inline(always)]
    fn either(&self, v4: u32, v6: [u32; 4]) -> Addr16 {
        if field!(self, family) == AF_INET { Addr16::from_v4_be(v4) } else { Addr16::from_v6_be(v6) }
    }

    #[inline(always)]
    fn remote_port(&self) -> Be16 {
        // The kernel loads 16 bits in network order and, on a little-endian machine, shifts them up by 16
        // (`sock_ops_convert_ctx_access` in net/core/filter.c).
        Be16((field!(self, remote_port) >> 16) as u16)
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_ops {
        self.ctx.ops
    }
}
