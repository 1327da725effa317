//! TCX programs: pod routing.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6,
        BPF_F_ZERO_CSUM_TX, TC_ACT_OK, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh,
        bpf_tunnel_key,
    },
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use fairlead_abi::{Addr16, node::OVERLAY_VNI};
use fairlead_datapath::{Packet, Verdict, link};

use crate::maps::{Maps, overlay_ifindex, uplink_ifindex, work};

/// `AF_INET`.
const AF_INET: u32 = 2;
/// `AF_INET6`.
const AF_INET6: u32 = 10;
/// The most that a decision reads: Ethernet and IPv6 headers.
const HEADERS_LEN: usize = 14 + 40;

/// `PACKET_HOST` of `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// Ingress of a pod's host-side veth.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(&ctx, link::from_pod(&mut skb, &Maps, ifindex(&ctx), work))
}

/// Egress of a pod's host-side veth.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(&ctx, link::to_pod(&mut skb, &Maps, ifindex(&ctx), work))
}

/// Ingress of the uplink.
#[classifier]
pub(crate) fn from_uplink(ctx: TcContext) -> i32 {
    let mut skb = Skb::new(&ctx);
    act(&ctx, link::from_uplink(&mut skb, &Maps, work))
}

/// Egress of the uplink. What came in by another interface has been looked at there.
#[classifier]
pub(crate) fn to_uplink(ctx: TcContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    if unsafe { (*ctx.skb.skb).ingress_ifindex } != 0 {
        return TC_ACT_OK as i32;
    }
    let mut skb = Skb::new(&ctx);
    match link::to_uplink(&mut skb, &Maps, work) {
        // On the way out there is no other end of a veth to go to directly.
        // SAFETY: the helper takes two numbers.
        Verdict::RedirectPeer { ifindex } => unsafe { bpf_redirect(ifindex, 0) as i32 },
        // The answer is for the host itself, which hears it from the uplink.
        // SAFETY: as above.
        Verdict::Answer(_) => unsafe { bpf_redirect(ifindex(&ctx), BPF_F_INGRESS as u64) as i32 },
        verdict => act(&ctx, verdict),
    }
}

/// Ingress of the overlay.
#[classifier]
pub(crate) fn from_overlay(ctx: TcContext) -> i32 {
    let Some(via) = sender_of_tunnel(&ctx) else { return TC_ACT_SHOT as i32 };
    let mut skb = Skb::new(&ctx);
    let verdict = link::from_overlay(&mut skb, &Maps, &via, work);
    if matches!(verdict, Verdict::Pass) {
        // The link-layer address inside the tunnel is nobody's; the packet is for the host all the same.
        // SAFETY: the context is valid.
        let _same_type = unsafe { bpf_skb_change_type(ctx.skb.skb, PACKET_HOST) };
    }
    act(&ctx, verdict)
}

/// Turns a verdict into what the kernel is to do.
#[inline(always)]
fn act(ctx: &TcContext, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass | Verdict::Refuse(_) => TC_ACT_OK as i32,
        Verdict::Drop(_) => TC_ACT_SHOT as i32,
        // SAFETY: the helpers take numbers.
        Verdict::Answer(_) => unsafe { bpf_redirect(ifindex(ctx), 0) as i32 },
        // SAFETY: as above.
        Verdict::RedirectPeer { ifindex } => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        Verdict::RedirectNeigh { ifindex, next_hop } => redirect_neigh(ifindex, &next_hop),
        // SAFETY: without a next hop the helper asks the kernel's routes.
        Verdict::RedirectUplink => unsafe {
            bpf_redirect_neigh(uplink_ifindex(), core::ptr::null_mut(), 0, 0) as i32
        },
        Verdict::RedirectOverlay { node } => redirect_overlay(ctx, &node),
    }
}

/// How much of a tunnel key the helpers are given: without the local address, which kernels before 6.0 do not know.
const TUNNEL_KEY_LEN: u32 = core::mem::offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;
/// Hop limit of the packets outside.
const TUNNEL_TTL: u8 = 64;

