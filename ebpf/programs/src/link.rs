//! TCX programs: pod routing.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, bpf_redir_neigh},
    helpers::{bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_pull_data},
    macros::classifier,
    programs::TcContext,
};
use fairlead_abi::Addr16;
use fairlead_datapath::{
    Packet, Verdict,
    link,
};

use crate::maps::Maps;

/// `AF_INET`.
const AF_INET: u32 = 2;
/// `AF_INET6`.
const AF_INET6: u32 = 10;
/// The most that a decision reads: Ethernet and IPv6 headers.
const HEADERS_LEN: usize = 14 + 40;

/// Ingress of a pod's host-side veth.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(link::from_pod(&mut skb, &Maps, ifindex(&ctx)))
}

/// Egress of a pod's host-side veth.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    act(link::to_pod(&Skb::new(&ctx), &Maps, ifindex(&ctx)))
}

/// Ingress of the uplink.
#[classifier]
pub(crate) fn from_uplink(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(link::from_uplink(&mut skb, &Maps))
}

/// Turns a verdict into what the kernel is to do.
#[inline(always)]
fn act(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass | Verdict::Refuse(_) => TC_ACT_OK as i32,
        Verdict::Drop(_) => TC_ACT_SHOT as i32,
        // SAFETY: the helper takes two numbers.
        Verdict::RedirectPeer { ifindex } => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        Verdict::RedirectNeigh { ifindex, next_hop } => redirect_neigh(ifindex, &next_hop),
    }
}

#[inline(always)]
fn redirect_neigh(ifindex: u32, next_hop: &Addr16) -> i32 {
    // SAFETY: every field of the structure is an integer.
    let mut params: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    if next_hop.is_v4() {
        params.nh_family = AF_INET;
        params.__bindgen_anon_1.ipv4_nh = next_hop.v4_be();
    } else {
        params.nh_family = AF_INET6;
        params.__bindgen_anon_1.ipv6_nh = next_hop.0;
    }
    // SAFETY: `params` is valid for its size for the time of the call.
    unsafe { bpf_redirect_neigh(ifindex, &mut params, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// The part of a packet that can be read and written in place.
struct Skb {
    skb: *mut __sk_buff,
    data: usize,
    end: usize,
}

impl Skb {
    /// Makes sure that the headers are in that part: a driver may have left them in a fragment.
    #[inline(always)]
    fn new(ctx: &TcContext) -> Self {
        let skb = ctx.skb.skb;
        let len = ctx.len();
        if ctx.data() + HEADERS_LEN > ctx.data_end() && len as usize > ctx.data_end() - ctx.data() {
            let wanted = if len < HEADERS_LEN as u32 { len } else { HEADERS_LEN as u32 };
            // SAFETY: the context is valid; `data` and `data_end` are read after the call. When it fails, the
            // datapath finds the packet too short.
            let _short = unsafe { bpf_skb_pull_data(skb, wanted) };
        }
        Self { skb, data: ctx.data(), end: ctx.data_end() }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        if self.data + offset + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes lie within the packet, as compared above; `T` is plain bytes by the trait's bound.
        Some(unsafe { core::ptr::read_unaligned((self.data + offset) as *const T) })
    }

    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        if self.data + offset + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: as in `load`.
        unsafe { core::ptr::write_unaligned((self.data + offset) as *mut T, value) };
        Some(())
    }
}
