//! TCX programs: pod routing.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, bpf_redir_neigh},
    helpers::{bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_pull_data},
    macros::classifier,
    programs::TcContext,
};
use fairlead_abi::Addr16;
use fairlead_datapath::{Packet, Verdict, link};

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

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).len }
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