#[inline(always)]
fn redirect_overlay(ctx: &TcContext, node: &Addr16) -> i32 {
    // SAFETY: every field of the structure is an integer.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = OVERLAY_VNI;
    key.tunnel_ttl = TUNNEL_TTL;
    let flags = if node.is_v4() {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(node.v4_be());
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = node.0;
        BPF_F_TUNINFO_IPV6
    };
    // SAFETY: `key` is valid for its size for the time of the call.
    let set = unsafe { bpf_skb_set_tunnel_key(ctx.skb.skb, &mut key, TUNNEL_KEY_LEN, flags as u64) };
    if set != 0 {
        return TC_ACT_SHOT as i32;
    }
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect(overlay_ifindex(), 0) as i32 }
}

/// The node that a packet of the overlay comes from.
#[inline(always)]
fn sender_of_tunnel(ctx: &TcContext) -> Option<Addr16> {
    // SAFETY: every field of the structure is an integer.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: `key` is valid for its size for the time of the calls.
    unsafe {
        if bpf_skb_get_tunnel_key(ctx.skb.skb, &mut key, TUNNEL_KEY_LEN, 0) == 0 {
            return Some(Addr16::from_v4_be(key.__bindgen_anon_1.remote_ipv4.to_be()));
        }
        let flags = BPF_F_TUNINFO_IPV6 as u64;
        if bpf_skb_get_tunnel_key(ctx.skb.skb, &mut key, TUNNEL_KEY_LEN, flags) == 0 {
            return Some(Addr16::from_v6_be(key.__bindgen_anon_1.remote_ipv6));
        }
    }
    None
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

/// Loads and stores at constant offsets from a register, of any alignment. A plain access to a type that may be
/// misaligned would become one access per byte, and the compiler's switch for misaligned accesses also concerns the
/// stack, which the verifier does not allow.
macro_rules! access {
    ($($load:ident $store:ident $ty:ident $mnemonic:literal;)*) => { $(
        /// # Safety
        /// The bytes at `base + OFFSET + MORE` lie within the packet, and the caller has compared that with its end.
        #[inline(always)]
        unsafe fn $load<const OFFSET: usize, const MORE: usize>(base: usize) -> $ty {
            let value: u64;
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    concat!("{value} = *(", $mnemonic, " *)({base} + {offset})"),
                    value = out(reg) value,
                    base = in(reg) base,
                    offset = const OFFSET + MORE,
                    options(pure, readonly, nostack),
                );
            }
            value as $ty
        }

        /// # Safety
        /// As for the load.
        #[inline(always)]
        unsafe fn $store<const OFFSET: usize, const MORE: usize>(base: usize, value: $ty) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    concat!("*(", $mnemonic, " *)({base} + {offset}) = {value}"),
                    value = in(reg) value as u64,
                    base = in(reg) base,
                    offset = const OFFSET + MORE,
                    options(nostack),
                );
            }
        }
    )* };
}

access! {
    load_u8 store_u8 u8 "u8";
    load_u16 store_u16 u16 "u16";
    load_u32 store_u32 u32 "u32";
}

impl Skb {
    #[inline(always)]
    fn has(&self, end: usize) -> bool {
        self.data + end <= self.end
    }

    /// # Safety
    /// A `T` at `OFFSET` lies within the packet, and `to` is one.
    #[inline(always)]
    unsafe fn load_words<T, const OFFSET: usize>(&self, to: *mut u32) {
        const { assert!(size_of::<T>() <= 2 || size_of::<T>() % 4 == 0 && size_of::<T>() <= 40) }
        macro_rules! words {
            ($($at:literal)*) => { $(
                if size_of::<T>() > $at {
                    // SAFETY: the caller's.
                    unsafe { to.byte_add($at).write_unaligned(load_u32::<OFFSET, $at>(self.data)) };
                }
            )* };
        }
        words!(0 4 8 12 16 20 24 28 32 36);
    }

    /// # Safety
    /// A `T` at `OFFSET` lies within the packet, and `from` is one.
    #[inline(always)]
    unsafe fn store_words<T, const OFFSET: usize>(&self, from: *const u32) {
        const { assert!(size_of::<T>() <= 2 || size_of::<T>() % 4 == 0 && size_of::<T>() <= 40) }
        macro_rules! words {
            ($($at:literal)*) => { $(
                if size_of::<T>() > $at {
                    // SAFETY: the caller's.
                    unsafe { store_u32::<OFFSET, $at>(self.data, from.byte_add($at).read_unaligned()) };
                }
            )* };
        }
        words!(0 4 8 12 16 20 24 28 32 36);
    }
}

