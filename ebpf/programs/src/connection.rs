//! `sock_ops`: one record when a TCP connection is established and one when it ends, with what its socket counted.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
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

/// Records of connections.
#[sock_ops]
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
    socket.listen_to_states();
    if flow_events() == 0 {
        return;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut new = SocketValue { start_ns: now, role, ..SocketValue::default() };
    let connection = match socket.storage(Some(&mut new)) {
        Some(kept) => {
            // A translated socket had one already.
            (kept.start_ns, kept.role) = (now, role);
            kept
        }
        None => &new,
    };
    event::write(|| FlowEvent {
        time_ns: now,
        kind: FLOW_START,
        local,
        remote: socket.remote(),
        remote_port: socket.remote_port(),
        cookie: socket.cookie(),
        ..socket.describe(connection)
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
    let connection = socket.storage(None).copied().unwrap_or_default();
    event::write(|| FlowEvent {
        // SAFETY: the helper takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
        kind: FLOW_END,
        local,
        remote: socket.remote(),
        remote_port: socket.remote_port(),
        cookie: socket.cookie(),
        ..socket.describe(&connection)
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
    /// What the socket has counted, and what is known of its connection.
    #[inline(always)]
    fn describe(&self, connection: &SocketValue) -> FlowEvent {
        FlowEvent {
            start_ns: connection.start_ns,
            bytes_sent: field!(self, bytes_acked),
            bytes_received: field!(self, bytes_received),
            service: connection.service,
            // In host order, unlike the remote one.
            local_port: Be16::new(field!(self, local_port) as u16),
            service_port: connection.service_port,
            proto: TCP,
            role: connection.role,
            service_id: connection.service_id,
            srtt_us: field!(self, srtt_us) >> 3,
            retransmits: self.retransmits(),
            ..FlowEvent::default()
        }
    }

    /// What the socket itself keeps; with `value`, made when it is not there yet.
    #[inline(always)]
    fn storage(&self, value: Option<&mut SocketValue>) -> Option<&mut SocketValue> {
        let flags = if value.is_some() { BPF_SK_STORAGE_GET_F_CREATE as u64 } else { 0 };
        let initial = value.map_or(core::ptr::null_mut(), core::ptr::from_mut);
        let sk = field!(self, __bindgen_anon_2.sk);
        if sk.is_null() {
            return None;
        }
        // SAFETY: the map and the socket are valid; the value lives as long as the socket, and only its own hooks use it.
        unsafe {
            let map = (&raw const SOCKETS).cast_mut().cast();
            bpf_sk_storage_get(map, sk.cast(), initial.cast(), flags).cast::<SocketValue>().as_mut()
        }
    }

    /// The pod whose socket it is: by its network namespace, or by its address while the namespace is not known.
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

    #[inline(always)]
    fn listen_to_states(&self) {
        let flags = field!(self, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG;
        // SAFETY: the kernel passes a valid context. It fails only for flags that the kernel does not know.
        let _unknown = unsafe { bpf_sock_ops_cb_flags_set(self.raw(), flags as i32) };
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