/// Network and TCP headers of a segment, with the options that Linux uses.
const SEGMENT_HEADERS_V4: u32 = 20 + 32;
const SEGMENT_HEADERS_V6: u32 = 40 + 32;
/// `ETH_P_IP` in network order.
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;

impl Skb {
    /// The helpers below may move the packet.
    #[inline(always)]
    fn find(&mut self) {
        // SAFETY: the kernel passes a valid context.
        unsafe {
            self.data = (*self.skb).data as usize;
            self.end = (*self.skb).data_end as usize;
        }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment_len(&self) -> u32 {
        // SAFETY: as above.
        let (segment, protocol) = unsafe { ((*self.skb).gso_size, (*self.skb).protocol) };
        match segment {
            0 => self.network_len(),
            _ if protocol == ETH_P_IP => segment + SEGMENT_HEADERS_V4,
            _ => segment + SEGMENT_HEADERS_V6,
        }
    }

    #[inline(always)]
    fn load_at<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value`, which is plain bytes by the trait's bound, or fails.
        unsafe {
            let to = value.as_mut_ptr().cast();
            let loaded = bpf_skb_load_bytes(self.skb.cast(), offset, to, size_of::<T>() as u32);
            (loaded == 0).then(|| value.assume_init())
        }
    }

    #[inline(always)]
    fn store_at<T: Copy>(&mut self, offset: u32, value: T) -> Option<()> {
        // SAFETY: the helper reads all of `value`.
        let stored = unsafe {
            bpf_skb_store_bytes(self.skb.cast(), offset, (&raw const value).cast(), size_of::<T>() as u32, 0)
        };
        self.find();
        (stored == 0).then_some(())
    }

    #[inline(always)]
    fn correct_checksum(&mut self, offset: u32, addresses: u32, rest: u32, optional: bool) -> Option<()> {
        let optional = if optional { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        let pseudo = optional | BPF_F_PSEUDO_HDR as u64;
        // Length 0 in the flags: the difference is computed already.
        // SAFETY: the context is valid; the helpers check the offset.
        let corrected = unsafe {
            bpf_l4_csum_replace(self.skb.cast(), offset, 0, addresses as u64, pseudo)
                | bpf_l4_csum_replace(self.skb.cast(), offset, 0, rest as u64, optional)
        };
        self.find();
        (corrected == 0).then_some(())
    }

    #[inline(always)]
    fn truncate(&mut self, len: u32) -> Option<()> {
        // What is beyond the end must not be made up.
        if len > self.len() {
            return None;
        }
        // SAFETY: the context is valid.
        let cut = unsafe { bpf_skb_change_tail(self.skb.cast(), len, 0) };
        self.find();
        (cut == 0).then_some(())
    }

    #[inline(always)]
    fn make_room<const LEN: usize>(&mut self) -> Option<()> {
        // SAFETY: the context is valid.
        let made = unsafe { bpf_skb_adjust_room(self.skb.cast(), LEN as i32, BPF_ADJ_ROOM_MAC, 0) };
        self.find();
        (made == 0).then_some(())
    }

    #[inline(always)]
    fn load<T: Copy, const OFFSET: usize>(&self) -> Option<T> {
        if !self.has(OFFSET + size_of::<T>()) {
            return None;
        }
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr();
        // SAFETY: the bytes lie within the packet, as compared above; all of `value` is written, which is plain
        // bytes by the trait's bound.
        unsafe {
            match size_of::<T>() {
                1 => to.cast::<u8>().write(load_u8::<OFFSET, 0>(self.data)),
                2 => to.cast::<u16>().write_unaligned(load_u16::<OFFSET, 0>(self.data)),
                _ => self.load_words::<T, OFFSET>(to.cast()),
            }
            Some(value.assume_init())
        }
    }

    #[inline(always)]
    fn store<T: Copy, const OFFSET: usize>(&mut self, value: T) -> Option<()> {
        if !self.has(OFFSET + size_of::<T>()) {
            return None;
        }
        let from = &raw const value;
        // SAFETY: as in `load`.
        unsafe {
            match size_of::<T>() {
                1 => store_u8::<OFFSET, 0>(self.data, from.cast::<u8>().read()),
                2 => store_u16::<OFFSET, 0>(self.data, from.cast::<u16>().read_unaligned()),
                _ => self.store_words::<T, OFFSET>(from.cast()),
            }
        }
        Some(())
    }
}
